// Which frames of a clip are seen: exact arithmetic on presentation times, so that every host picks the same ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "status.h"

namespace vtr::internal {

// 128 bits, which GCC and Clang have on every 64-bit machine and the standard does not name.
__extension__ typedef __int128 Wide;

// A number as a whole fraction; den is above 0.
struct Rational {
  int64_t num = 0;
  int64_t den = 1;
};

// Which frames are chosen: `uniform`, spread evenly over the clip, or `fps1`, CLIP4Clip's one a second.
enum class Sampling { kUniform, kFps1 };

// A part of a clip, in seconds from its first frame: start <= time < end.
struct Window {
  std::optional<double> start;
  std::optional<double> end;
};

// Error(VTR_INVALID_ARGUMENT) for a part that no clip could have: negative, infinite or NaN, or an end not after the
// start.
void check_window(const Window &window);

// A number as Python writes it.
std::string decimal(double value);

// At most `count` frames in order of time, as places in the sorted distinct times; one that stands long may come
// several times. Empty where the window leaves no frame.
using SamplePlan = std::vector<size_t>;

// The times of a clip's frames, in order and each once.
class ClipTimes {
 public:
  // A time is (tick - origin) * unit seconds; `ticks` come in any order, equal ones are one frame. `last_duration` is
  // for how many ticks the last frame is shown; 0 where it is not known: then the median difference between neighbours
  // stands for it. Error(VTR_INVALID_ARGUMENT) for a unit or a duration that is none.
  ClipTimes(std::vector<int64_t> ticks, int64_t last_duration, Rational unit, int64_t origin = 0);

  // At most `count` frames. kUniform: the middles of `count` equal parts of [t0, t1), each with the frame shown then; a
  // clip of at most `count` frames gives each of them once. kFps1: one frame a second, and `count` of these where there
  // are more (docs/frames-and-text.md). The window cuts the clip before all else; a time is compared as the float64
  // nearest to it, so a time that was reported can be given back.
  SamplePlan sample(size_t count, const Window &window = {}, Sampling sampling = Sampling::kUniform) const;

  size_t size() const { return ticks_.size(); }
  int64_t tick(size_t index) const { return ticks_[index]; }
  // The float64 nearest to the time, and the time itself in lowest terms.
  double seconds(size_t index) const;
  Rational exact(size_t index) const;
  // When the last frame stops being shown, in seconds; 0 without frames.
  double end() const;

 private:
  // Of the frames [first, behind), which is not empty.
  SamplePlan uniform(size_t first, size_t behind, size_t count) const;
  SamplePlan one_a_second(size_t first, size_t behind, size_t count) const;
  // The frame rate of the whole clip, rounded down, at least 1 and at most its number of frames.
  size_t frames_a_second() const;
  size_t first_from(double seconds) const;
  // When the last of the kept frames stops being shown, in half ticks: a median may lie between two.
  Wide twice_end(size_t first, size_t last) const;

  std::vector<int64_t> ticks_;
  int64_t last_duration_;
  Rational unit_;
  int64_t origin_;
};

// The float64 nearest to num / den, halves to even, as Python's int / int. den is above 0.
double nearest_double(Wide num, int64_t den);

}  // namespace vtr::internal
