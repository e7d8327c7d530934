#include "decode.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <unordered_set>
#include <utility>

namespace vtr::internal {
namespace {

// Selective decoding has to save at least this share of the packets to be worth a second try when it fails.
constexpr double kLeastSaving = 0.05;
// A gap of so many bytes is jumped over; smaller ones are read.
constexpr int64_t kSeekBytes = int64_t{1} << 20;

// Demuxers that land where they are told, and give the same packets as when they read through.
bool is_seekable(const AVFormatContext *format) {
  const std::string names = std::string(",") + format->iformat->name + ",";
  for (const char *name : {",mov,", ",mp4,", ",matroska,", ",webm,"}) {
    if (names.find(name) != std::string::npos) return true;
  }
  return false;
}

// For each wanted key, the frame with that key; if none comes, the nearest before it; else the first of all. Of equal
// keys the first counts.
class Picker {
 public:
  Picker(const std::vector<int64_t> &wanted, const Finish &finish)
      : wanted_(wanted), finish_(finish), exact_(wanted.size()), before_(wanted.size()) {}

  // A frame in any order; true once all wanted ones are there.
  bool add(int64_t key, FramePtr frame) {
    const auto slot = static_cast<size_t>(std::lower_bound(wanted_.begin(), wanted_.end(), key) - wanted_.begin());
    const bool is_first = !any_ || key < first_key_;
    any_ = true;
    if (is_first) first_key_ = key;
    if (slot < wanted_.size() && !exact_[slot]) {
      if (key == wanted_[slot]) {
        exact_[slot] = finished(key, frame.get());
        before_[slot] = {};
        if (++exacts_ == wanted_.size()) return true;
      } else if (!before_[slot].frame || before_[slot].key < key) {
        before_[slot] = {key, reference(frame.get())};
      }
    }
    if (is_first) first_ = std::move(frame);
    return false;
  }

  std::vector<Picture> result() {
    std::vector<Picture> found;
    if (!any_) return found;
    for (size_t slot = 0; slot < wanted_.size(); ++slot) {
      if (exact_[slot]) {
        found.push_back(std::move(*exact_[slot]));
      } else if (before_[slot].frame) {
        found.push_back(finished(before_[slot].key, before_[slot].frame.get()));
      } else if (found.empty()) {
        found.push_back(finished(first_key_, first_.get()));
      } else {
        found.push_back(Picture(found.back()));
      }
    }
    return found;
  }

 private:
  struct Held {
    int64_t key = 0;
    FramePtr frame;
  };

  Picture finished(int64_t key, AVFrame *frame) const {
    Picture picture = finish_(frame);
    picture.found = key;
    return picture;
  }
  static FramePtr reference(const AVFrame *frame) {
    FramePtr copy(av_frame_clone(frame));
    if (!copy) throw std::bad_alloc();
    return copy;
  }

  const std::vector<int64_t> &wanted_;
  const Finish &finish_;
  std::vector<std::optional<Picture>> exact_;
  std::vector<Held> before_;  // per wanted key: the last frame between it and the wanted key before it
  size_t exacts_ = 0;
  bool any_ = false;
  int64_t first_key_ = 0;
  FramePtr first_;
};

// From the beginning, in the decoder's order. A bad packet is passed over.
std::vector<Picture> decode_all(const Reading &reading, const Timeline &timeline, const std::vector<int64_t> &wanted,
                                const Finish &finish) {
  Container container(reading);
  Picker picker(wanted, finish);
  const PacketPtr packet = new_packet();
  std::vector<FramePtr> frames;
  size_t number = 0;
  for (bool more = true; more;) {
    more = container.read(packet.get());
    if (!container.decode(more ? packet.get() : nullptr, frames)) continue;
    for (FramePtr &frame : frames) {
      const size_t place = number++;
      int64_t key = frame->pts;
      if (timeline.by_count) {
        key = static_cast<int64_t>(place);
      } else if (key == AV_NOPTS_VALUE) {
        // A frame without a time takes the next one that was promised.
        if (place >= timeline.times.size()) continue;
        key = timeline.times.tick(place);
      }
      if (picker.add(key, std::move(frame))) return picker.result();
    }
  }
  return picker.result();
}

// Packets `entry.number` to `last` of a file, decoded in one go.
struct Stretch {
  Entry entry;
  size_t last = 0;
};

struct Selection {
  std::vector<Stretch> stretches;
  std::vector<size_t> passed_over;  // numbers of the packets in between that are left out, sorted
};

// What to decode for the wanted keys; nothing where that saves nothing, or is not known to be safe. A picture is safe
// behind an entry of an earlier or the same time: what lies behind the entry in the file, but is shown before it, may
// be predicted from what lies before the entry.
std::optional<Selection> select(const Timeline &timeline, const std::vector<int64_t> &wanted) {
  if (timeline.entries.empty() || timeline.by_count) return std::nullopt;
  std::vector<std::pair<int64_t, size_t>> places(timeline.order.size());
  for (size_t number = 0; number < places.size(); ++number) places[number] = {timeline.order[number], number};
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i) {
    // Two packets of one time: which of them is meant, only the whole decides.
    if (places[i - 1].first == places[i].first) return std::nullopt;
  }
  std::vector<std::pair<size_t, int64_t>> numbered;
  std::unordered_set<size_t> kept;
  for (const int64_t key : wanted) {
    const auto place = std::lower_bound(places.begin(), places.end(), std::make_pair(key, size_t{0}));
    const size_t number = place->second;
    numbered.emplace_back(number, key);
    // Neighbours of a wanted packet stay: two fields of one picture may come in two packets.
    kept.insert({number - 1, number, number + 1});
  }
  std::sort(numbered.begin(), numbered.end());

  Selection selection;
  for (const auto &[number, key] : numbered) {
    auto entry = std::upper_bound(timeline.entries.begin(), timeline.entries.end(), number,
                                  [](size_t value, const Entry &other) { return value < other.number; });
    do {
      if (entry == timeline.entries.begin()) return std::nullopt;
      --entry;
    } while (entry->key > key);
    Stretch stretch{*entry, std::min(number + 1, timeline.order.size() - 1)};
    if (!selection.stretches.empty() && stretch.entry.number <= selection.stretches.back().last) {
      stretch.entry = selection.stretches.back().entry;
      selection.stretches.pop_back();
    }
    selection.stretches.push_back(stretch);
  }
  size_t decoded = 0;
  for (const Stretch &stretch : selection.stretches) {
    decoded += stretch.last + 1 - stretch.entry.number;
    for (size_t number = stretch.entry.number; number <= stretch.last; ++number) {
      if (timeline.droppable[number] && kept.count(number) == 0) selection.passed_over.push_back(number);
    }
  }
  decoded -= selection.passed_over.size();
  const size_t needed = numbered.back().first + 1;
  if (static_cast<double>(decoded) > (1 - kLeastSaving) * static_cast<double>(needed)) return std::nullopt;
  return selection;
}

// The packets of a file with their numbers, forwards: by reading through, or by a jump over what is far away. Where a
// jump lands is checked against the first pass; a demuxer that goes astray gives no packet any more.
class Reader {
 public:
  Reader(Container &container, const Timeline &timeline)
      : container_(container), seekable_(is_seekable(container.format())), packet_(new_packet()) {
    for (const Entry &entry : timeline.entries) by_key_.emplace(entry.key, entry);
  }

  // Go to a stretch's beginning or before it, where that is worth it.
  void begin(const Entry &entry) {
    waiting_ = false;
    if (!seekable_ || entry.position < 0 || entry.number <= next_ || entry.position - position_ < kSeekBytes) return;
    if (container_.seek(entry.key) && container_.read(packet_.get()) && packet_->pts != AV_NOPTS_VALUE) {
      // Matroska gives no decoding times right behind a jump; time and place in the file name a packet.
      const auto landed = by_key_.find(packet_->pts);
      if (landed != by_key_.end() && packet_->pos == landed->second.position && landed->second.number <= entry.number) {
        next_ = landed->second.number;
        waiting_ = true;
        return;
      }
    }
    astray_ = true;
  }

  // The next packet and its number; null at the file's end.
  AVPacket *next(size_t &number) {
    if (!waiting_ && (astray_ || !container_.read(packet_.get()))) return nullptr;
    waiting_ = false;
    number = next_++;
    if (packet_->pos > 0) position_ = packet_->pos;
    return packet_.get();
  }

 private:
  Container &container_;
  bool seekable_;
  PacketPtr packet_;
  std::map<int64_t, Entry> by_key_;
  size_t next_ = 0;
  int64_t position_ = 0;
  bool waiting_ = false;  // the packet that a jump landed on is still to be given
  bool astray_ = false;
};

// The wanted pictures, finished as they come; nothing at the first sign that what was decoded is damaged: what a
// decoder makes of damage depends on what it saw before.
std::optional<std::vector<Picture>> decode_selected(const Reading &reading, const Timeline &timeline,
                                                    const Selection &selection, const std::vector<int64_t> &wanted,
                                                    const Finish &finish) {
  Container container(reading);
  Reader reader(container, timeline);
  std::vector<std::optional<Picture>> found(wanted.size());
  size_t missing = wanted.size();
  std::vector<FramePtr> frames;
  const auto take = [&](const AVPacket *packet) {
    if (!container.decode(packet, frames)) return false;
    for (const FramePtr &frame : frames) {
      const bool corrupt = frame->decode_error_flags != 0 || (frame->flags & AV_FRAME_FLAG_CORRUPT) != 0;
      if (frame->pts == AV_NOPTS_VALUE || corrupt) return false;
      const auto place = std::lower_bound(wanted.begin(), wanted.end(), frame->pts);
      if (place == wanted.end() || *place != frame->pts) continue;
      std::optional<Picture> &picture = found[static_cast<size_t>(place - wanted.begin())];
      if (picture) continue;
      picture = finish(frame.get());
      picture->found = frame->pts;
      --missing;
    }
    return true;
  };
  for (const Stretch &stretch : selection.stretches) {
    container.flush();
    reader.begin(stretch.entry);
    size_t number = 0;
    while (const AVPacket *packet = reader.next(number)) {
      const bool left_out = number < stretch.entry.number ||
                            std::binary_search(selection.passed_over.begin(), selection.passed_over.end(), number);
      if (!left_out && !take(packet)) return std::nullopt;
      if (number == stretch.last) break;
    }
    // Nothing more: the decoder gives out what it holds, damage included.
    if (!take(nullptr)) return std::nullopt;
  }
  if (missing > 0) return std::nullopt;
  std::vector<Picture> pictures;
  for (std::optional<Picture> &picture : found) pictures.push_back(std::move(*picture));
  return pictures;
}

}  // namespace

std::vector<Picture> decode(const Reading &reading, const Timeline &timeline, const std::vector<int64_t> &wanted,
                            const Finish &finish) {
  const auto selection = select(timeline, wanted);
  if (selection) {
    auto pictures = decode_selected(reading, timeline, *selection, wanted, finish);
    if (pictures) return std::move(*pictures);
  }
  return decode_all(reading, timeline, wanted, finish);
}

}  // namespace vtr::internal
