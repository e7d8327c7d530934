// The stages before the model, as golden vectors hold them.
#pragma once

#include <string>
#include <vector>

#include "array.h"
#include "bundle.h"

namespace vtr::tools {

// Every video packet's time as numerator and denominator, I64 [N, 2], in the order of the file.
Array packet_times(const std::string &path);
// sha256 of each sampled frame in its own size, U8 [n, 32].
Array rgb_digests(const std::string &path, const internal::FrameSpec &spec);
// sha256 of each of the T frames of S x S, U8 [T, 32].
Array pixel_digests(const std::vector<uint8_t> &pixels, const internal::FrameSpec &spec);

}  // namespace vtr::tools
