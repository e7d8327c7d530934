#include "engine.h"

#include <onnxruntime_c_api.h>

#include <cstring>
#include <mutex>
#include <utility>

namespace vtr::internal {
namespace {

// The oldest library that serves: newer ones hand out this version of the interface too.
constexpr uint32_t kApiVersion = 20;

const OrtApi &api() {
  static const OrtApi *const found = OrtGetApiBase()->GetApi(kApiVersion);
  if (found == nullptr) {
    throw Error(VTR_UNAVAILABLE, std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                                     " is too old; install 1.20 or newer");
  }
  return *found;
}

// Throws what ONNX Runtime says, in a sentence of ours.
void check(OrtStatus *status, const std::string &doing, vtr_code code = VTR_BACKEND_ERROR) {
  if (status == nullptr) return;
  const std::string reason = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  if (reason.find("bad_alloc") != std::string::npos || reason.find("Failed to allocate") != std::string::npos) {
    throw Error(VTR_OUT_OF_MEMORY, "memory ran out while " + doing + "; give smaller batches");
  }
  throw Error(code, std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString() + " failed while " + doing +
                        ": " + reason);
}

template <typename T>
using Handle = std::unique_ptr<T, void (*)(T *)>;

// ONNX Runtime wants one environment a process; it is this library's only global, and goes with the last engine.
std::shared_ptr<OrtEnv> environment() {
  static std::mutex mutex;
  static std::weak_ptr<OrtEnv> shared;
  const std::lock_guard<std::mutex> lock(mutex);
  if (auto found = shared.lock()) return found;
  OrtEnv *made = nullptr;
  check(api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "vtr_runtime", &made), "starting");
  std::shared_ptr<OrtEnv> found(made, [](OrtEnv *env) { api().ReleaseEnv(env); });
  shared = found;
  return found;
}

struct Logger {
  vtr_log log = nullptr;
  void *user = nullptr;
};

void ORT_API_CALL forward_log(void *param, OrtLoggingLevel severity, const char *, const char *, const char *,
                              const char *message) {
  const auto &logger = *static_cast<const Logger *>(param);
  if (logger.log == nullptr) return;
  const vtr_log_level level = severity >= ORT_LOGGING_LEVEL_ERROR     ? VTR_LOG_ERROR
                              : severity == ORT_LOGGING_LEVEL_WARNING ? VTR_LOG_WARNING
                              : severity == ORT_LOGGING_LEVEL_INFO    ? VTR_LOG_INFO
                                                                      : VTR_LOG_DEBUG;
  logger.log(logger.user, level, message);
}

ONNXTensorElementDataType element(ElementType type) {
  switch (type) {
    case ElementType::kUint8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case ElementType::kBool:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
    case ElementType::kInt32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case ElementType::kFloat:
      break;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

size_t bytes_of(const Tensor &tensor) {
  size_t bytes = tensor.type == ElementType::kInt32 || tensor.type == ElementType::kFloat ? 4 : 1;
  for (const int64_t axis : tensor.shape) bytes *= static_cast<size_t>(axis);
  return bytes;
}

Output copy_of(OrtValue *value, const std::string &name) {
  OrtTensorTypeAndShapeInfo *made = nullptr;
  check(api().GetTensorTypeAndShape(value, &made), "reading an output");
  const Handle<OrtTensorTypeAndShapeInfo> info(made, [](auto *it) { api().ReleaseTensorTypeAndShapeInfo(it); });
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  size_t axes = 0;
  void *data = nullptr;
  check(api().GetTensorElementType(made, &type), "reading an output");
  check(api().GetDimensionsCount(made, &axes), "reading an output");
  Output found;
  found.shape.resize(axes);
  check(api().GetDimensions(made, found.shape.data(), axes), "reading an output");
  check(api().GetTensorMutableData(value, &data), "reading an output");
  bool known = false;
  for (const ElementType kind : {ElementType::kUint8, ElementType::kBool, ElementType::kInt32, ElementType::kFloat}) {
    if (element(kind) == type) found.type = kind, known = true;
  }
  if (!known) throw Error(VTR_BACKEND_ERROR, "the graph's output " + name + " is of a type that no bundle has");
  const size_t bytes = bytes_of({name.c_str(), found.type, data, found.shape});
  found.bytes.resize(bytes);
  if (bytes != 0) std::memcpy(found.bytes.data(), data, bytes);
  return found;
}

using Entries = std::vector<std::pair<const char *, std::string>>;

std::pair<std::vector<const char *>, std::vector<const char *>> columns(const Entries &entries) {
  std::pair<std::vector<const char *>, std::vector<const char *>> found;
  for (const auto &[key, value] : entries) {
    found.first.push_back(key);
    found.second.push_back(value.c_str());
  }
  return found;
}

void append_cuda(OrtSessionOptions *options, const EngineOptions &chosen) {
  OrtCUDAProviderOptionsV2 *made = nullptr;
  check(api().CreateCUDAProviderOptions(&made), "asking for CUDA", VTR_UNAVAILABLE);
  const Handle<OrtCUDAProviderOptionsV2> cuda(made, [](auto *it) { api().ReleaseCUDAProviderOptions(it); });
  // As the Python runtime's: an arena that does not double, fp32 that is fp32.
  const Entries entries = {{"device_id", std::to_string(chosen.device)},
                           {"arena_extend_strategy", "kSameAsRequested"},
                           {"cudnn_conv_algo_search", "HEURISTIC"},
                           {"use_tf32", "0"}};
  const auto [keys, values] = columns(entries);
  check(api().UpdateCUDAProviderOptions(made, keys.data(), values.data(), keys.size()), "setting up CUDA");
  check(api().SessionOptionsAppendExecutionProvider_CUDA_V2(options, made), "asking for CUDA", VTR_UNAVAILABLE);
}

void append_tensorrt(OrtSessionOptions *options, const EngineOptions &chosen, const Manifest &manifest) {
  OrtTensorRTProviderOptionsV2 *made = nullptr;
  check(api().CreateTensorRTProviderOptions(&made), "asking for TensorRT", VTR_UNAVAILABLE);
  const Handle<OrtTensorRTProviderOptionsV2> trt(made, [](auto *it) { api().ReleaseTensorRTProviderOptions(it); });
  const auto allowed = [&](const char *precision) { return manifest.graph_precision == precision ? "1" : "0"; };
  const Entries entries = {{"device_id", std::to_string(chosen.device)},
                           {"trt_fp16_enable", allowed("fp16")},
                           {"trt_bf16_enable", allowed("bf16")},
                           {"trt_int8_enable", allowed("int8")},
                           {"trt_layer_norm_fp32_fallback", "1"}};
  const auto [keys, values] = columns(entries);
  check(api().UpdateTensorRTProviderOptions(made, keys.data(), values.data(), keys.size()), "setting up TensorRT");
  check(api().SessionOptionsAppendExecutionProvider_TensorRT_V2(options, made), "asking for TensorRT", VTR_UNAVAILABLE);
}

void append_provider(OrtSessionOptions *options, const EngineOptions &chosen, const Manifest &manifest) {
  if (chosen.backend == "onnx-cpu") return;
  if (!chosen.allow_fallback) {
    check(api().AddSessionConfigEntry(options, "session.disable_cpu_ep_fallback", "1"), "setting options");
  }
  if (chosen.backend == "onnx-cuda") return append_cuda(options, chosen);
  if (chosen.backend == "onnx-tensorrt") return append_tensorrt(options, chosen, manifest);
  const Entries entries = {{"device_id", std::to_string(chosen.device)}};
  const auto [keys, values] = columns(entries);
  check(api().SessionOptionsAppendExecutionProvider(options, "NvTensorRtRtx", keys.data(), values.data(), keys.size()),
        "asking for TensorRT-RTX", VTR_UNAVAILABLE);
}

}  // namespace

Tensor input(const char *name, ElementType type, const void *data, std::vector<int64_t> shape) {
  return {name, type, const_cast<void *>(data), std::move(shape)};
}

struct Engine::State {
  EngineOptions options;
  Logger logger;
  std::shared_ptr<OrtEnv> env;
  Handle<OrtMemoryInfo> memory{nullptr, [](OrtMemoryInfo *it) { api().ReleaseMemoryInfo(it); }};
  std::map<std::string, Handle<OrtSession>> sessions;
};

Engine::Engine(const Bundle &bundle, const EngineOptions &options) : state_(new State) {
  static const char *const kBackends[] = {"onnx-cpu", "onnx-cuda", "onnx-tensorrt", "onnx-trt-rtx"};
  bool known = false;
  for (const char *name : kBackends) known = known || options.backend == name;
  if (!known) {
    throw Error(VTR_INVALID_ARGUMENT, "unknown backend '" + options.backend +
                                          "'; choose from: onnx-cpu, onnx-cuda, onnx-tensorrt, onnx-trt-rtx");
  }
  if (options.threads < 0) throw Error(VTR_INVALID_ARGUMENT, "threads are below 0; give 0 for ONNX Runtime's choice");
  const Manifest &manifest = bundle.manifest();
  if (options.backend == "onnx-cpu" && manifest.graph_precision == "bf16") {
    throw Error(VTR_UNAVAILABLE,
                "ONNX Runtime's CPU provider has no bf16 kernels; run this bundle on a backend that has, or export it "
                "in fp32");
  }
  state_->options = options;
  state_->logger = {options.log, options.log_user};
  state_->env = environment();
  OrtMemoryInfo *memory = nullptr;
  check(api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "starting");
  state_->memory.reset(memory);
  for (const char *name : {"video", "text", "rerank"}) {
    const auto graph = manifest.graphs.find(name);
    if (graph == manifest.graphs.end()) continue;
    OrtSessionOptions *made = nullptr;
    check(api().CreateSessionOptions(&made), "starting");
    const Handle<OrtSessionOptions> session_options(made, [](auto *it) { api().ReleaseSessionOptions(it); });
    check(api().SetUserLoggingFunction(made, forward_log, &state_->logger), "setting options");
    check(api().SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_WARNING), "setting options");
    // Shapes change from call to call: a memory pattern kept per shape would grow without end.
    check(api().DisableMemPattern(made), "setting options");
    check(api().SetIntraOpNumThreads(made, options.threads), "setting options");
    check(api().AddSessionConfigEntry(made, "session.intra_op.allow_spinning", options.spin ? "1" : "0"),
          "setting options");
    append_provider(made, options, manifest);
    const std::string path = bundle.file(graph->second.file);
    OrtSession *session = nullptr;
    check(api().CreateSession(state_->env.get(), path.c_str(), made, &session), "loading " + path);
    state_->sessions.emplace(name, Handle<OrtSession>(session, [](OrtSession *it) { api().ReleaseSession(it); }));
  }
}

Engine::~Engine() = default;

bool Engine::has(const std::string &graph) const { return state_->sessions.count(graph) != 0; }

const std::string &Engine::backend() const { return state_->options.backend; }

size_t Engine::text_rows() const { return state_->options.backend == "onnx-cpu" ? 16 : 64; }

// One run of a graph: what it is given, and what comes back.
class Engine::Call {
 public:
  Call(const State &state, const std::string &graph, const std::vector<Tensor> &inputs) : state_(state), graph_(graph) {
    const auto found = state.sessions.find(graph);
    if (found == state.sessions.end()) {
      throw Error(VTR_UNAVAILABLE, "this bundle has no graph '" + graph + "'; export it with one");
    }
    session_ = found->second.get();
    for (const Tensor &tensor : inputs) {
      input_names_.push_back(tensor.name);
      given_.push_back(wrap(tensor));
    }
  }
  OrtSession *session() const { return session_; }
  // Let an output be written into memory of the caller's.
  void write(const Tensor &tensor) {
    output_names_.push_back(tensor.name);
    wanted_.push_back(wrap(tensor));
  }
  // Let an output be made; it comes from `output` afterwards.
  void make(const char *name) {
    output_names_.push_back(name);
    wanted_.push_back(nullptr);
  }
  OrtValue *output(size_t index) const { return wanted_[index]; }
  void run(Cancel *cancel) {
    check_cancelled(cancel);
    OrtRunOptions *made = nullptr;
    check(api().CreateRunOptions(&made), "starting a run");
    const Handle<OrtRunOptions> options(made, [](OrtRunOptions *it) { api().ReleaseRunOptions(it); });
    const Cancel::Scope scope(cancel, [made] { api().ReleaseStatus(api().RunOptionsSetTerminate(made)); });
    const std::vector<OrtValue *> before = wanted_;
    OrtStatus *status = api().Run(session_, made, input_names_.data(), given_.data(), given_.size(),
                                  output_names_.data(), wanted_.size(), wanted_.data());
    for (size_t i = 0; i < wanted_.size(); ++i) {
      if (before[i] == nullptr && wanted_[i] != nullptr) own(wanted_[i]);
    }
    if (status != nullptr && cancel != nullptr && cancel->requested()) {
      api().ReleaseStatus(status);
      check_cancelled(cancel);
    }
    check(status, "running graph '" + graph_ + "'");
  }

 private:
  OrtValue *wrap(const Tensor &tensor) {
    OrtValue *value = nullptr;
    check(api().CreateTensorWithDataAsOrtValue(state_.memory.get(), tensor.data, bytes_of(tensor), tensor.shape.data(),
                                               tensor.shape.size(), element(tensor.type), &value),
          "taking a tensor");
    return own(value);
  }
  OrtValue *own(OrtValue *value) {
    owned_.emplace_back(value, [](OrtValue *it) { api().ReleaseValue(it); });
    return value;
  }

  const State &state_;
  const std::string &graph_;
  OrtSession *session_ = nullptr;
  std::vector<const char *> input_names_, output_names_;
  std::vector<const OrtValue *> given_;
  std::vector<OrtValue *> wanted_;
  std::vector<Handle<OrtValue>> owned_;
};

void Engine::run(const std::string &graph, const std::vector<Tensor> &inputs, const std::vector<Tensor> &outputs,
                 Cancel *cancel) const {
  Call call(*state_, graph, inputs);
  for (const Tensor &tensor : outputs) call.write(tensor);
  call.run(cancel);
}

std::map<std::string, Output> Engine::run_all(const std::string &graph, const std::vector<Tensor> &inputs) const {
  Call call(*state_, graph, inputs);
  size_t count = 0;
  check(api().SessionGetOutputCount(call.session(), &count), "reading a graph");
  OrtAllocator *allocator = nullptr;
  check(api().GetAllocatorWithDefaultOptions(&allocator), "reading a graph");
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    char *name = nullptr;
    check(api().SessionGetOutputName(call.session(), i, allocator, &name), "reading a graph");
    names.emplace_back(name);
    check(api().AllocatorFree(allocator, name), "reading a graph");
  }
  for (const std::string &name : names) call.make(name.c_str());
  call.run(nullptr);
  std::map<std::string, Output> found;
  for (size_t i = 0; i < count; ++i) found.emplace(names[i], copy_of(call.output(i), names[i]));
  return found;
}

}  // namespace vtr::internal
