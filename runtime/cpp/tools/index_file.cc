#include "index_file.h"

#include <limits>
#include <numeric>

#include "files.h"
#include "tensor_writer.h"

namespace vtr::tools {

void write_index(const std::string &path, const std::string &space, size_t dim, const IndexRows &rows) {
  const size_t count = rows.names.size();
  std::vector<int64_t> ids(count), offsets = {0};
  std::iota(ids.begin(), ids.end(), int64_t{0});
  std::string names;
  for (const std::string &name : rows.names) {
    names += name;
    offsets.push_back(static_cast<int64_t>(names.size()));
  }
  const std::vector<double> spans(2 * count, std::numeric_limits<double>::quiet_NaN());
  std::string hashed(reinterpret_cast<const char *>(ids.data()), ids.size() * sizeof(int64_t));
  hashed.append(reinterpret_cast<const char *>(rows.embeddings.data()), rows.embeddings.size() * sizeof(float));
  uint8_t digest[32];
  internal::sha256(hashed.data(), hashed.size(), digest);
  write_tensors(path,
                {
                    named("ids", "I64", {count}, ids.data(), count),
                    named("offsets", "I64", {count + 1}, offsets.data(), offsets.size()),
                    named("sizes", "I64", {count}, rows.sizes.data(), count),
                    named("mtimes", "I64", {count}, rows.mtimes.data(), count),
                    named("spans", "F64", {count, 2}, spans.data(), spans.size()),
                    named("embeddings", "F32", {count, dim}, rows.embeddings.data(), rows.embeddings.size()),
                    named("digest", "U8", {32}, digest, 32),
                    named("paths", "U8", {names.size()}, names.data(), names.size()),
                },
                {
                    {"schema", "1"},
                    {"space", space},
                    {"metric", "cosine"},
                    {"count", std::to_string(count)},
                    {"kind", rows.sentences ? "text" : "video"},
                    {"next_id", std::to_string(count)},
                },
                VTR_INDEX_ERROR);
}

}  // namespace vtr::tools
