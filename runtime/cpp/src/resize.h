// RGB of any size to the S x S square that the video tower sees: the same bytes as Pillow's antialiased bicubic resize
// of the short side to S, cut in the middle.
#pragma once

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace vtr::internal {

// `row_stride` is in bytes, 0: 3 * width. out: uint8 [size, size, 3]. Error(VTR_INVALID_ARGUMENT) for what is no frame,
// Error(VTR_MEDIA_ERROR) for one so long and narrow that the whole of it resized would exceed 2**26 pixels.
void resize_crop(const uint8_t *rgb, size_t width, size_t height, ptrdiff_t row_stride, size_t size, uint8_t *out);

}  // namespace vtr::internal
