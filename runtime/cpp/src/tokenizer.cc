#include "tokenizer.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "text_cleaning.h"
#include "tokenizer_file.h"
#include "unicode.h"

namespace vtr::internal {
namespace {

const std::u32string_view kStart = U"<start_of_text>", kEnd = U"<end_of_text>";

// Where the next special token stands, and which; `npos` where there is none.
std::pair<size_t, bool> find_special(std::u32string_view text, size_t at) {
  for (at = text.find('<', at); at != text.npos; at = text.find('<', at + 1)) {
    if (text.substr(at, kStart.size()) == kStart) return {at, true};
    if (text.substr(at, kEnd.size()) == kEnd) return {at, false};
  }
  return {text.npos, false};
}

}  // namespace

Tokenizer::Tokenizer(const std::string &path, const TextSpec &spec) : Tokenizer(read_tokenizer(path), spec, path) {}

Tokenizer Tokenizer::parse(const std::string &json, const TextSpec &spec, const std::string &origin) {
  return Tokenizer(parse_tokenizer(json, origin), spec, origin);
}

Tokenizer::Tokenizer(const TokenizerFile &file, const TextSpec &spec, const std::string &origin)
    : spec_(spec), pattern_(file.pattern, origin), bpe_(file.vocabulary, file.merges, file.end_of_word, origin) {
  const auto described = [](const TextSpec &text) {
    return "(" + std::to_string(text.start_id) + ", " + std::to_string(text.end_id) + ", " +
           std::to_string(text.vocab_size) + ")";
  };
  TextSpec found = spec;
  found.start_id = file.start_id;
  found.end_id = file.end_id;
  found.vocab_size = static_cast<int32_t>(file.vocabulary.size());
  if (described(found) != described(spec)) {
    throw Error(VTR_BUNDLE_ERROR, origin + " has start id, end id and vocabulary size " + described(found) +
                                      ", the manifest says " + described(spec) + "; export the bundle again");
  }
  if (spec.context_length < 3) {
    throw Error(VTR_BUNDLE_ERROR, origin + ": a context of " + std::to_string(spec.context_length) +
                                      " ids holds no word; export the bundle again");
  }
}

void Tokenizer::encode(std::string_view utf8, int32_t *ids) const {
  const std::u32string cleaned = clean(utf8);
  const size_t most = spec_.context_length - 2;
  std::vector<int32_t> words;
  // What lies behind the cut need not be encoded.
  const auto each_word = [&](std::u32string_view text, auto &&take) {
    for (auto [first, end] = pattern_.find(text, 0); first < end && words.size() < most;
         std::tie(first, end) = pattern_.find(text, end)) {
      take(text.substr(first, end - first));
    }
  };
  Bpe::Work work;
  std::string bytes;
  const auto encode_word = [&](std::u32string_view word) {
    bytes.clear();
    for (const char32_t character : word) append_utf8(character, bytes);
    bpe_.encode(bytes, work, words);
  };
  if (find_special(cleaned, 0).first == cleaned.npos) {
    each_word(cleaned, encode_word);
  } else {
    // A special token is one only where a word can begin, not in "!<end_of_text>": open_clip's rule, see text.py.
    each_word(cleaned, [&](std::u32string_view word) {
      size_t at = 0;
      for (auto [place, start] = find_special(word, 0); place != word.npos;
           std::tie(place, start) = find_special(word, at)) {
        each_word(word.substr(at, place - at), encode_word);
        words.push_back(start ? spec_.start_id : spec_.end_id);
        at = place + (start ? kStart : kEnd).size();
      }
      each_word(word.substr(at), encode_word);
    });
  }
  words.resize(std::min(words.size(), most));
  std::fill_n(ids, spec_.context_length, 0);
  *ids++ = spec_.start_id;
  ids = std::copy(words.begin(), words.end(), ids);
  *ids = spec_.end_id;
}

void Tokenizer::encode(const vtr_string *texts, size_t count, int32_t *ids) const {
  for (size_t number = 0; number < count; ++number) {
    try {
      encode(std::string_view(texts[number].data, texts[number].size), ids + number * spec_.context_length);
    } catch (const Error &error) {
      throw Error(error.code(), "caption " + std::to_string(number) + ": " + error.what());
    }
  }
}

void validate_ids(const int32_t *ids, size_t rows, size_t length, const TextSpec &spec) {
  if (length < 2 || length > spec.context_length) {
    throw Error(VTR_TEXT_ERROR, "ids have shape [" + std::to_string(rows) + ", " + std::to_string(length) +
                                    "]; what fits is [N, L] with L from 2 to " + std::to_string(spec.context_length));
  }
  const int32_t *const end = ids + rows * length;
  const int32_t *const outside = std::find_if(ids, end, [&](int32_t id) { return id < 0 || id >= spec.vocab_size; });
  if (outside != end) {
    throw Error(VTR_TEXT_ERROR, "row " + std::to_string((outside - ids) / length) + " of the ids holds " +
                                    std::to_string(*outside) + ", outside 0.." + std::to_string(spec.vocab_size - 1) +
                                    "; make ids with the bundle's tokenizer");
  }
  for (size_t row = 0; row < rows; ++row) {
    const int32_t *const first = ids + row * length;
    if (std::find(first, first + length, spec.end_id) == first + length) {
      throw Error(VTR_TEXT_ERROR, "row " + std::to_string(row) + " of the ids has no end id " +
                                      std::to_string(spec.end_id) + "; make ids with the bundle's tokenizer");
    }
  }
}

}  // namespace vtr::internal
