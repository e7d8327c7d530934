// A .vtri file, searched exactly. Rows are read from disk as a search passes over them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cancel.h"
#include "tensor_file.h"

namespace vtr::internal {

struct Hit {
  size_t row;
  float score;
};

class Index {
 public:
  // Error(VTR_INDEX_ERROR) for a damaged or foreign file.
  explicit Index(const std::string &path);
  // The same of a file that is open; `origin` is named in messages.
  Index(TensorFile file, const std::string &origin);

  size_t rows() const { return rows_; }
  size_t dim() const { return dim_; }
  const std::string &space() const { return space_; }
  // The k best rows of a query float [dim], best first, equal scores in the order of the rows.
  std::vector<Hit> search(const float *query, size_t k, const Cancel *cancel) const;
  std::string_view name(size_t row) const;
  double start(size_t row) const;
  double end(size_t row) const;
  // float [T, dim] of a row, zero where masked; false where the index keeps none.
  bool frame_embeddings(size_t row, size_t frames, float *out) const;

 private:
  TensorFile file_;
  std::string space_;
  size_t rows_ = 0, dim_ = 0, frames_ = 0;
  bool half_ = false;
  const uint8_t *vectors_ = nullptr, *names_ = nullptr, *offsets_ = nullptr, *spans_ = nullptr, *frame_rows_ = nullptr;
};

}  // namespace vtr::internal
