// In place of video.cc where the library is built without FFmpeg.
#include "video.h"

namespace vtr::internal {
namespace {

[[noreturn]] void refuse(const std::string &path) {
  throw Error(VTR_UNAVAILABLE, path + " cannot be read: this library is built without FFmpeg (VTR_WITH_VIDEO=OFF); " +
                                   "give frames, or build it with FFmpeg");
}

}  // namespace

Frames read_frames(const std::string &path, const FrameSpec &, const std::optional<Window> &, const std::atomic<bool> *,
                   int) {
  refuse(path);
}

RgbFrames read_rgb(const std::string &path, const FrameSpec &, const std::optional<Window> &, const std::atomic<bool> *,
                   int) {
  refuse(path);
}

std::vector<Rational> packet_times(const std::string &path, const std::atomic<bool> *) { refuse(path); }

}  // namespace vtr::internal
