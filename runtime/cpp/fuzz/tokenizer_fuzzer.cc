// Any bytes as a tokenizer.json: read, or refused by an Error; what was read encodes.
#include <cstdlib>

#include "tokenizer.h"
#include "tokenizer_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::string json(reinterpret_cast<const char *>(data), size);
  try {
    const vtr::internal::TokenizerFile file = vtr::internal::parse_tokenizer(json, "a file");
    const auto entries = static_cast<int32_t>(file.vocabulary.size());
    const vtr::internal::TextSpec spec{16, entries, file.start_id, file.end_id};
    const vtr::internal::Tokenizer tokenizer = vtr::internal::Tokenizer::parse(json, spec, "a file");
    int32_t ids[16];
    tokenizer.encode("A dog &amp; <end_of_text>!", ids);
    vtr::internal::validate_ids(ids, 1, 16, spec);
  } catch (const vtr::internal::Error &error) {
    if (error.code() != VTR_BUNDLE_ERROR && error.code() != VTR_UNAVAILABLE) std::abort();
  }
  return 0;
}
