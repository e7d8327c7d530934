#include "index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace vtr::internal {
namespace {

// As in a bundle's manifest: a longer embedding is a damaged file's, and a query of its length fits in no memory.
constexpr uint64_t kMostDim = 1 << 20;
// Rows between two looks at a request to stop.
constexpr size_t kBlock = 4096;

// Tensors of a mapped file need not lie where their type would.
template <typename T>
T load(const uint8_t *base, size_t index) {
  T value;
  std::memcpy(&value, base + index * sizeof(T), sizeof(T));
  return value;
}

// Finite float16 as float32: the bits are moved into their places, the product puts right the exponent, whose bias is
// 15 in one and 127 in the other. Exact, subnormal numbers included.
float float_of_half(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half & 0x8000) << 16 | static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value * 0x1p112f;
}

// Eight sums, so that the compiler may keep them in one register: chooses candidates only.
float rough(const float *row, const float *query, size_t dim) {
  float sums[8] = {};
  size_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += row[i + lane] * query[i + lane];
  }
  float sum = 0;
  for (; i < dim; ++i) sum += row[i] * query[i];
  for (const float lane : sums) sum += lane;
  return sum;
}

double exact(const float *row, const float *query, size_t dim) {
  double sum = 0;
  for (size_t i = 0; i < dim; ++i) sum += static_cast<double>(row[i]) * query[i];
  return sum;
}

// More than rounding can move the product of two unit vectors, by far (runtime/vtr_runtime/index/exact.py).
constexpr float kMargin = 1e-5F;

}  // namespace

Index::Index(const std::string &path) : Index(TensorFile(path, VTR_INDEX_ERROR), path) {}

Index::Index(TensorFile file, const std::string &origin) : file_(std::move(file)) {
  const char *const mend = "; make it with: vtr-runtime index BUNDLE X.parquet -o X.vtri";
  const auto &metadata = file_.metadata();
  const auto said = [&](const char *key) { return metadata.count(key) ? metadata.at(key) : std::string(); };
  if (said("schema") != "1" || said("metric") != "cosine" || said("space").empty()) {
    throw Error(VTR_INDEX_ERROR, origin + " is not an index of schema 1" + mend);
  }
  space_ = said("space");
  const TensorView &vectors = file_.get("embeddings");
  const TensorView &ids = file_.get("ids", "I64");
  const TensorView &names = file_.get("paths", "U8");
  const TensorView &offsets = file_.get("offsets", "I64");
  const TensorView &spans = file_.get("spans", "F64");
  half_ = vectors.dtype == "F16";
  bool sound = (half_ || vectors.dtype == "F32") && vectors.shape.size() == 2 && vectors.shape[1] > 0 &&
               vectors.shape[1] <= kMostDim && names.shape.size() == 1;
  if (sound) {
    rows_ = vectors.shape[0];
    dim_ = vectors.shape[1];
    sound = ids.shape == std::vector<uint64_t>{rows_} && offsets.shape == std::vector<uint64_t>{rows_ + 1} &&
            spans.shape == std::vector<uint64_t>{rows_, 2};
  }
  for (size_t row = 0; sound && row < rows_; ++row) {
    sound = load<int64_t>(offsets.data, row) <= load<int64_t>(offsets.data, row + 1) &&
            (row == 0 || load<int64_t>(ids.data, row - 1) < load<int64_t>(ids.data, row));
  }
  sound = sound && load<int64_t>(offsets.data, 0) == 0 &&
          load<int64_t>(offsets.data, rows_) == static_cast<int64_t>(names.bytes);
  if (sound && file_.has("frame_embeddings")) {
    const TensorView &frames = file_.get("frame_embeddings", "F16");
    sound = frames.shape.size() == 3 && frames.shape[0] == rows_ && frames.shape[2] == dim_;
    if (sound) {
      frames_ = frames.shape[1];
      frame_rows_ = frames.data;
    }
  }
  if (!sound) throw Error(VTR_INDEX_ERROR, origin + ": its tables do not fit together" + mend);
  vectors_ = vectors.data;
  names_ = names.data;
  offsets_ = offsets.data;
  spans_ = spans.data;
}

std::vector<Hit> Index::search(const float *query, size_t k, const Cancel *cancel) const {
  for (size_t i = 0; i < dim_; ++i) {
    if (!std::isfinite(query[i])) {
      throw Error(VTR_INVALID_ARGUMENT, "a query holds what is no finite number; embed it again");
    }
  }
  std::vector<float> wide(dim_);
  // Rows that lie where floats may are read in place.
  const bool in_place = !half_ && reinterpret_cast<uintptr_t>(vectors_) % alignof(float) == 0;
  const auto row_at = [&](size_t row) -> const float * {
    if (in_place) return reinterpret_cast<const float *>(vectors_) + row * dim_;
    if (half_) {
      for (size_t i = 0; i < dim_; ++i) wide[i] = float_of_half(load<uint16_t>(vectors_, row * dim_ + i));
    } else {
      std::memcpy(wide.data(), vectors_ + row * dim_ * sizeof(float), dim_ * sizeof(float));
    }
    return wide.data();
  };
  const auto better = [](const Hit &a, const Hit &b) { return a.score != b.score ? a.score > b.score : a.row < b.row; };
  k = std::min(k, rows_);
  std::vector<Hit> best;
  if (k == 0) return best;
  float least = -std::numeric_limits<float>::infinity();
  const auto prune = [&] {  // keep all that are nearly as good as the k-th
    if (best.size() < k) return;
    std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(k - 1), best.end(), better);
    least = best[k - 1].score - kMargin;
    best.erase(std::remove_if(best.begin(), best.end(), [&](const Hit &hit) { return hit.score < least; }), best.end());
  };
  for (size_t row = 0; row < rows_; ++row) {
    if (row % kBlock == 0) check_cancelled(cancel);
    const float score = rough(row_at(row), query, dim_);
    if (!(score >= least)) continue;
    best.push_back({row, score});
    if (best.size() >= 2 * k + kBlock) prune();
  }
  prune();
  for (Hit &hit : best) hit.score = static_cast<float>(exact(row_at(hit.row), query, dim_));
  std::sort(best.begin(), best.end(), better);
  best.resize(std::min(best.size(), k));
  return best;
}

std::string_view Index::name(size_t row) const {
  const auto begin = static_cast<size_t>(load<int64_t>(offsets_, row));
  const auto end = static_cast<size_t>(load<int64_t>(offsets_, row + 1));
  return {reinterpret_cast<const char *>(names_) + begin, end - begin};
}

double Index::start(size_t row) const { return load<double>(spans_, 2 * row); }
double Index::end(size_t row) const { return load<double>(spans_, 2 * row + 1); }

bool Index::frame_embeddings(size_t row, size_t frames, float *out) const {
  if (frame_rows_ == nullptr || frames != frames_) return false;
  const size_t count = frames_ * dim_;
  for (size_t i = 0; i < count; ++i) out[i] = float_of_half(load<uint16_t>(frame_rows_, row * count + i));
  return true;
}

}  // namespace vtr::internal
