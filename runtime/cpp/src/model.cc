#include "model.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "resize.h"

namespace vtr::internal {
namespace {

// Clips of one run of the graph; more gain nothing on a CPU.
constexpr size_t kVideoBatch = 8;
constexpr size_t kCandidatesAtOnce = 32;

int64_t axis(size_t size) { return static_cast<int64_t>(size); }

[[noreturn]] void misuse(const std::string &what) { throw Error(VTR_INVALID_ARGUMENT, what); }

}  // namespace

Model::Model(const std::string &folder, const EngineOptions &options)
    : bundle_(folder), engine_(bundle_, options), tokenizer_(bundle_.file("tokenizer.json"), bundle_.manifest().text) {}

bool Model::has_frame_embeddings() const {
  const auto &outputs = manifest().graphs.at("video").outputs;
  return std::find(outputs.begin(), outputs.end(), "frame_embeddings") != outputs.end();
}

size_t Model::pixels_of_clip() const {
  const FrameSpec &spec = manifest().frames;
  return spec.count * spec.size * spec.size * 3;
}

void Model::embed_texts(const vtr_string *texts, size_t count, Cancel *cancel, float *out) const {
  const size_t length = manifest().text.context_length;
  std::vector<int32_t> ids(count * length);
  tokenizer_.encode(texts, count, ids.data());
  embed_ids(ids.data(), count, length, cancel, out);
}

void Model::embed_ids(const int32_t *ids, size_t count, size_t length, Cancel *cancel, float *out) const {
  const TextSpec &spec = manifest().text;
  validate_ids(ids, count, length, spec);
  std::vector<size_t> used(count), order(count);
  for (size_t row = 0; row < count; ++row) {
    const int32_t *begin = ids + row * length;
    used[row] = static_cast<size_t>(std::find(begin, begin + length, spec.end_id) - begin) + 1;
  }
  // Short sentences together: a run costs what its longest row costs, and padding changes no embedding.
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return used[a] < used[b]; });
  const size_t dim = manifest().dim;
  std::vector<int32_t> some;
  std::vector<float> found;
  for (size_t start = 0; start < count; start += engine_.text_rows()) {
    const size_t rows = std::min(engine_.text_rows(), count - start);
    const size_t wide = std::max<size_t>(2, used[order[start + rows - 1]]);
    some.assign(rows * wide, 0);
    found.resize(rows * dim);
    for (size_t row = 0; row < rows; ++row) {
      const size_t from = order[start + row];
      std::copy_n(ids + from * length, used[from], some.begin() + static_cast<ptrdiff_t>(row * wide));
    }
    engine_.run("text", {input("input_ids", ElementType::kInt32, some.data(), {axis(rows), axis(wide)})},
                {{"embedding", ElementType::kFloat, found.data(), {axis(rows), axis(dim)}}}, cancel);
    for (size_t row = 0; row < rows; ++row) {
      std::copy_n(found.begin() + static_cast<ptrdiff_t>(row * dim), dim, out + order[start + row] * dim);
    }
  }
}

void Model::embed_pixels(const uint8_t *pixels, const uint8_t *mask, size_t count, Cancel *cancel, float *out,
                         float *frames) const {
  const size_t frame_count = manifest().frames.count, size = manifest().frames.size, dim = manifest().dim;
  if (frames != nullptr && !has_frame_embeddings()) {
    throw Error(VTR_UNAVAILABLE, "this bundle's video graph gives no embeddings of frames; export it with --rerank");
  }
  for (size_t clip = 0; clip < count; ++clip) {
    bool any = false;
    for (size_t t = 0; t < frame_count; ++t) {
      const uint8_t value = mask[clip * frame_count + t];
      if (value > 1) misuse("the mask holds " + std::to_string(value) + "; give 0 and 1");
      any = any || value == 1;
    }
    if (!any) misuse("clip " + std::to_string(clip) + " has no frame that is not masked; leave such clips out");
  }
  for (size_t start = 0; start < count; start += kVideoBatch) {
    const size_t rows = std::min(kVideoBatch, count - start);
    const std::vector<int64_t> shape = {axis(rows), axis(frame_count), axis(size), axis(size), 3};
    std::vector<Tensor> outputs = {
        {"embedding", ElementType::kFloat, out + start * dim, {axis(rows), axis(dim)}},
    };
    if (frames != nullptr) {
      outputs.push_back({"frame_embeddings",
                         ElementType::kFloat,
                         frames + start * frame_count * dim,
                         {axis(rows), axis(frame_count), axis(dim)}});
    }
    engine_.run("video",
                {input("frames", ElementType::kUint8, pixels + start * pixels_of_clip(), shape),
                 input("frame_mask", ElementType::kBool, mask + start * frame_count, {axis(rows), axis(frame_count)})},
                outputs, cancel);
  }
}

void Model::embed_clips(const std::vector<std::vector<FrameView>> &clips, Cancel *cancel, float *out,
                        float *frames) const {
  const size_t frame_count = manifest().frames.count, size = manifest().frames.size, dim = manifest().dim;
  const size_t frame_bytes = size * size * 3;
  std::vector<uint8_t> pixels, mask;
  for (size_t start = 0; start < clips.size(); start += kVideoBatch) {
    const size_t rows = std::min(kVideoBatch, clips.size() - start);
    mask.assign(rows * frame_count, 0);
    // Frames of the model's size that lie one behind the other are handed on as they stand.
    const uint8_t *in_place = clips[start].empty() ? nullptr : clips[start][0].rgb;
    for (size_t row = 0; row < rows; ++row) {
      const auto &clip = clips[start + row];
      if (clip.empty() || clip.size() > frame_count) {
        misuse("clip " + std::to_string(start + row) + " has " + std::to_string(clip.size()) +
               " frames and the bundle takes 1 to " + std::to_string(frame_count) + "; sample them first");
      }
      for (size_t t = 0; t < frame_count; ++t) {
        const size_t place = row * frame_count + t;
        if (t < clip.size()) mask[place] = 1;
        const bool stands = t < clip.size() && clip[t].width == size && clip[t].height == size &&
                            clip[t].row_stride == static_cast<ptrdiff_t>(size * 3) && in_place != nullptr &&
                            clip[t].rgb == in_place + place * frame_bytes;
        if (!stands) in_place = nullptr;
      }
    }
    if (in_place == nullptr) {
      pixels.assign(rows * frame_count * frame_bytes, 0);
      for (size_t row = 0; row < rows; ++row) {
        const auto &clip = clips[start + row];
        for (size_t t = 0; t < clip.size(); ++t) {
          check_cancelled(cancel);
          resize_crop(clip[t].rgb, clip[t].width, clip[t].height, clip[t].row_stride, size,
                      pixels.data() + (row * frame_count + t) * frame_bytes);
        }
      }
    }
    embed_pixels(in_place != nullptr ? in_place : pixels.data(), mask.data(), rows, cancel, out + start * dim,
                 frames == nullptr ? nullptr : frames + start * frame_count * dim);
  }
}

void Model::rerank(std::string_view text, const float *weights, const float *frames, const uint8_t *mask, size_t count,
                   Cancel *cancel, float *scores) const {
  const auto graph = manifest().graphs.find("rerank");
  if (graph == manifest().graphs.end() || !manifest().rerank) {
    throw Error(VTR_UNAVAILABLE, "this bundle has no second stage; export it with --rerank");
  }
  if (manifest().rerank->textual_attention && weights == nullptr) {
    misuse("this bundle's second stage weighs words; give word_weights, 2 for nouns, verbs and adjectives and else 1");
  }
  const size_t frame_count = manifest().frames.count, dim = manifest().dim, length = manifest().text.context_length;
  for (size_t i = 0; i < count * frame_count; ++i) {
    if (mask[i] > 1) misuse("the mask holds " + std::to_string(mask[i]) + "; give 0 and 1");
  }
  std::vector<int32_t> ids(length);
  tokenizer_.encode(text, ids.data());
  const auto end = std::find(ids.begin(), ids.end(), manifest().text.end_id);
  const size_t used = std::max<size_t>(2, static_cast<size_t>(end - ids.begin()) + 1);
  const auto &needed = graph->second.inputs;
  const bool with_words = std::find(needed.begin(), needed.end(), "word_embeddings") != needed.end();
  std::vector<float> embedding(dim), words(used * dim);
  std::vector<uint8_t> word_mask(used);
  std::vector<Tensor> outputs = {{"embedding", ElementType::kFloat, embedding.data(), {1, axis(dim)}}};
  if (with_words) {
    outputs.push_back({"word_embeddings", ElementType::kFloat, words.data(), {1, axis(used), axis(dim)}});
    outputs.push_back({"word_mask", ElementType::kBool, word_mask.data(), {1, axis(used)}});
  }
  engine_.run("text", {input("input_ids", ElementType::kInt32, ids.data(), {1, axis(used)})}, outputs, cancel);
  for (size_t start = 0; start < count; start += kCandidatesAtOnce) {
    const size_t rows = std::min(kCandidatesAtOnce, count - start);
    std::vector<Tensor> inputs;
    for (const std::string &name : needed) {
      if (name == "embedding") {
        inputs.push_back(input("embedding", ElementType::kFloat, embedding.data(), {axis(dim)}));
      } else if (name == "word_embeddings") {
        inputs.push_back(input("word_embeddings", ElementType::kFloat, words.data(), {axis(used), axis(dim)}));
      } else if (name == "word_mask") {
        inputs.push_back(input("word_mask", ElementType::kBool, word_mask.data(), {axis(used)}));
      } else if (name == "word_weights") {
        inputs.push_back(input("word_weights", ElementType::kFloat, weights, {axis(used)}));
      } else if (name == "frame_embeddings") {
        inputs.push_back(input("frame_embeddings", ElementType::kFloat, frames + start * frame_count * dim,
                               {axis(rows), axis(frame_count), axis(dim)}));
      } else if (name == "frame_mask") {
        inputs.push_back(
            input("frame_mask", ElementType::kBool, mask + start * frame_count, {axis(rows), axis(frame_count)}));
      } else {
        throw Error(VTR_UNAVAILABLE, "the graph rerank takes '" + name + "', which this library does not know");
      }
    }
    engine_.run("rerank", inputs, {{"scores", ElementType::kFloat, scores + start, {axis(rows)}}}, cancel);
  }
}

Frames Model::read_video(const std::string &path, const std::optional<Window> &window, Cancel *cancel) const {
  return read_frames(path, manifest().frames, window, cancel == nullptr ? nullptr : cancel->flag());
}

}  // namespace vtr::internal
