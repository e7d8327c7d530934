// Writes safetensors files.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tensor_file.h"

namespace vtr::tools {

// A tensor with its name; `data` of the view is the caller's.
using NamedTensor = std::pair<std::string, internal::TensorView>;

template <typename T>
NamedTensor named(const char *name, const char *dtype, std::vector<uint64_t> shape, const T *data, size_t count) {
  return {name, {dtype, std::move(shape), reinterpret_cast<const uint8_t *>(data), count * sizeof(T)}};
}

// The tensors lie in the file in the order given: wide types first, and each lies where its type may. Written beside
// `path` and renamed; Error(code) where it cannot be written.
void write_tensors(const std::string &path, const std::vector<NamedTensor> &tensors,
                   const std::map<std::string, std::string> &metadata, vtr_code code);

}  // namespace vtr::tools
