// A tensor of any type that golden vectors hold, with its values as double.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine.h"
#include "tensor_file.h"

namespace vtr::tools {

class Array {
 public:
  Array() = default;
  Array(std::string dtype, std::vector<uint64_t> shape, std::vector<uint8_t> bytes);
  static Array of(const internal::TensorView &view);
  static Array of(const internal::Output &output);
  template <typename T>
  static Array of(const char *dtype, std::vector<uint64_t> shape, const std::vector<T> &values) {
    const auto *begin = reinterpret_cast<const uint8_t *>(values.data());
    return Array(dtype, std::move(shape), std::vector<uint8_t>(begin, begin + values.size() * sizeof(T)));
  }

  const std::string &dtype() const { return dtype_; }
  const std::vector<uint64_t> &shape() const { return shape_; }
  const std::vector<uint8_t> &bytes() const { return bytes_; }
  size_t size() const { return size_; }
  bool floating() const { return dtype_[0] == 'F'; }
  double operator[](size_t index) const;
  // As an input of a graph; vtr::internal::Error where no graph takes the type.
  internal::Tensor tensor(const std::string &name) const;

 private:
  std::string dtype_;
  std::vector<uint64_t> shape_;
  std::vector<uint8_t> bytes_;
  size_t size_ = 0;
};

using Arrays = std::map<std::string, Array>;

// A safetensors file, read whole; and written.
Arrays read_arrays(const std::string &path);
void write_arrays(const std::string &path, const Arrays &arrays);

}  // namespace vtr::tools
