#include "array.h"

#include <cstring>

#include "tensor_writer.h"

namespace vtr::tools {

Array::Array(std::string dtype, std::vector<uint64_t> shape, std::vector<uint8_t> bytes)
    : dtype_(std::move(dtype)), shape_(std::move(shape)), bytes_(std::move(bytes)), size_(1) {
  for (const uint64_t axis : shape_) size_ *= axis;
}

Array Array::of(const internal::TensorView &view) {
  return Array(view.dtype, view.shape, std::vector<uint8_t>(view.data, view.data + view.bytes));
}

Array Array::of(const internal::Output &output) {
  const char *dtype = output.type == internal::ElementType::kFloat   ? "F32"
                      : output.type == internal::ElementType::kInt32 ? "I32"
                      : output.type == internal::ElementType::kBool  ? "BOOL"
                                                                     : "U8";
  return Array(dtype, {output.shape.begin(), output.shape.end()}, output.bytes);
}

double Array::operator[](size_t index) const {
  const auto as = [&](auto kind) {
    decltype(kind) value;
    std::memcpy(&value, bytes_.data() + index * sizeof(value), sizeof(value));
    return static_cast<double>(value);
  };
  if (dtype_ == "F32") return as(float{});
  if (dtype_ == "F64") return as(double{});
  if (dtype_ == "I32") return as(int32_t{});
  if (dtype_ == "I64") return as(int64_t{});
  return as(uint8_t{});
}

internal::Tensor Array::tensor(const std::string &name) const {
  using internal::ElementType;
  ElementType type = ElementType::kFloat;
  if (dtype_ == "U8") {
    type = ElementType::kUint8;
  } else if (dtype_ == "BOOL") {
    type = ElementType::kBool;
  } else if (dtype_ == "I32") {
    type = ElementType::kInt32;
  } else if (dtype_ != "F32") {
    throw internal::Error(VTR_INVALID_ARGUMENT, "tensor " + name + " is of type " + dtype_ + ", which no graph takes");
  }
  return internal::input(name.c_str(), type, bytes_.data(), {shape_.begin(), shape_.end()});
}

Arrays read_arrays(const std::string &path) {
  const internal::TensorFile file(path, VTR_BUNDLE_ERROR);
  Arrays found;
  for (const auto &[name, view] : file.all()) found.emplace(name, Array::of(view));
  return found;
}

void write_arrays(const std::string &path, const Arrays &arrays) {
  std::vector<NamedTensor> tensors;
  for (const auto &[name, array] : arrays) {
    tensors.push_back({name, {array.dtype(), array.shape(), array.bytes().data(), array.bytes().size()}});
  }
  write_tensors(path, tensors, {}, VTR_INTERNAL);
}

}  // namespace vtr::tools
