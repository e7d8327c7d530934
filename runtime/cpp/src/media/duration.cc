#include "duration.h"

#include <cstring>

namespace vtr::internal {
namespace {

// The duration in a file without edits, whose index has the pictures as they are stored; 0 where it cannot be told.
int64_t find_duration(Demuxer &stored, int stream_index, const LastPacket &packet) {
  if (static_cast<unsigned>(stream_index) >= stored.format()->nb_streams) return 0;
  AVStream *stream = stored.format()->streams[stream_index];
  const int count = avformat_index_get_entries_count(stream);
  for (int i = count - 1; i >= 0; --i) {
    const AVIndexEntry *entry = avformat_index_get_entry(stream, i);
    if (entry == nullptr || entry->pos != packet.position) continue;
    const int64_t begin = entry->timestamp;
    if (i + 1 < count) return avformat_index_get_entry(stream, i + 1)->timestamp - begin;
    if (packet.ends_file && count == stream->nb_frames) {
      // The durations of all, without those of the others; the first one may begin before 0.
      return stream->duration - (begin - avformat_index_get_entry(stream, 0)->timestamp);
    }
  }
  // Fragments, whose index is read with them.
  const PacketPtr next = new_packet();
  int64_t begin = AV_NOPTS_VALUE;
  while (stored.read(stream_index, next.get())) {
    if (begin != AV_NOPTS_VALUE) return next->dts - begin;
    if (next->pos == packet.position) begin = next->dts;
  }
  return begin == AV_NOPTS_VALUE || stream->duration == AV_NOPTS_VALUE ? 0 : stream->duration - begin;
}

}  // namespace

int64_t stored_duration(const Reading &reading, const Container &container, const LastPacket &packet) {
#if LIBAVFORMAT_VERSION_MAJOR < 62
  if (packet.position >= 0 && std::strstr(container.format()->iformat->name, "mp4") != nullptr) {
    Demuxer stored(reading, true);
    const int64_t duration = find_duration(stored, container.stream()->index, packet);
    if (duration > 0) return duration;
  }
#else
  (void)reading;
  (void)container;
#endif
  return packet.duration;
}

}  // namespace vtr::internal
