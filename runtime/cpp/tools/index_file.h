// Embeddings with what they are of, written as a .vtri file (docs/search.md, "The file").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vtr::tools {

struct IndexRows {
  bool sentences = false;          // what `names` are: sentences, or files
  std::vector<std::string> names;  // one a row
  std::vector<float> embeddings;   // [rows, dim]
  std::vector<int64_t> sizes;      // bytes of the file, -1: not known
  std::vector<int64_t> mtimes;     // its time in nanoseconds, -1: not known
};

// Written beside `path` and renamed. vtr::Error where the disk refuses.
void write_index(const std::string &path, const std::string &space, size_t dim, const IndexRows &rows);

}  // namespace vtr::tools
