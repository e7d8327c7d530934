// Any frame of any size and stride, resized by the C interface: pixels, or a status.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "vtr/vtr.h"

namespace {

// Larger frames cost time and find nothing new.
constexpr size_t kMostBytes = 1 << 18;

struct Header {
  uint16_t width, height, size, padding;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Header header;
  if (size < sizeof(header)) return 0;
  std::memcpy(&header, data, sizeof(header));
  data += sizeof(header);
  size -= sizeof(header);
  const size_t stride = size_t{3} * header.width + header.padding;
  if (stride * header.height > kMostBytes) return 0;
  // Exactly the bytes that the frame says it has, the last row without padding: one byte more is found out.
  const size_t bytes = header.height == 0 ? 0 : stride * (header.height - 1) + size_t{3} * header.width;
  std::vector<uint8_t> pixels(bytes);
  for (size_t i = 0; i < bytes; ++i) pixels[i] = size == 0 ? 7 : data[i % size];
  const size_t side = header.size % 64;
  std::vector<uint8_t> out(side * side * 3);
  uint8_t nothing = 0;
  const vtr_frame frame = {bytes == 0 ? &nothing : pixels.data(), header.width, header.height,
                           static_cast<ptrdiff_t>(stride)};
  vtr_status *status = vtr_resize_frame(&frame, side, side == 0 ? &nothing : out.data());
  const vtr_code code = vtr_status_code(status);
  if (status != nullptr && std::strlen(vtr_status_message(status)) < 10) std::abort();
  vtr_status_free(status);
  if (code != VTR_OK && code != VTR_INVALID_ARGUMENT && code != VTR_MEDIA_ERROR) std::abort();
  return 0;
}
