// tokenizer.json: what vtr_export/tokenizer.py writes by Hugging Face's tokenizers, read and checked.
#pragma once

#include <string>

#include "bpe.h"

namespace vtr::internal {

struct TokenizerFile {
  std::u32string pattern;  // of words
  Vocabulary vocabulary;   // ids 0..size-1, each once
  Merges merges;
  std::string end_of_word;  // "</w>"
  int32_t start_id = 0;
  int32_t end_id = 0;
};

// Error(VTR_BUNDLE_ERROR) for a damaged file, Error(VTR_UNAVAILABLE) for one with parts that are not done here.
TokenizerFile read_tokenizer(const std::string &path);
TokenizerFile parse_tokenizer(const std::string &json, const std::string &origin);

}  // namespace vtr::internal
