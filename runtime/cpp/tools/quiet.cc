#include "quiet.h"

#ifdef VTR_WITH_VIDEO
extern "C" {
#include <libavutil/log.h>
}
#endif

namespace vtr::tools {

void silence_ffmpeg() {
#ifdef VTR_WITH_VIDEO
  av_log_set_level(AV_LOG_QUIET);
#endif
}

}  // namespace vtr::tools
