#include "index_file.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "files.h"

namespace vtr::tools {
namespace {

struct Table {
  const char *name, *dtype;
  std::vector<uint64_t> shape;
  const void *data;
  size_t bytes;
};

}  // namespace

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
  // Wide types first, so that each table lies where its type may.
  const Table tables[] = {
      {"ids", "I64", {count}, ids.data(), count * 8},
      {"offsets", "I64", {count + 1}, offsets.data(), offsets.size() * 8},
      {"sizes", "I64", {count}, rows.sizes.data(), count * 8},
      {"mtimes", "I64", {count}, rows.mtimes.data(), count * 8},
      {"spans", "F64", {count, 2}, spans.data(), spans.size() * 8},
      {"embeddings", "F32", {count, dim}, rows.embeddings.data(), rows.embeddings.size() * 4},
      {"digest", "U8", {32}, digest, 32},
      {"paths", "U8", {names.size()}, names.data(), names.size()},
  };
  nlohmann::json header;
  header["__metadata__"] = {{"schema", "1"},
                            {"space", space},
                            {"metric", "cosine"},
                            {"count", std::to_string(count)},
                            {"kind", rows.sentences ? "text" : "video"},
                            {"next_id", std::to_string(count)}};
  size_t begin = 0;
  for (const Table &table : tables) {
    header[table.name] = {
        {"dtype", table.dtype}, {"shape", table.shape}, {"data_offsets", {begin, begin + table.bytes}}};
    begin += table.bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::string draft = path + ".part";
  std::ofstream file(draft, std::ios::binary | std::ios::trunc);
  for (int byte = 0; byte < 8; ++byte) file.put(static_cast<char>(text.size() >> 8 * byte & 255));
  file << text;
  for (const Table &table : tables) {
    file.write(static_cast<const char *>(table.data), static_cast<std::streamsize>(table.bytes));
  }
  file.close();
  if (!file || std::rename(draft.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(draft.c_str());
    throw internal::Error(VTR_INDEX_ERROR, path + " cannot be written (" + reason + "); give another place with -o");
  }
}

}  // namespace vtr::tools
