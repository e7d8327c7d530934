#include "comparators.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace vtr::tools {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTiny = 1e-12;

std::string place(const Array &array, size_t index, size_t axes) {
  std::vector<size_t> found(array.shape().size());
  for (size_t axis = found.size(); axis-- > 0;) {
    found[axis] = index % array.shape()[axis];
    index /= array.shape()[axis];
  }
  std::string text = " at [";
  for (size_t axis = 0; axis < std::min(axes, found.size()); ++axis)
    text += (axis ? ", " : "") + std::to_string(found[axis]);
  return text + "]";
}

size_t last_axis(const Array &array) { return array.shape().empty() ? 1 : std::max<uint64_t>(1, array.shape().back()); }

// The largest of `off(row)` over rows of the last axis.
Comparison by_row(const Array &want, double limit, const std::function<double(size_t, size_t)> &off) {
  const size_t wide = last_axis(want);
  Comparison found;
  size_t worst = 0;
  for (size_t begin = 0; begin + wide <= want.size(); begin += wide) {
    const double measured = off(begin, begin + wide);
    if (measured > found.measured) found.measured = measured, worst = begin;
  }
  found.passed = found.measured <= limit;
  if (found.measured > 0) found.where = place(want, worst, want.shape().size() - 1);
  return found;
}

Comparison exact(const Array &want, const Array &got, double limit) {
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const bool same = want[i] == got[i] || (want.floating() && std::isnan(want[i]) && std::isnan(got[i]));
    if (!same && wrong++ == 0) first = i;
  }
  return {static_cast<double>(wrong) <= limit, static_cast<double>(wrong), wrong ? place(want, first, 9) : ""};
}

// The largest |want - got| over `norm(index)`.
Comparison largest(const Array &want, const Array &got, double limit, const std::function<double(size_t)> &norm) {
  Comparison found;
  size_t worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double off = std::abs(want[i] - got[i]) / norm(i);
    if (off > found.measured) found.measured = off, worst = i;
  }
  found.passed = found.measured <= limit;
  if (found.measured > 0) found.where = place(want, worst, 9);
  return found;
}

double norm_of(const Array &array, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += array[i] * array[i];
  return std::max(std::sqrt(sum), kTiny);
}

double squared_distance(const Array &want, const Array &got, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += (want[i] - got[i]) * (want[i] - got[i]);
  return sum;
}

// Order the gallery by the actual scores; two items that the expected scores put the other way round were swapped.
double largest_swap(const Array &want, const Array &got, size_t begin, size_t end) {
  std::vector<size_t> order(end - begin);
  std::iota(order.begin(), order.end(), begin);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return got[a] > got[b]; });
  double best_later = -kInfinity, found = 0;
  for (auto item = order.rbegin(); item != order.rend(); ++item) {
    best_later = std::max(best_later, want[*item]);
    found = std::max(found, best_later - want[*item]);
  }
  return found;
}

Comparison compare_one(const std::string &kind, const Array &want, const Array &got, double limit) {
  if (want.shape() != got.shape()) return {false, kInfinity, ": another shape"};
  if (kind == "exact") return exact(want, got, limit);
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return {false, kInfinity, ": not finite" + place(got, i, 9)};
  }
  const size_t wide = last_axis(want);
  if (kind == "finite") return {};
  if (kind == "max_abs") return largest(want, got, limit, [](size_t) { return 1.0; });
  if (kind == "relative") {
    return largest(want, got, limit, [&](size_t i) { return norm_of(want, i / wide * wide, i / wide * wide + wide); });
  }
  if (kind == "scale") {
    double most = kTiny;
    for (size_t i = 0; i < want.size(); ++i) most = std::max(most, std::abs(want[i]));
    return largest(want, got, limit, [most](size_t) { return most; });
  }
  if (kind == "chord") {
    return by_row(want, limit, [&](size_t begin, size_t end) {
      return std::sqrt(squared_distance(want, got, begin, end)) / norm_of(want, begin, end);
    });
  }
  if (kind == "cosine") {  // at unit length half the squared distance
    return by_row(want, limit, [&](size_t begin, size_t end) { return squared_distance(want, got, begin, end) / 2; });
  }
  if (kind == "ranking") {
    return by_row(want, limit, [&](size_t begin, size_t end) { return largest_swap(want, got, begin, end); });
  }
  throw internal::Error(VTR_UNAVAILABLE, "golden.json names the comparator " + kind +
                                             ", which this version does not know; use a newer one");
}

}  // namespace

Comparison compare(const std::string &kind, const Arrays &expected, const Arrays &actual, double limit) {
  Comparison worst;
  for (const auto &[name, want] : expected) {
    const auto got = actual.find(name);
    if (got == actual.end()) return {false, kInfinity, name + ": not given"};
    Comparison found = compare_one(kind, want, got->second, limit);
    found.where = name + found.where;
    const bool worse = found.passed != worst.passed ? !found.passed : found.measured >= worst.measured;
    if (worse) worst = found;
  }
  return worst;
}

}  // namespace vtr::tools
