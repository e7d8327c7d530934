#include "video.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "files.h"
#include "frame_data.h"
#include "media/timeline.h"

extern "C" {
#include <libavutil/log.h>
}

namespace {

using nlohmann::json;
using vtr::internal::Error;
using vtr::internal::FrameSpec;
using vtr::internal::Window;

// The library leaves FFmpeg's logging to its host, which this is.
const bool quiet = (av_log_set_level(AV_LOG_QUIET), true);

std::string digest(const uint8_t *data, size_t size) {
  uint8_t bytes[32];
  vtr::internal::sha256(data, size, bytes);
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

json expectations() {
  static const json found = [] {
    std::ifstream file(frame_data("videos.json"));
    return file ? json::parse(file) : json::array();
  }();
  if (found.empty()) {
    ADD_FAILURE() << frame_data("videos.json")
                  << " is not there; run python runtime/cpp/tests/make_video_data.py FOLDER "
                  << "[CLIPS...] and set VTR_TEST_DATA=FOLDER";
  }
  return found;
}

std::optional<double> number(const json &value) {
  return value.is_number() ? std::optional<double>(value.get<double>()) : std::nullopt;
}

// What C++ makes of one case, in the form that Python's was written in.
json seen(const std::string &path, const json &wanted) {
  json found = wanted;
  for (const char *key : {"error", "times", "rgb", "pixels", "warnings"}) found.erase(key);
  FrameSpec spec;
  spec.count = wanted["count"];
  spec.size = wanted["size"];
  std::optional<Window> window;
  if (wanted.contains("start")) window = Window{number(wanted["start"]), number(wanted["end"])};
  try {
    const vtr::internal::RgbFrames rgb = vtr::internal::read_rgb(path, spec, window, nullptr);
    const vtr::internal::Frames frames = vtr::internal::read_frames(path, spec, window, nullptr);
    found["times"] = found["rgb"] = found["pixels"] = json::array();
    for (const vtr::internal::RgbImage &image : rgb.images)
      found["rgb"].push_back(digest(image.pixels.data(), image.pixels.size()));
    const size_t bytes = 3 * spec.size * spec.size;
    EXPECT_EQ(frames.pixels.size(), spec.count * bytes);
    for (size_t i = 0; i < spec.count; ++i) {
      found["pixels"].push_back(digest(frames.pixels.data() + i * bytes, bytes));
      EXPECT_EQ(frames.mask[i], i < rgb.images.size() ? 1 : 0);
      EXPECT_EQ(std::isnan(frames.times[i]), frames.mask[i] == 0);
      if (frames.mask[i] != 0) {
        EXPECT_EQ(frames.times[i], rgb.times[i]);
      }
    }
    for (const double time : rgb.times) found["times"].push_back(time);
    found["warnings"] = frames.sentences;
    size_t replaced = 0;
    for (const std::string &sentence : frames.sentences) {
      replaced += sentence.find("stands in for it") != std::string::npos ? 1 : 0;
    }
    EXPECT_EQ(frames.warnings, replaced);
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), VTR_MEDIA_ERROR);
    found["error"] = error.what();
  }
  return found;
}

json read_times(json wanted) {
  if (wanted.contains("times")) {
    for (json &time : wanted["times"]) time = std::strtod(time.get<std::string>().c_str(), nullptr);
  }
  return wanted;
}

std::string differences(const json &wanted, const json &found) {
  std::string text;
  for (const auto &[key, value] : wanted.items()) {
    if (!found.contains(key)) {
      text += " " + key + ": missing" + (found.contains("error") ? " (" + found["error"].get<std::string>() + ")" : "");
    } else if (found[key] != value) {
      const bool digests = key == "rgb" || key == "pixels";
      text += " " + key + (digests ? "" : ": " + found[key].dump() + " instead of " + value.dump());
    }
  }
  for (const auto &[key, value] : found.items()) {
    if (!wanted.contains(key)) text += " " + key + ": " + (value.is_string() ? value.get<std::string>() : "too many");
  }
  return text;
}

std::string container_times(const std::string &path) {
  std::string text;
  try {
    for (const vtr::internal::Rational &time : vtr::internal::packet_times(path, nullptr)) {
      text += std::to_string(time.num) + "/" + std::to_string(time.den) + " ";
    }
  } catch (const Error &) {
  }
  return text;
}

std::string joined(const json &words) {
  std::string text;
  for (const json &word : words) text += word.get<std::string>() + " ";
  return text;
}

// Where decoding may begin, and what it may leave out.
std::pair<json, std::string> access(const std::string &path) {
  std::pair<json, std::string> found(json::array(), "");
  try {
    const vtr::internal::Timeline timeline = vtr::internal::list_packets({path, nullptr, 1});
    for (const vtr::internal::Entry &entry : timeline.entries) found.first.push_back({entry.number, entry.key});
    if (!timeline.entries.empty()) {
      for (const bool droppable : timeline.droppable) found.second += droppable ? '1' : '0';
    }
  } catch (const Error &) {
  }
  return found;
}

// Every way in which a file is another than Python's.
std::vector<std::string> compare(const json &file) {
  std::vector<std::string> other;
  const std::string path = file["path"];
  if (container_times(path) != joined(file.value("container", json::array()))) other.push_back("container");
  const auto [entries, droppable] = access(path);
  if (entries != file.value("entries", json::array())) other.push_back("entries");
  if (droppable != file.value("droppable", "")) other.push_back("droppable");
  for (const json &one : file["cases"]) {
    const json wanted = read_times(one);
    const std::string text = differences(wanted, seen(path, wanted));
    if (!text.empty()) other.push_back("T=" + one["count"].dump() + ":" + text);
  }
  return other;
}

void expect_equal(const std::string &kind, size_t least) {
  size_t files = 0;
  for (const json &file : expectations()) {
    if (file["kind"] != kind) continue;
    ++files;
    for (const std::string &what : compare(file)) ADD_FAILURE() << file["path"].get<std::string>() << ": " << what;
  }
  EXPECT_GE(files, least);
}

TEST(Video, CommittedClipsAreAsInPython) { expect_equal("committed", 12); }
TEST(Video, ClipsMadeForItAreAsInPython) { expect_equal("made", 40); }
TEST(Video, GivenClipsAreAsInPython) { expect_equal("given", 0); }

TEST(Video, DamagedFilesGiveFramesOrASentence) {
  size_t files = 0, equal = 0;
  for (const json &file : expectations()) {
    if (file["kind"] != "damaged") continue;
    ++files;
    const auto other = compare(file);
    equal += other.empty() ? 1 : 0;
    for (const std::string &what : other) std::cout << file["path"].get<std::string>() << ": " << what << "\n";
  }
  std::cout << equal << " of " << files << " damaged files are as in Python\n";
  EXPECT_GT(files, 100u);
  EXPECT_GT(equal, files / 2);
}

std::string failure(const std::string &path, const std::optional<Window> &window = std::nullopt) {
  FrameSpec spec;
  spec.count = 4;
  spec.size = 32;
  try {
    vtr::internal::read_frames(path, spec, window, nullptr);
  } catch (const Error &error) {
    return error.what();
  }
  return "";
}

TEST(Video, APipeDoesNotHang) {
  const std::string path = testing::TempDir() + "/vtr_pipe.mp4";
  ::unlink(path.c_str());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(failure(path), path + " is not a regular file; give the path of a video file");
  ::unlink(path.c_str());
  EXPECT_NE(failure("/dev/zero").find("is not a regular file"), std::string::npos);
  EXPECT_NE(failure(std::string("/dev/zero\0b", 11)), failure("/dev/zero"));
}

TEST(Video, ABadWindowIsRefusedBeforeTheFileIsOpened) {
  EXPECT_EQ(failure("absent.mp4", Window{2.0, 1.0}), "end is 1.0 and start is 2.0; end must lie after start");
}

// Run under ThreadSanitizer, see InterfaceThreads.
TEST(VideoThreads, ReadingCanBeCancelledAtAnyMoment) {
  for (const json &file : expectations()) {
    if (file["path"].get<std::string>().find("long-closed.mp4") == std::string::npos) continue;
    FrameSpec spec;
    spec.count = 12;
    spec.size = 224;
    std::atomic<bool> cancelled{true};
    try {
      vtr::internal::read_frames(file["path"], spec, std::nullopt, &cancelled);
      FAIL() << "was not cancelled";
    } catch (const Error &error) {
      EXPECT_EQ(error.code(), VTR_CANCELLED);
    }
    for (int wait = 0; wait < 40; ++wait) {
      cancelled = false;
      std::thread later([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(250 * wait));
        cancelled = true;
      });
      try {
        vtr::internal::read_frames(file["path"], spec, std::nullopt, &cancelled);
      } catch (const Error &error) {
        EXPECT_EQ(error.code(), VTR_CANCELLED);
      }
      later.join();
    }
  }
}

TEST(Video, MoreThreadsGiveTheSameFramesOfAWholeFile) {
  FrameSpec spec;
  spec.count = 12;
  spec.size = 64;
  size_t compared = 0;
  for (const json &file : expectations()) {
    if (file["kind"] != "committed" || !file.contains("container")) continue;
    try {
      const auto one = vtr::internal::read_frames(file["path"], spec, std::nullopt, nullptr, 1);
      const auto four = vtr::internal::read_frames(file["path"], spec, std::nullopt, nullptr, 4);
      EXPECT_EQ(one.pixels, four.pixels) << file["path"];
      ++compared;
    } catch (const Error &) {
    }
  }
  EXPECT_GT(compared, 5u);
}

}  // namespace
