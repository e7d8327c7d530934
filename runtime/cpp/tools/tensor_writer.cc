#include "tensor_writer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

namespace vtr::tools {

void write_tensors(const std::string &path, const std::vector<NamedTensor> &tensors,
                   const std::map<std::string, std::string> &metadata, vtr_code code) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  size_t begin = 0;
  for (const auto &[name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, begin + tensor.bytes}}};
    begin += tensor.bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::string draft = path + ".part";
  std::ofstream file(draft, std::ios::binary | std::ios::trunc);
  for (int byte = 0; byte < 8; ++byte) file.put(static_cast<char>(text.size() >> 8 * byte & 255));
  file << text;
  for (const auto &[_, tensor] : tensors) {
    file.write(reinterpret_cast<const char *>(tensor.data), static_cast<std::streamsize>(tensor.bytes));
  }
  file.close();
  if (!file || std::rename(draft.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(draft.c_str());
    throw internal::Error(code, path + " cannot be written (" + reason + "); give another place, or free some space");
  }
}

}  // namespace vtr::tools
