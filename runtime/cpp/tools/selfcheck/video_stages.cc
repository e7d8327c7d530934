#include "video_stages.h"

#include "files.h"
#include "video.h"

namespace vtr::tools {

Array packet_times(const std::string &path) {
  std::vector<int64_t> found;
  for (const internal::Rational &time : internal::packet_times(path, nullptr)) {
    found.push_back(time.num);
    found.push_back(time.den);
  }
  return Array::of("I64", {found.size() / 2, 2}, found);
}

Array rgb_digests(const std::string &path, const internal::FrameSpec &spec) {
  std::vector<uint8_t> found;
  for (const internal::RgbImage &image : internal::read_rgb(path, spec, std::nullopt, nullptr).images) {
    found.resize(found.size() + 32);
    internal::sha256(image.pixels.data(), image.pixels.size(), found.data() + found.size() - 32);
  }
  return Array::of("U8", {found.size() / 32, 32}, found);
}

Array pixel_digests(const std::vector<uint8_t> &pixels, const internal::FrameSpec &spec) {
  const size_t bytes = spec.size * spec.size * 3;
  std::vector<uint8_t> found(spec.count * 32);
  for (size_t t = 0; t < spec.count; ++t) internal::sha256(pixels.data() + t * bytes, bytes, found.data() + t * 32);
  return Array::of("U8", {spec.count, 32}, found);
}

}  // namespace vtr::tools
