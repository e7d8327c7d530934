// Any bytes as a caption: cleaned and tokenized, or refused by an Error; ids are valid, the cleaned text is one line.
//
//   VTR_FUZZ_TOKENIZER=BUNDLE/tokenizer.json text_fuzzer corpus/text
//
// Without that variable a tokenizer of bytes and a few merges is built here.
#include <cstdlib>

#include "small_tokenizer.h"
#include "text_cleaning.h"
#include "tokenizer.h"
#include "unicode.h"

namespace {

constexpr size_t kContext = 16;

const vtr::internal::Tokenizer &tokenizer() {
  static const vtr::internal::Tokenizer made = [] {
    const char *path = std::getenv("VTR_FUZZ_TOKENIZER");
    return path != nullptr ? vtr::internal::Tokenizer(path, {kContext, 49408, 49406, 49407})
                           : vtr::internal::Tokenizer::parse(vtr::internal::small_tokenizer().dump(),
                                                             vtr::internal::small_spec(kContext), "small");
  }();
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::string_view text(reinterpret_cast<const char *>(data), size);
  try {
    int32_t ids[kContext];
    tokenizer().encode(text, ids);
    vtr::internal::validate_ids(ids, 1, kContext, tokenizer().spec());
    const std::u32string cleaned = vtr::internal::clean(text);
    if (cleaned.find(U'\n') != cleaned.npos || cleaned != vtr::internal::from_utf8(vtr::internal::to_utf8(cleaned)))
      std::abort();
  } catch (const vtr::internal::Error &error) {
    if (error.code() != VTR_TEXT_ERROR) std::abort();
  }
  return 0;
}
