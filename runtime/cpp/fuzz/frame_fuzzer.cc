// Frames and times of any kind: resize_crop and ClipTimes take them or refuse them, and never read or write elsewhere.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "resize.h"
#include "sampling.h"

namespace {

class Input {
 public:
  Input(const uint8_t *data, size_t size) : data_(data), size_(size) {}
  // The next number, zeros where the bytes end.
  template <typename T>
  T take() {
    T value{};
    const size_t count = size_ < sizeof value ? size_ : sizeof value;
    std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value;
  }
  size_t left() const { return size_; }
  const uint8_t *data() const { return data_; }

 private:
  const uint8_t *data_;
  size_t size_;
};

void resize(Input input) {
  const size_t width = input.take<uint16_t>(), height = input.take<uint16_t>();
  const ptrdiff_t stride = input.take<int32_t>();
  const size_t size = input.take<uint16_t>() % 400;
  // A picture exactly as large as it says, so that the sanitizer sees what is read behind it.
  const auto rows = static_cast<uint64_t>(stride == 0 ? 3 * static_cast<ptrdiff_t>(width) : stride);
  const bool sound = stride >= 0 && width > 0 && height > 0 && rows >= 3 * width;
  const uint64_t bytes = sound ? rows * (height - 1) + 3 * width : 0;
  if (bytes > uint64_t{1} << 22) return;
  std::vector<uint8_t> rgb(bytes + (sound ? 0 : 1));
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = input.left() > 0 ? input.data()[i % input.left()] : 128;
  std::vector<uint8_t> out(3 * size * size + 1);
  try {
    vtr::internal::resize_crop(rgb.data(), width, height, stride, size, out.data());
  } catch (const vtr::internal::Error &) {
    return;
  }
  if (!sound || size == 0) std::abort();
  // A flat picture stays as it is.
  bool flat = input.left() == 0;
  for (size_t i = 0; flat && i < 3 * size * size; ++i) {
    if (out[i] != 128) std::abort();
  }
}

void sample(Input input) {
  const int64_t num = input.take<int64_t>(), den = input.take<int64_t>(), origin = input.take<int64_t>();
  const int64_t duration = input.take<int64_t>();
  const size_t count = input.take<uint16_t>();
  const uint8_t cuts = input.take<uint8_t>();
  vtr::internal::Window window;
  if (cuts & 1) window.start = input.take<double>();
  if (cuts & 2) window.end = input.take<double>();
  std::vector<int64_t> ticks;
  const bool small = (cuts & 4) != 0;
  const auto sampling = (cuts & 8) != 0 ? vtr::internal::Sampling::kFps1 : vtr::internal::Sampling::kUniform;
  while (input.left() > 0) ticks.push_back(small ? input.take<int8_t>() : input.take<int64_t>());
  try {
    const vtr::internal::ClipTimes times(ticks, duration, {num, den}, origin);
    const vtr::internal::SamplePlan plan = times.sample(count, window, sampling);
    if (plan.size() > count) std::abort();
    for (size_t i = 0; i < plan.size(); ++i) {
      if (plan[i] >= times.size() || (i > 0 && plan[i] < plan[i - 1])) std::abort();
      const double seconds = times.seconds(plan[i]);
      if (!std::isfinite(seconds) || (window.start && seconds < *window.start)) std::abort();
      if (window.end && seconds >= *window.end) std::abort();
      times.exact(plan[i]);
    }
    times.end();
  } catch (const vtr::internal::Error &) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Input input(data, size);
  if (input.take<uint8_t>() & 1) {
    resize(input);
  } else {
    sample(input);
  }
  return 0;
}
