#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace vtr::internal {
namespace {

// Pillow's own numbers (libImaging/Resample.c): 8 bits of a value, 2 for what a bicubic sum may exceed it by.
constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr double kSupport = 2.0;
constexpr uint64_t kMaxResizedPixels = uint64_t{1} << 26;
constexpr size_t kMaxSize = size_t{1} << 13;  // a square of it has as many pixels
constexpr size_t kMaxSide = std::numeric_limits<int32_t>::max();

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// One axis: for each kept output pixel, which input pixels it is made of and how much each counts.
struct Axis {
  std::vector<size_t> first;    // per output pixel: its first input pixel
  std::vector<size_t> count;    // and how many there are
  std::vector<int32_t> weight;  // [outputs, stride], fixed point
  size_t stride = 0;

  // Output pixels from..from+kept of an axis of `in` pixels that becomes `out` pixels long.
  Axis(size_t in, size_t out, size_t from, size_t kept) {
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    const double filter_scale = std::max(scale, 1.0);
    const double support = kSupport * filter_scale, inverse = 1.0 / filter_scale;
    stride = static_cast<size_t>(std::ceil(support)) * 2 + 1;
    first.resize(kept);
    count.resize(kept);
    weight.assign(kept * stride, 0);
    std::vector<double> row(stride);
    for (size_t place = 0; place < kept; ++place) {
      const double center = (static_cast<double>(from + place) + 0.5) * scale;
      const auto low = static_cast<int64_t>(center - support + 0.5);
      const auto high = static_cast<int64_t>(center + support + 0.5);
      first[place] = static_cast<size_t>(std::max<int64_t>(low, 0));
      count[place] = std::min(static_cast<size_t>(high), in) - first[place];
      double sum = 0.0;
      for (size_t i = 0; i < count[place]; ++i) {
        row[i] = bicubic((static_cast<double>(i + first[place]) - center + 0.5) * inverse);
        sum += row[i];
      }
      for (size_t i = 0; i < count[place]; ++i) {
        const double part = (sum != 0.0 ? row[i] / sum : row[i]) * (1 << kPrecisionBits);
        weight[place * stride + i] = static_cast<int32_t>(part < 0 ? part - 0.5 : part + 0.5);
      }
    }
  }

  const int32_t *weights(size_t place) const { return weight.data() + place * stride; }
  size_t begin() const { return first.front(); }
  size_t end() const { return first.back() + count.back(); }
};

uint8_t clip8(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255)); }

constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

// The kept columns of `rows` rows, [rows, kept, 3].
void resize_across(const uint8_t *in, size_t stride, size_t rows, const Axis &axis, uint8_t *out) {
  for (size_t row = 0; row < rows; ++row, in += stride) {
    for (size_t place = 0; place < axis.first.size(); ++place, out += 3) {
      const uint8_t *pixel = in + 3 * axis.first[place];
      const int32_t *weight = axis.weights(place);
      int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (size_t i = 0; i < axis.count[place]; ++i, pixel += 3) {
        red += pixel[0] * weight[i];
        green += pixel[1] * weight[i];
        blue += pixel[2] * weight[i];
      }
      out[0] = clip8(red);
      out[1] = clip8(green);
      out[2] = clip8(blue);
    }
  }
}

// The kept rows of a picture `row_bytes` wide, whose first row is row `begin`, [kept, row_bytes].
void resize_down(const uint8_t *in, size_t stride, size_t row_bytes, size_t begin, const Axis &axis, uint8_t *out) {
  std::vector<int32_t> sums(row_bytes);
  for (size_t place = 0; place < axis.first.size(); ++place, out += row_bytes) {
    std::fill(sums.begin(), sums.end(), kHalf);
    const uint8_t *row = in + (axis.first[place] - begin) * stride;
    for (size_t i = 0; i < axis.count[place]; ++i, row += stride) {
      const int32_t weight = axis.weights(place)[i];
      for (size_t x = 0; x < row_bytes; ++x) sums[x] += row[x] * weight;
    }
    for (size_t x = 0; x < row_bytes; ++x) out[x] = clip8(sums[x]);
  }
}

// Python's round of (length - size) / 2: halves go to the even number.
size_t crop_offset(size_t length, size_t size) {
  const size_t twice = length - size;
  return twice / 2 + (twice % 2 == 1 && twice / 2 % 2 == 1 ? 1 : 0);
}

}  // namespace

void resize_crop(const uint8_t *rgb, size_t width, size_t height, ptrdiff_t row_stride, size_t size, uint8_t *out) {
  const std::string sides = std::to_string(width) + " x " + std::to_string(height);
  if (rgb == nullptr || width == 0 || height == 0) {
    throw Error(VTR_INVALID_ARGUMENT, std::string("a frame is ") + (rgb == nullptr ? "null" : sides + " pixels") +
                                          "; give uint8 [height, width, 3]");
  }
  if (size == 0 || out == nullptr) {
    throw Error(VTR_INVALID_ARGUMENT, "the resized frame is null or 0 pixels wide; give uint8 [size, size, 3]");
  }
  const size_t short_side = std::min(width, height), long_side = std::max(width, height);
  if (long_side > kMaxSide) {
    throw Error(VTR_MEDIA_ERROR, "a frame of " + sides + " pixels is too large to resize; crop the video first");
  }
  if (row_stride < 0 || (row_stride > 0 && static_cast<size_t>(row_stride) < 3 * width)) {
    throw Error(VTR_INVALID_ARGUMENT, "the row stride of a frame " + std::to_string(width) + " pixels wide is " +
                                          std::to_string(row_stride) + "; give at least " + std::to_string(3 * width) +
                                          " bytes, or 0 for rows without a gap");
  }
  const size_t stride = row_stride == 0 ? 3 * width : static_cast<size_t>(row_stride);
  // As Python divides: the nearest double, cut off.
  const double new_long = size > kMaxSize ? std::numeric_limits<double>::infinity()
                                          : static_cast<double>(size * long_side) / static_cast<double>(short_side);
  if (new_long >= kMaxResizedPixels || size * static_cast<uint64_t>(new_long) > kMaxResizedPixels) {
    throw Error(VTR_MEDIA_ERROR, "a frame of " + sides + " pixels is too narrow to resize to " + std::to_string(size) +
                                     "; crop the video first");
  }
  const size_t new_width = width <= height ? size : static_cast<size_t>(new_long);
  const size_t new_height = width <= height ? static_cast<size_t>(new_long) : size;
  const size_t left = crop_offset(new_width, size), top = crop_offset(new_height, size);
  if (new_width == width && new_height == height) {
    for (size_t row = 0; row < size; ++row) {
      std::memcpy(out + row * 3 * size, rgb + (top + row) * stride + 3 * left, 3 * size);
    }
    return;
  }

  const Axis across(width, new_width, left, size), down(height, new_height, top, size);
  // Each pass rounds, so their order shows. Pillow 13 begins with the height where that shrinks by more than twice as
  // many pixels as the width does (a frame more than twice as high as wide); earlier versions never did.
  const auto shrinks = [](size_t from, size_t to) { return static_cast<int64_t>(from) - static_cast<int64_t>(to); };
  if (shrinks(height, new_height) > std::max<int64_t>(0, 2 * shrinks(width, new_width))) {
    std::vector<uint8_t> low(size * 3 * width);
    resize_down(rgb, stride, 3 * width, 0, down, low.data());
    resize_across(low.data(), 3 * width, size, across, out);
    return;
  }
  const size_t rows = down.end() - down.begin();
  std::vector<uint8_t> narrow(rows * 3 * size);
  resize_across(rgb + down.begin() * stride, stride, rows, across, narrow.data());
  resize_down(narrow.data(), 3 * size, 3 * size, down.begin(), down, out);
}

}  // namespace vtr::internal
