// How long a packet is shown, where what FFmpeg says of it depends on its version.
#pragma once

#include "container.h"

namespace vtr::internal {

struct LastPacket {
  int64_t position = -1;   // in the file
  int64_t duration = 0;    // as the demuxer gave it, in the stream's unit
  bool ends_file = false;  // no packet of the stream lies behind it
};

// Newer versions read the durations that QuickTime and MP4 store with each picture; older ones (5.1) take them from the
// frame rate, and sampling would differ. Gives the stored one for every version. 0 or less: not known.
int64_t stored_duration(const Reading &reading, const Container &container, const LastPacket &packet);

}  // namespace vtr::internal
