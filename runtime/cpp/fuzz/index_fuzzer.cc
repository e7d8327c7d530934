// Any bytes as a .vtri: refused by an Error, or searched, its names and its frames' embeddings read.
#include <cstdlib>
#include <vector>

#include "index.h"

namespace {

// What a caller would ask of a file that was taken.
void use(const vtr::internal::Index &index) {
  std::vector<float> query(index.dim(), 0.5F);
  const auto hits = index.search(query.data(), 5, nullptr);
  if (hits.size() > 5 || hits.size() > index.rows()) std::abort();
  for (size_t i = 1; i < hits.size(); ++i) {
    if (hits[i].score > hits[i - 1].score) std::abort();
  }
  size_t letters = 0;
  volatile double seconds = 0;
  for (size_t row = 0; row < index.rows(); ++row) {
    for (const char letter : index.name(row)) letters += letter == '/';
    seconds = index.start(row) + index.end(row);
  }
  static_cast<void>(letters);
  static_cast<void>(seconds);
  if (index.rows() == 0) return;
  std::vector<float> frames(12 * index.dim());
  index.frame_embeddings(index.rows() - 1, 12, frames.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try {
    use(vtr::internal::Index(vtr::internal::TensorFile(data, size, "a file", VTR_INDEX_ERROR), "a file"));
  } catch (const vtr::internal::Error &error) {
    if (error.code() != VTR_INDEX_ERROR) std::abort();
  }
  return 0;
}
