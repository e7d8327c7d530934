// What FFmpeg prints by itself.
#pragma once

namespace vtr::tools {

// FFmpeg prints nothing from here on: what the library finds it says in a sentence. Of the whole process, so a tool's
// to decide and not the library's.
void silence_ffmpeg();

}  // namespace vtr::tools
