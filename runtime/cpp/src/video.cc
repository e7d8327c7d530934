#include "video.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "media/colour.h"
#include "media/decode.h"
#include "media/timeline.h"
#include "resize.h"

namespace vtr::internal {
namespace {

std::string three_places(double seconds) {
  char words[400];
  std::snprintf(words, sizeof words, "%.3f", seconds);
  return words;
}

// The matrix that a frame is to be turned by, in nine integers; false where there is none.
bool display_matrix(const AVFrame *frame, const Timeline &timeline, int32_t *matrix) {
  const AVFrameSideData *found = nullptr;
  for (int i = 0; i < frame->nb_side_data; ++i) {
    const AVFrameSideData *data = frame->side_data[i];
    if (data->type == AV_FRAME_DATA_DISPLAYMATRIX && data->size >= 9 * sizeof(int32_t)) found = data;
  }
  if (found != nullptr) {
    std::memcpy(matrix, found->data, 9 * sizeof(int32_t));
  } else if (timeline.matrix) {
    std::copy(timeline.matrix->begin(), timeline.matrix->end(), matrix);
  }
  return found != nullptr || timeline.matrix;
}

// Makes pictures of frames: RGB, upright, and `size` pixels square, or as large as they are where that is 0.
class Finisher {
 public:
  Finisher(const Reading &reading, const Timeline &timeline, size_t size)
      : reading_(reading), timeline_(timeline), size_(size) {}

  Picture operator()(AVFrame *frame) {
    reading_.check_cancelled();
    Picture picture;
    picture.damaged = frame->decode_error_flags != 0 || (frame->flags & AV_FRAME_FLAG_CORRUPT) != 0;
    try {
      RgbView rgb = converter_.convert(frame);
      int32_t matrix[9];
      if (display_matrix(frame, timeline_, matrix)) rgb = turn_upright(rgb, matrix, turned_, picture.turned_well);
      picture.width = size_ > 0 ? size_ : rgb.width;
      picture.height = size_ > 0 ? size_ : rgb.height;
      picture.pixels.resize(3 * picture.width * picture.height);
      if (size_ > 0) {
        resize_crop(rgb.data, rgb.width, rgb.height, static_cast<ptrdiff_t>(rgb.stride), size_, picture.pixels.data());
      } else {
        for (size_t row = 0; row < rgb.height; ++row) {
          std::memcpy(picture.pixels.data() + row * 3 * rgb.width, rgb.data + row * rgb.stride, 3 * rgb.width);
        }
      }
    } catch (const Error &error) {
      throw Error(error.code(), reading_.path + ": " + error.what());
    }
    return picture;
  }

 private:
  const Reading &reading_;
  const Timeline &timeline_;
  size_t size_;
  RgbConverter converter_;
  std::vector<uint8_t> turned_;
};

// The pictures of a part of a clip.
struct Part {
  SamplePlan plan;
  std::vector<double> times;
  std::vector<size_t> chosen;  // per place of the plan: which picture
  std::vector<Picture> pictures;
  size_t replaced = 0;
  std::vector<std::string> sentences;
};

// What is to be said about the pictures that were found, by the key that was wanted.
void judge(const Timeline &timeline, const std::vector<size_t> &wanted, Part &part) {
  bool turned_well = true;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Picture &picture = part.pictures[i];
    const int64_t key = timeline.times.tick(wanted[i]);
    const std::string time = "the frame at " + three_places(timeline.times.seconds(wanted[i])) + " s";
    turned_well = turned_well && picture.turned_well;
    if (picture.found != key) {
      ++part.replaced;
      part.sentences.push_back(time + " cannot be decoded, the " +
                               (picture.found < key ? "nearest earlier" : "first later") + " one stands in for it");
    } else if (picture.damaged) {
      part.sentences.push_back(time + " is damaged, the decoder filled in what is missing");
    }
  }
  if (!turned_well) {
    part.sentences.push_back(
        "the rotation that the file asks for is no multiple of 90 degrees, it was rounded or left out");
  }
}

Part read_part(const Reading &reading, const FrameSpec &spec, const std::optional<Window> &window, size_t size) {
  const Window cut = window.value_or(Window{});
  check_window(cut);  // before the file is opened
  const Timeline timeline = list_packets(reading);
  Part part;
  part.plan = timeline.times.sample(spec.count, cut, spec.sampling);
  if (part.plan.empty()) {
    throw Error(VTR_MEDIA_ERROR, reading.path + " has no frame from " +
                                     (cut.start.value_or(0) == 0 ? "0" : decimal(*cut.start)) + " s to " +
                                     (cut.end ? decimal(*cut.end) + " s" : "its end") + "; it is " +
                                     three_places(timeline.times.end()) + " s long, choose start and end within that");
  }
  std::vector<size_t> wanted(part.plan);  // in order already
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  std::vector<int64_t> keys;
  for (const size_t index : wanted) keys.push_back(timeline.times.tick(index));
  Finisher finisher(reading, timeline, size);
  part.pictures = decode(reading, timeline, keys, std::ref(finisher));
  if (part.pictures.empty()) {
    throw Error(VTR_MEDIA_ERROR,
                "no frame of " + reading.path + " can be decoded; check the file with a player or encode it again");
  }
  for (const size_t index : part.plan) {
    part.times.push_back(timeline.times.seconds(index));
    part.chosen.push_back(static_cast<size_t>(std::lower_bound(wanted.begin(), wanted.end(), index) - wanted.begin()));
  }
  part.sentences = timeline.warnings;
  judge(timeline, wanted, part);
  return part;
}

}  // namespace

Frames read_frames(const std::string &path, const FrameSpec &spec, const std::optional<Window> &window,
                   const std::atomic<bool> *cancelled, int threads) {
  if (spec.size == 0) throw Error(VTR_INVALID_ARGUMENT, "the frames' size is 0; give the side of the square in pixels");
  Part part = read_part({path, cancelled, threads}, spec, window, spec.size);
  Frames frames;
  const size_t bytes = 3 * spec.size * spec.size;
  frames.pixels.assign(spec.count * bytes, 0);
  frames.mask.assign(spec.count, 0);
  frames.times.assign(spec.count, std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < part.chosen.size(); ++i) {
    std::memcpy(frames.pixels.data() + i * bytes, part.pictures[part.chosen[i]].pixels.data(), bytes);
    frames.mask[i] = 1;
    frames.times[i] = part.times[i];
  }
  frames.warnings = part.replaced;
  frames.sentences = std::move(part.sentences);
  return frames;
}

RgbFrames read_rgb(const std::string &path, const FrameSpec &spec, const std::optional<Window> &window,
                   const std::atomic<bool> *cancelled, int threads) {
  Part part = read_part({path, cancelled, threads}, spec, window, 0);
  RgbFrames frames;
  for (const size_t place : part.chosen) {
    const Picture &picture = part.pictures[place];
    frames.images.push_back({picture.width, picture.height, picture.pixels});
  }
  frames.times = std::move(part.times);
  frames.warnings = part.replaced;
  frames.sentences = std::move(part.sentences);
  return frames;
}

std::vector<Rational> packet_times(const std::string &path, const std::atomic<bool> *cancelled) {
  const Timeline timeline = list_packets({path, cancelled, 1});
  std::vector<Rational> times;
  times.reserve(timeline.times.size());
  for (size_t i = 0; i < timeline.times.size(); ++i) times.push_back(timeline.times.exact(i));
  return times;
}

}  // namespace vtr::internal
