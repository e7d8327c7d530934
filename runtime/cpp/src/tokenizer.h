// Captions to ids, as vtr_runtime/text.py: cleaning, then the BPE of tokenizer.json, then start, end and truncation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "bpe.h"
#include "bundle.h"
#include "word_pattern.h"

namespace vtr::internal {

struct TokenizerFile;

// Safe to share between threads: nothing in it changes.
class Tokenizer {
 public:
  // Error(VTR_BUNDLE_ERROR) where tokenizer.json is absent, damaged, or not what `spec` describes;
  // Error(VTR_UNAVAILABLE) where it holds a part that is not done here.
  Tokenizer(const std::string &path, const TextSpec &spec);
  // From the file's content; `origin` is named in errors.
  static Tokenizer parse(const std::string &json, const TextSpec &spec, const std::string &origin);

  const TextSpec &spec() const { return spec_; }
  // ids [context_length]: start, the caption's ids, end, then zeros; a longer caption is cut, its end kept.
  // Error(VTR_TEXT_ERROR), see `clean`.
  void encode(std::string_view utf8, int32_t *ids) const;
  // ids [count, context_length]; the error names the caption by its number.
  void encode(const vtr_string *texts, size_t count, int32_t *ids) const;

 private:
  Tokenizer(const TokenizerFile &file, const TextSpec &spec, const std::string &origin);

  TextSpec spec_;
  WordPattern pattern_;
  Bpe bpe_;
};

// Error(VTR_TEXT_ERROR) unless ids [rows, length] have length 2..context_length, are each in 0..vocab_size-1, and have
// an end id in each row. Several engines gather zeros for an id outside the vocabulary, without a word.
void validate_ids(const int32_t *ids, size_t rows, size_t length, const TextSpec &spec);

}  // namespace vtr::internal
