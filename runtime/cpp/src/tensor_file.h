// Safetensors files, mapped and checked: every tensor lies inside the file, aligned or not, and fills its shape.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "files.h"

namespace vtr::internal {

struct TensorView {
  std::string dtype;  // "F32", "F16", "F64", "I32", "I64", "U8", "BOOL"
  std::vector<uint64_t> shape;
  const uint8_t *data = nullptr;
  size_t bytes = 0;

  uint64_t elements() const;
};

class TensorFile {
 public:
  // Error(code) for what is no whole safetensors file.
  TensorFile(const std::string &path, vtr_code code);

  bool has(const std::string &name) const { return tensors_.count(name) != 0; }
  // Error where the file has no such tensor or it is of another type.
  const TensorView &get(const std::string &name, const std::string &dtype) const;
  const TensorView &get(const std::string &name) const;
  const std::map<std::string, TensorView> &all() const { return tensors_; }
  const std::map<std::string, std::string> &metadata() const { return metadata_; }

 private:
  std::string path_;
  vtr_code code_;
  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace vtr::internal
