#include "tensor_file.h"

#include <nlohmann/json.hpp>

namespace vtr::internal {
namespace {

using Json = nlohmann::json;

// As the safetensors library: a longer header is refused.
constexpr uint64_t kMostHeaderBytes = 100'000'000;

size_t size_of(const std::string &dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "U8" || dtype == "I8" || dtype == "BOOL") return 1;
  return 0;
}

}  // namespace

uint64_t TensorView::elements() const {
  uint64_t count = 1;
  for (const uint64_t axis : shape) count *= axis;
  return count;
}

TensorFile::TensorFile(const std::string &path, vtr_code code) : path_(path), code_(code), file_(path, code) {
  const auto refuse = [&](const std::string &why) -> void {
    throw Error(code_, path_ + " is not a whole safetensors file (" + why + "); write or copy it again");
  };
  if (file_.size() < 8) refuse("it is too short");
  uint64_t length = 0;
  for (int byte = 7; byte >= 0; --byte) length = length << 8 | file_.data()[byte];
  if (length > kMostHeaderBytes || length > file_.size() - 8) refuse("its header is longer than the file");
  const char *text = reinterpret_cast<const char *>(file_.data() + 8);
  const Json header = Json::parse(text, text + length, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) refuse("its header is not JSON");
  const uint64_t body = file_.size() - 8 - length;
  for (const auto &[name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) refuse("its metadata is malformed");
      for (const auto &[key, value] : entry.items()) {
        if (!value.is_string()) refuse("its metadata is malformed");
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    TensorView view;
    const auto whole = [](const Json &value) { return value.is_number_unsigned(); };
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
        !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
        entry["data_offsets"].size() != 2 || !whole(entry["data_offsets"][0]) || !whole(entry["data_offsets"][1])) {
      refuse("tensor " + name + " is malformed");
    }
    view.dtype = entry["dtype"].get<std::string>();
    uint64_t bytes = size_of(view.dtype);
    if (bytes == 0) refuse("tensor " + name + " is of type " + view.dtype);
    for (const Json &axis : entry["shape"]) {
      if (!whole(axis)) refuse("tensor " + name + " is malformed");
      view.shape.push_back(axis.get<uint64_t>());
      if (__builtin_mul_overflow(bytes, view.shape.back(), &bytes)) refuse("tensor " + name + " is too large");
    }
    const uint64_t begin = entry["data_offsets"][0].get<uint64_t>(), end = entry["data_offsets"][1].get<uint64_t>();
    if (begin > end || end > body || end - begin != bytes) refuse("tensor " + name + " does not fill its place");
    view.data = file_.data() + 8 + length + begin;
    view.bytes = bytes;
    tensors_[name] = std::move(view);
  }
}

const TensorView &TensorFile::get(const std::string &name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw Error(code_, path_ + " holds no tensor " + name + "; write or copy it again");
  return found->second;
}

const TensorView &TensorFile::get(const std::string &name, const std::string &dtype) const {
  const TensorView &view = get(name);
  if (view.dtype != dtype) {
    throw Error(code_, path_ + ": tensor " + name + " is of type " + view.dtype + ", not " + dtype +
                           "; write or copy it again");
  }
  return view;
}

}  // namespace vtr::internal
