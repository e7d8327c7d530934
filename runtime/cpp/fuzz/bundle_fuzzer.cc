// Any bytes as a manifest.json and as a safetensors file: read, or refused by an Error.
#include <cstdlib>

#include "bundle.h"
#include "tensor_file.h"

namespace {

void read_manifest(const std::string &json) {
  try {
    const vtr::internal::Manifest found = vtr::internal::parse_manifest(json, "a manifest");
    if (found.dim == 0 || found.frames.count == 0 || found.text.start_id >= found.text.vocab_size) std::abort();
  } catch (const vtr::internal::Error &error) {
    if (error.code() != VTR_BUNDLE_ERROR && error.code() != VTR_UNAVAILABLE) std::abort();
  }
}

void read_tensors(const uint8_t *data, size_t size) {
  try {
    const vtr::internal::TensorFile file(data, size, "a file", VTR_BUNDLE_ERROR);
    volatile uint8_t last = 0;
    for (const auto &[name, view] : file.all()) {
      if (view.data < data || view.bytes > static_cast<size_t>(data + size - view.data)) std::abort();
      if (view.elements() > view.bytes) std::abort();
      if (view.bytes != 0) last = view.data[view.bytes - 1];
    }
    static_cast<void>(last);
  } catch (const vtr::internal::Error &error) {
    if (error.code() != VTR_BUNDLE_ERROR) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_manifest(std::string(reinterpret_cast<const char *>(data), size));
  read_tensors(data, size);
  return 0;
}
