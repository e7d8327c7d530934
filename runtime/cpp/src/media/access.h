// What a packet means to the others, told from its bytes: may decoding begin at it, does any other picture need it.
//
// Read from the bitstream itself, since containers mark more as key pictures than may be begun with. What is not known
// here for certain is decoded from the beginning of the file, as any other codec is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace vtr::internal {

struct Access {
  bool start = false;       // from this picture's time on, all come out as if decoded from the file's beginning
  bool droppable = false;   // no other picture is predicted from this one
  bool parameters = false;  // it sets what later packets are read by
  bool complete = false;    // all of it
  bool layered = false;     // the stream has layers, in which `droppable` does not hold
};

struct Bytes {
  const uint8_t *data = nullptr;
  size_t size = 0;
};

using Inspect = std::function<Access(Bytes)>;

// How to look at the packets of a codec, by FFmpeg's names for it and its pixel format ("" where it is not known);
// empty for a codec that is decoded whole.
Inspect inspector(const std::string &codec, const std::string &pixel_format, Bytes extradata);

}  // namespace vtr::internal
