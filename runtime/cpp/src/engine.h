// The bundle's graphs in ONNX Runtime, by its C API.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "cancel.h"

namespace vtr::internal {

struct EngineOptions {
  std::string backend = "onnx-cpu";
  int threads = 1;  // 0: ONNX Runtime's choice
  int device = 0;
  bool allow_fallback = false;
  bool spin = false;
  vtr_log log = nullptr;
  void *log_user = nullptr;
};

enum class ElementType { kUint8, kBool, kInt32, kFloat };

// A tensor in the caller's memory; ONNX Runtime reads and writes it there.
struct Tensor {
  const char *name;
  ElementType type;
  void *data;
  std::vector<int64_t> shape;
};

// A read-only input; ONNX Runtime's interface takes no const, and does not write to inputs.
Tensor input(const char *name, ElementType type, const void *data, std::vector<int64_t> shape);

// An output of a graph, whatever its shape.
struct Output {
  ElementType type;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

class Engine {
 public:
  // Opens the graphs video, text and, where the bundle has one, rerank. Error(VTR_UNAVAILABLE) for a provider that this
  // ONNX Runtime or machine has not, Error(VTR_BACKEND_ERROR) for a graph that it cannot load.
  Engine(const Bundle &bundle, const EngineOptions &options);
  ~Engine();

  // Safe from many threads at once.
  void run(const std::string &graph, const std::vector<Tensor> &inputs, const std::vector<Tensor> &outputs,
           Cancel *cancel) const;
  // Every output that the graph has, debug outputs too, in memory of its own; bool as bytes of 0 and 1.
  std::map<std::string, Output> run_all(const std::string &graph, const std::vector<Tensor> &inputs) const;
  bool has(const std::string &graph) const;
  const std::string &backend() const;
  // How many sentences at a time cost least (benchmarks/throughput).
  size_t text_rows() const;

 private:
  struct State;
  class Call;
  std::unique_ptr<State> state_;
};

}  // namespace vtr::internal
