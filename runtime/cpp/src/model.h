// A bundle opened on an engine: sentences, frames and videos to embeddings.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "tokenizer.h"
#include "video.h"

namespace vtr::internal {

// RGB of the caller's; rows lie `row_stride` bytes apart.
struct FrameView {
  const uint8_t *rgb;
  size_t width, height;
  ptrdiff_t row_stride;
};

class Model {
 public:
  Model(const std::string &folder, const EngineOptions &options);

  const Manifest &manifest() const { return bundle_.manifest(); }
  const Bundle &bundle() const { return bundle_; }
  const Engine &engine() const { return engine_; }
  const Tokenizer &tokenizer() const { return tokenizer_; }
  // The video graph also gives an embedding of each frame.
  bool has_frame_embeddings() const;

  // ids int32 [count, length] -> float [count, dim].
  void embed_ids(const int32_t *ids, size_t count, size_t length, Cancel *cancel, float *out) const;
  void embed_texts(const vtr_string *texts, size_t count, Cancel *cancel, float *out) const;
  // pixels uint8 [count, T, S, S, 3], mask uint8 [count, T] -> float [count, dim]; frames float [count, T, dim] or
  // null.
  void embed_pixels(const uint8_t *pixels, const uint8_t *mask, size_t count, Cancel *cancel, float *out,
                    float *frames) const;
  // Clips of 1 to T frames of any size.
  void embed_clips(const std::vector<std::vector<FrameView>> &clips, Cancel *cancel, float *out, float *frames) const;
  // frames float [count, T, dim] and mask uint8 [count, T] -> scores float [count]; weights float [context_length], or
  // null where the bundle does not weigh words.
  void rerank(std::string_view text, const float *weights, const float *frames, const uint8_t *mask, size_t count,
              Cancel *cancel, float *scores) const;
  Frames read_video(const std::string &path, const std::optional<Window> &window, Cancel *cancel) const;

  size_t pixels_of_clip() const;

 private:
  Bundle bundle_;
  Engine engine_;
  Tokenizer tokenizer_;
};

}  // namespace vtr::internal
