// Files as a whole: read, mapped, hashed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "status.h"

namespace vtr::internal {

// A regular file mapped read-only. Pages come from disk as they are touched.
class MappedFile {
 public:
  // Error(code) where it is no regular file or cannot be read; an empty file gives size 0.
  MappedFile(const std::string &path, vtr_code code);
  ~MappedFile();
  MappedFile(MappedFile &&other) noexcept;
  MappedFile &operator=(MappedFile &&) = delete;
  const uint8_t *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t *data_ = nullptr;
  size_t size_ = 0;
};

// The bytes of a regular file of at most `most` bytes; Error(code) otherwise.
std::string read_file(const std::string &path, size_t most, vtr_code code);
// Lower-case hexadecimal sha256 of a regular file; Error(code) where it cannot be read.
std::string file_sha256(const std::string &path, vtr_code code);
// sha256 of bytes, 32 bytes into `out`.
void sha256(const void *data, size_t size, uint8_t *out);

}  // namespace vtr::internal
