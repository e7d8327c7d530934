// A video file to the frames that the video tower sees.
//
// Two passes over the file: the first lists packet times without decoding, the second decodes what the wanted frames
// need. Times are clip times: seconds from the clip's first frame, whatever number the container gives that frame.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "sampling.h"

namespace vtr::internal {

// A clip as the video tower takes it.
struct Frames {
  std::vector<uint8_t> pixels;         // [T, S, S, 3], zero where masked
  std::vector<uint8_t> mask;           // [T], 1 where there is a frame; never all 0
  std::vector<double> times;           // [T], clip time in seconds, NaN where masked
  size_t warnings = 0;                 // frames that could not be decoded and were replaced
  std::vector<std::string> sentences;  // one per thing that was not right, replaced frames among them
};

struct RgbImage {
  size_t width = 0;
  size_t height = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

// The same frames upright and full-size, before the resize; only those that are there.
struct RgbFrames {
  std::vector<RgbImage> images;
  std::vector<double> times;
  size_t warnings = 0;
  std::vector<std::string> sentences;
};

// Read the T frames of a clip, or of a part of it. `cancelled` may be null. With more decoder threads than one, a
// damaged file may give other pictures. Error(VTR_INVALID_ARGUMENT) for a bad window, Error(VTR_MEDIA_ERROR) where no
// frame can be had (the sentence names the path), Error(VTR_CANCELLED).
Frames read_frames(const std::string &path, const FrameSpec &spec, const std::optional<Window> &window,
                   const std::atomic<bool> *cancelled, int threads = 1);
RgbFrames read_rgb(const std::string &path, const FrameSpec &spec, const std::optional<Window> &window,
                   const std::atomic<bool> *cancelled, int threads = 1);

// The clip times of the video packets, exact, sorted and distinct: what ClipTimes chooses from.
std::vector<Rational> packet_times(const std::string &path, const std::atomic<bool> *cancelled);

}  // namespace vtr::internal
