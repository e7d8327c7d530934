#include "host.h"

#include <algorithm>

#include "video_stages.h"

namespace vtr::tools {
namespace {

using internal::Error;

// Cosines [texts, videos] in double, so that the product adds no error of its own.
Array cosines(const Array &texts, const Array &videos) {
  const size_t rows = texts.shape()[0], columns = videos.shape()[0], dim = texts.shape()[1];
  std::vector<double> found(rows * columns);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (size_t k = 0; k < dim; ++k) sum += texts[i * dim + k] * videos[j * dim + k];
      found[i * columns + j] = sum;
    }
  }
  return Array::of("F64", {rows, columns}, found);
}

Arrays only(const Arrays &arrays, const std::vector<std::string> &names) {
  Arrays found;
  for (const std::string &name : names) {
    const auto entry = arrays.find(name);
    if (entry == arrays.end()) throw Error(VTR_BUNDLE_ERROR, "the case gives no tensor " + name);
    found.insert(*entry);
  }
  return found;
}

}  // namespace

std::string Host::note() const {
  if (model_.engine().backend() == "onnx-cpu" && precision() == "fp16") {
    return "ONNX Runtime's CPU provider emulates fp16 in fp32, where nothing overflows: no proof of fp16";
  }
  return "";
}

Arrays Host::run(const std::string &graph, const Arrays &feed) const {
  std::vector<internal::Tensor> inputs;
  for (const auto &[name, array] : feed) inputs.push_back(array.tensor(name));
  Arrays found;
  for (const auto &[name, output] : model_.engine().run_all(graph, inputs)) found.emplace(name, Array::of(output));
  return found;
}

Answer Host::answer(const Question &question) const {
  if (!question.media.empty()) return answer_media(question);
  if (question.stage == "ids") {
    const size_t length = model_.manifest().text.context_length;
    std::vector<int32_t> ids(question.texts.size() * length);
    std::vector<vtr_string> texts;
    for (const std::string &text : question.texts) texts.push_back({text.data(), text.size()});
    model_.tokenizer().encode(texts.data(), texts.size(), ids.data());
    return {{{"ids", Array::of("I32", {question.texts.size(), length}, ids)}}, ""};
  }
  return answer_in_graph(question.stage, question.tensors);
}

Answer Host::answer_media(const Question &question) const {
  const internal::FrameSpec &spec = model_.manifest().frames;
  if (question.stage == "container") return {{{"times", packet_times(question.media)}}, ""};
  if (question.stage == "rgb") return {{{"sha256", rgb_digests(question.media, spec)}}, ""};
  const internal::Frames frames = internal::read_frames(question.media, spec, std::nullopt, nullptr);
  if (question.stage == "indices") {
    return {{{"times", Array::of("F64", {spec.count}, frames.times)},
             {"mask", Array::of("BOOL", {spec.count}, frames.mask)}},
            ""};
  }
  if (question.stage == "pixels") return {{{"sha256", pixel_digests(frames.pixels, spec)}}, ""};
  return answer_in_graph(question.stage,
                         {{"frames", Array::of("U8", {1, spec.count, spec.size, spec.size, 3}, frames.pixels)},
                          {"frame_mask", Array::of("BOOL", {1, spec.count}, frames.mask)}});
}

Answer Host::answer_in_graph(const std::string &stage, const Arrays &feed) const {
  if (!note().empty()) return {{}, note()};
  if (stage == "ranking") {
    const Arrays texts = run("text", only(feed, {"input_ids"}));
    const Arrays videos = run("video", only(feed, {"frames", "frame_mask"}));
    return {{{"scores", cosines(texts.at("embedding"), videos.at("embedding"))}}, ""};
  }
  if (stage == "rerank") return {only(run("rerank", feed), {"scores"}), ""};
  const Arrays outputs = run(feed.count("frames") ? "video" : "text", feed);
  const std::string name = stage == "aligned" || stage == "video_embedding" ? "embedding" : stage;
  if (!outputs.count(name)) {
    return {{}, "the graph has no output " + name + "; export with --debug-outputs to see it"};
  }
  return {only(outputs, {name}), ""};
}

}  // namespace vtr::tools
