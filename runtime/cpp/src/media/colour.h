// From a decoded frame to upright RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ffmpeg.h"
#include "status.h"

namespace vtr::internal {

// uint8 [height, width, 3] of another's, whose rows lie `stride` bytes apart.
struct RgbView {
  const uint8_t *data = nullptr;
  size_t width = 0;
  size_t height = 0;
  size_t stride = 0;
};

// Converts the frames of one clip: the scaler is set up once for frames of one kind.
class RgbConverter {
 public:
  // A decoded frame as stored (not rotated), alpha over black; it lives until the next one. Matrix and range are the
  // frame's own; where it names none: BT.709 from 720 rows on, BT.601 below; limited range. Error(VTR_MEDIA_ERROR) for
  // a size or a pixel format that cannot be converted.
  RgbView convert(AVFrame *frame);

 private:
  struct Kind {
    int width = 0, height = 0, format = -1, matrix = 0, range = 0;
    bool operator==(const Kind &other) const {
      return width == other.width && height == other.height && format == other.format && matrix == other.matrix &&
             range == other.range;
    }
  };
  int build(const Kind &kind);
  int run(AVFrame *frame);

  Kind kind_;
  GraphPtr graph_;
  AVFilterContext *source_ = nullptr;
  AVFilterContext *sink_ = nullptr;
  FramePtr done_;
  std::vector<uint8_t> over_black_;
};

// Apply a display matrix (nine integers, FFmpeg's order), rounded to a quarter turn with or without a mirror. A picture
// that is turned lies in `buffer`. `exact`: whether the matrix was just such a turn; one that is no turn at all
// leaves the picture alone.
RgbView turn_upright(const RgbView &rgb, const int32_t *matrix, std::vector<uint8_t> &buffer, bool &exact);

}  // namespace vtr::internal
