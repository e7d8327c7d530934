#include "timeline.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "access.h"
#include "duration.h"

namespace vtr::internal {
namespace {

// Nothing from FFmpeg 7 on, whose frames carry it.
std::optional<std::array<int32_t, 9>> stream_matrix(const AVStream *stream) {
#if LIBAVFORMAT_VERSION_MAJOR < 61
  const uint8_t *data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
  if (data != nullptr) {
    std::array<int32_t, 9> matrix;
    std::memcpy(matrix.data(), data, sizeof matrix);
    return matrix;
  }
#else
  (void)stream;
#endif
  return std::nullopt;
}

bool is_number(AVRational value) { return value.num > 0 && value.den > 0; }

// Gathers what each packet means; what one of them makes uncertain is forgotten at the end.
class AccessTable {
 public:
  explicit AccessTable(const AVCodecContext *codec)
      : inspect_(inspector(codec->codec->name, pixel_format(codec), extradata(codec))) {}

  void add(const AVPacket *packet) {
    const Access found = inspect_ ? inspect_(Bytes{packet->data, static_cast<size_t>(packet->size)}) : Access();
    const bool entry = found.start && (packet->flags & AV_PKT_FLAG_KEY) != 0 && packet->pts != AV_NOPTS_VALUE;
    if (entry) {
      entries_.push_back({droppable_.size(), packet->pts, packet->pos});
      complete_.push_back(found.complete);
    }
    // Parameters may come with the file's head, or else with every entry, and nowhere between.
    parameters_ = parameters_ || found.parameters;
    const bool beside = av_packet_get_side_data(packet, AV_PKT_DATA_NEW_EXTRADATA, nullptr) != nullptr;
    uncertain_ = uncertain_ || (found.parameters && !entry) || found.layered || beside;
    droppable_.push_back(found.droppable);
  }

  void finish(Timeline &timeline) {
    if (uncertain_) return;
    std::vector<Entry> kept;
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (complete_[i] || !parameters_) kept.push_back(entries_[i]);
    }
    std::vector<int64_t> keys;
    for (const Entry &entry : kept) keys.push_back(entry.key);
    std::sort(keys.begin(), keys.end());
    for (const Entry &entry : kept) {
      const auto same = std::equal_range(keys.begin(), keys.end(), entry.key);
      if (same.second - same.first == 1) timeline.entries.push_back(entry);
    }
    timeline.droppable = std::move(droppable_);
  }

 private:
  static std::string pixel_format(const AVCodecContext *codec) {
    const char *name = av_get_pix_fmt_name(codec->pix_fmt);
    return name == nullptr ? "" : name;
  }
  static Bytes extradata(const AVCodecContext *codec) {
    return {codec->extradata, static_cast<size_t>(std::max(codec->extradata_size, 0))};
  }

  Inspect inspect_;
  std::vector<bool> droppable_;
  std::vector<Entry> entries_;
  std::vector<bool> complete_;  // per entry
  bool parameters_ = false;
  bool uncertain_ = false;
};

struct Listed {
  std::vector<int64_t> order;     // of every packet, AV_NOPTS_VALUE where it has no time
  std::vector<int64_t> shown;     // of those that are not to be discarded
  int64_t last = AV_NOPTS_VALUE;  // the greatest of these, and its packet
  LastPacket last_packet;
};

Timeline by_count(size_t count, AVRational rate) {
  if (!is_number(rate)) rate = {25, 1};
  std::vector<int64_t> keys(count);
  for (size_t i = 0; i < count; ++i) keys[i] = static_cast<int64_t>(i);
  Timeline timeline(ClipTimes(std::move(keys), 1, {rate.den, rate.num}));
  timeline.by_count = true;
  char words[100];
  std::snprintf(words, sizeof words, "the file gives no times, its frames are counted at %.6g per second",
                static_cast<double>(rate.num) / rate.den);
  timeline.warnings.push_back(words);
  return timeline;
}

}  // namespace

Timeline list_packets(const Reading &reading) {
  Container container(reading);
  AccessTable table(container.codec());
  Listed listed;
  size_t last_number = 0;
  std::string problem;
  const PacketPtr packet = new_packet();
  while (container.read(packet.get(), &problem)) {
    if (listed.order.size() == kMaxPackets) {
      throw Error(VTR_MEDIA_ERROR, reading.path + " holds more than " + std::to_string(kMaxPackets) +
                                       " frames, the limit; cut it into several files");
    }
    listed.order.push_back(packet->pts);
    table.add(packet.get());
    if ((packet->flags & AV_PKT_FLAG_DISCARD) != 0) continue;
    listed.shown.push_back(packet->pts);
    // Of equal times the later packet counts.
    if (packet->pts != AV_NOPTS_VALUE && packet->pts >= listed.last) {
      listed.last = packet->pts;
      listed.last_packet = {packet->pos, packet->duration, false};
      last_number = listed.order.size();
    }
  }
  if (listed.shown.empty()) {
    throw Error(VTR_MEDIA_ERROR,
                reading.path + " holds no video frame; it is empty or breaks off at once, fetch it again");
  }
  std::vector<std::string> warnings;
  if (!problem.empty()) warnings.push_back("the file cannot be read to its end (" + problem + ")");

  const AVRational unit = container.stream()->time_base;
  const auto timeless = [](const std::vector<int64_t> &keys) {
    return std::find(keys.begin(), keys.end(), AV_NOPTS_VALUE) != keys.end();
  };
  if (!is_number(unit) || timeless(listed.shown)) {
    AVRational rate = av_guess_frame_rate(container.format(), container.stream(), nullptr);
    if (!is_number(rate)) rate = container.stream()->avg_frame_rate;
    Timeline timeline = by_count(listed.shown.size(), rate);
    timeline.warnings.insert(timeline.warnings.begin(), warnings.begin(), warnings.end());
    timeline.matrix = stream_matrix(container.stream());
    return timeline;
  }
  const int64_t first = *std::min_element(listed.shown.begin(), listed.shown.end());
  listed.last_packet.ends_file = last_number == listed.order.size();
  const int64_t duration = stored_duration(reading, container, listed.last_packet);
  Timeline timeline(ClipTimes(std::move(listed.shown), std::max<int64_t>(duration, 0), {unit.num, unit.den}, first));
  timeline.warnings = std::move(warnings);
  timeline.matrix = stream_matrix(container.stream());
  table.finish(timeline);
  if (timeless(listed.order)) timeline.entries.clear();
  timeline.order = std::move(listed.order);
  return timeline;
}

}  // namespace vtr::internal
