#include "sampling.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace vtr::internal {
namespace {

__extension__ typedef unsigned __int128 UnsignedWide;

// Beyond it, (t1 - t0) * (2 * count) could leave 128 bits; a clip of so many frames does not fit into memory.
constexpr size_t kMaxCount = size_t{1} << 48;

Wide greatest_divisor(Wide a, Wide b) {
  while (b != 0) a = std::exchange(b, a % b);
  return a;
}

[[noreturn]] void refuse(const std::string &sentence) { throw Error(VTR_INVALID_ARGUMENT, sentence); }

}  // namespace

std::string decimal(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char digits[400];
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto written = std::to_chars(digits, digits + sizeof digits, value,
                                     plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(digits, written.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void check_window(const Window &window) {
  const auto check = [](const char *name, const std::optional<double> &value) {
    if (value && !(std::isfinite(*value) && *value >= 0)) {
      refuse(std::string(name) + " is " + decimal(*value) +
             "; give seconds from the clip's first frame, 0 or more, or leave it out");
    }
  };
  check("start", window.start);
  check("end", window.end);
  const double start = window.start.value_or(0);
  if (window.end && *window.end <= start) {
    refuse("end is " + decimal(*window.end) + " and start is " + (start == 0 ? "0" : decimal(start)) +
           "; end must lie after start");
  }
}

double nearest_double(Wide num, int64_t den) {
  const bool negative = num < 0;
  // Of the smallest number too, whose positive does not exist.
  const UnsignedWide size = negative ? ~static_cast<UnsignedWide>(num) + 1 : static_cast<UnsignedWide>(num);
  if (size == 0) return 0.0;
  const auto divisor = static_cast<UnsignedWide>(den);
  UnsignedWide quotient = size / divisor, rest = size % divisor;
  int exponent = 0;
  // 54 bits or more: 53 that stay and one to round by; what lies below is only told from nothing.
  while (quotient < UnsignedWide{1} << 53) {
    quotient *= 2;
    rest *= 2;
    if (rest >= divisor) {
      quotient += 1;
      rest -= divisor;
    }
    --exponent;
  }
  bool below = rest != 0;
  while (quotient >= UnsignedWide{1} << 54) {
    below = below || (quotient & 1) != 0;
    quotient >>= 1;
    ++exponent;
  }
  const bool up = (quotient & 1) != 0 && (below || (quotient & 2) != 0);
  const auto rounded = static_cast<uint64_t>(quotient >> 1) + (up ? 1 : 0);
  const double value = std::ldexp(static_cast<double>(rounded), exponent + 1);
  return negative ? -value : value;
}

ClipTimes::ClipTimes(std::vector<int64_t> ticks, int64_t last_duration, Rational unit, int64_t origin)
    : ticks_(std::move(ticks)), last_duration_(last_duration), unit_(unit), origin_(origin) {
  if (unit_.den <= 0 || unit_.num <= 0) refuse("the unit of the times is no number above 0; give one");
  if (unit_.num > std::numeric_limits<int32_t>::max()) refuse("the unit of the times is too large; give a smaller one");
  if (last_duration_ < 0) refuse("the last frame's duration is negative; give 0 where it is not known");
  std::sort(ticks_.begin(), ticks_.end());
  ticks_.erase(std::unique(ticks_.begin(), ticks_.end()), ticks_.end());
}

double ClipTimes::seconds(size_t index) const {
  return nearest_double((static_cast<Wide>(ticks_[index]) - origin_) * unit_.num, unit_.den);
}

Rational ClipTimes::exact(size_t index) const {
  const Wide num = (static_cast<Wide>(ticks_[index]) - origin_) * unit_.num;
  const Wide divisor = greatest_divisor(num < 0 ? -num : num, unit_.den);
  const Wide reduced = num / divisor;
  constexpr Wide most = std::numeric_limits<int64_t>::max();
  if (reduced > most || reduced < -most) {
    throw Error(VTR_MEDIA_ERROR, "a frame's time does not fit into 64 bits; encode the video again");
  }
  return {static_cast<int64_t>(reduced), static_cast<int64_t>(unit_.den / divisor)};
}

double ClipTimes::end() const {
  if (ticks_.empty()) return 0;
  // Halved in the float64, which is exact for any that a time can have.
  return nearest_double((twice_end(0, ticks_.size() - 1) - 2 * static_cast<Wide>(origin_)) * unit_.num, unit_.den) / 2;
}

size_t ClipTimes::first_from(double seconds) const {
  size_t low = 0, high = ticks_.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (this->seconds(middle) < seconds) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

Wide ClipTimes::twice_end(size_t first, size_t last) const {
  // A cut ends where the clip's next frame begins.
  if (last + 1 < ticks_.size()) return 2 * static_cast<Wide>(ticks_[last + 1]);
  const Wide twice_last = 2 * static_cast<Wide>(ticks_[last]);
  if (last_duration_ > 0) return twice_last + 2 * static_cast<Wide>(last_duration_);
  if (first == last) return twice_last;
  std::vector<uint64_t> between(last - first);
  for (size_t i = 0; i < between.size(); ++i) {
    between[i] = static_cast<uint64_t>(ticks_[first + i + 1]) - static_cast<uint64_t>(ticks_[first + i]);
  }
  const auto middle = between.begin() + static_cast<ptrdiff_t>(between.size() / 2);
  std::nth_element(between.begin(), middle, between.end());
  const Wide upper = *middle;
  const Wide lower = between.size() % 2 == 1 ? upper : static_cast<Wide>(*std::max_element(between.begin(), middle));
  return twice_last + lower + upper;
}

SamplePlan ClipTimes::sample(size_t count, const Window &window, Sampling sampling) const {
  if (count < 1) refuse("count is 0; a clip needs at least 1 frame");
  if (count > kMaxCount) refuse("count is " + std::to_string(count) + "; a clip has no such number of frames");
  check_window(window);
  const size_t first = window.start ? first_from(*window.start) : 0;
  const size_t behind = window.end ? first_from(*window.end) : ticks_.size();
  if (behind <= first) return {};
  return sampling == Sampling::kFps1 ? one_a_second(first, behind, count) : uniform(first, behind, count);
}

SamplePlan ClipTimes::uniform(size_t first, size_t behind, size_t count) const {
  SamplePlan plan;
  if (behind - first <= count) {
    for (size_t index = first; index < behind; ++index) plan.push_back(index);
    return plan;
  }
  plan.reserve(count);
  const Wide twice_length = twice_end(first, behind - 1) - 2 * static_cast<Wide>(ticks_[first]);
  for (size_t part = 0; part < count; ++part) {
    // Ticks are whole, so the whole part of the middle decides as the middle itself would.
    const Wide middle = twice_length * static_cast<Wide>(2 * part + 1) / (4 * static_cast<Wide>(count));
    const Wide shown = static_cast<Wide>(ticks_[first]) + middle;
    // Compared as 128 bits: a middle may lie behind what 64 bits hold.
    const auto after = std::upper_bound(ticks_.begin(), ticks_.end(), shown,
                                        [](Wide value, int64_t tick) { return value < static_cast<Wide>(tick); });
    plan.push_back(static_cast<size_t>(after - ticks_.begin()) - 1);
  }
  return plan;
}

SamplePlan ClipTimes::one_a_second(size_t first, size_t behind, size_t count) const {
  const size_t step = frames_a_second(), seconds = (behind - first - 1) / step + 1;
  const size_t taken = std::min(seconds, count);
  SamplePlan plan;
  plan.reserve(taken);
  for (size_t j = 0; j < taken; ++j) {
    const Wide place = seconds <= count ? j : static_cast<Wide>(j) * (seconds - 1) / std::max<size_t>(count - 1, 1);
    plan.push_back(first + static_cast<size_t>(place) * step);
  }
  return plan;
}

size_t ClipTimes::frames_a_second() const {
  const auto offset = [&](int64_t tick) { return (static_cast<Wide>(tick) - ticks_.front()) * unit_.num; };
  // Where all times are whole hundredths or thousandths the container may have rounded them: one such unit less.
  Wide parts = 0;
  for (const int64_t candidate : {100, 1000}) {
    const auto whole = [&](int64_t tick) { return offset(tick) * candidate % unit_.den == 0; };
    if (parts == 0 && std::all_of(ticks_.begin(), ticks_.end(), whole)) parts = candidate;
  }
  const Wide scale = std::max<Wide>(parts, 1);
  const Wide lasted = offset(ticks_.back()) * scale - (parts == 0 ? 0 : static_cast<Wide>(unit_.den));
  const Wide most = static_cast<Wide>(ticks_.size());
  if (lasted <= 0) return ticks_.size();
  return static_cast<size_t>(std::clamp<Wide>((most - 1) * unit_.den * scale / lasted, 1, most));
}

}  // namespace vtr::internal
