// The first pass over a file: its packets, none of them decoded.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "container.h"
#include "sampling.h"

namespace vtr::internal {

// 38 hours of 60 frames a second.
constexpr size_t kMaxPackets = size_t{1} << 23;

// A place where decoding may begin: the packet's number in the file, its time and where it lies (-1: not known).
struct Entry {
  size_t number = 0;
  int64_t key = 0;
  int64_t position = -1;
};

// The frames that a file promises. A key is a presentation timestamp in the stream's own unit, or, in a file without
// them, a number in order of output.
struct Timeline {
  explicit Timeline(ClipTimes found) : times(std::move(found)) {}

  ClipTimes times;  // the keys, and the clip times that belong to them
  bool by_count = false;
  std::vector<std::string> warnings;
  // How the container asks for its pictures to be turned, where FFmpeg does not hand that on with every frame.
  std::optional<std::array<int32_t, 9>> matrix;
  // The key of each packet as they lie in the file, the packets to begin at, and for each packet whether no other
  // picture needs it; without entries a file is decoded from its beginning.
  std::vector<int64_t> order;
  std::vector<Entry> entries;
  std::vector<bool> droppable;
};

// Error(VTR_MEDIA_ERROR) for a file without video packets, Error(VTR_CANCELLED).
Timeline list_packets(const Reading &reading);

}  // namespace vtr::internal
