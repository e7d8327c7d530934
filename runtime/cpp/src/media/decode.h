// The second pass: the wanted pictures, decoding as little as gives them exactly.
//
// Selective decoding begins at the last entry before each wanted picture and passes over pictures that no other needs;
// it gives up at the first sign of damage. Decoding from the beginning always works, and is the reference.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "container.h"
#include "timeline.h"

namespace vtr::internal {

// A wanted picture of which `found` was had: its own key, an earlier or a later one.
struct Picture {
  std::vector<uint8_t> pixels;  // [height, width, 3]
  size_t width = 0;
  size_t height = 0;
  int64_t found = 0;
  bool damaged = false;
  bool turned_well = true;
};

// From a decoded frame, all but `found`.
using Finish = std::function<Picture(AVFrame *)>;

// The pictures of the sorted distinct keys `wanted`, in their order; none where no frame at all can be decoded.
std::vector<Picture> decode(const Reading &reading, const Timeline &timeline, const std::vector<int64_t> &wanted,
                            const Finish &finish);

}  // namespace vtr::internal
