#include "tokenizer_file.h"

#include <nlohmann/json.hpp>

#include "files.h"
#include "unicode.h"

namespace vtr::internal {
namespace {

using Json = nlohmann::json;

// Ten times CLIP's; a larger file is refused before it is read.
constexpr size_t kMostBytes = 16 << 20;

class Reader {
 public:
  explicit Reader(const std::string &origin) : origin_(origin) {}

  TokenizerFile read(const Json &root) const {
    for (const char *absent : {"normalizer", "post_processor", "truncation", "padding"}) {
      if (!at(root, absent).is_null()) unavailable(absent);
    }
    TokenizerFile found;
    found.pattern = pattern(at(root, "pre_tokenizer"));
    const Json &model = at(root, "model");
    only(model, "type", "BPE");
    for (const char *absent : {"dropout", "unk_token", "continuing_subword_prefix"}) only(model, absent, nullptr);
    for (const char *absent : {"byte_fallback", "ignore_merges"}) only(model, absent, false);
    found.vocabulary = vocabulary(at(model, "vocab"));
    found.merges = merges(at(model, "merges"));
    found.end_of_word = text(at(model, "end_of_word_suffix"));
    found.start_id = special(at(root, "added_tokens"), "<start_of_text>", found.vocabulary);
    found.end_id = special(at(root, "added_tokens"), "<end_of_text>", found.vocabulary);
    if (root["added_tokens"].size() != 2) unavailable("a third added token");
    return found;
  }
  [[noreturn]] void damaged(const std::string &why) const {
    throw Error(VTR_BUNDLE_ERROR, origin_ + " is not a readable tokenizer (" + why + "); export the bundle again");
  }

 private:
  [[noreturn]] void unavailable(const std::string &what) const {
    throw Error(VTR_UNAVAILABLE, origin_ + " has " + what +
                                     ", and this library does only what vtr-export writes; use the Python runtime, or "
                                     "a newer version of this one");
  }
  const Json &at(const Json &object, const char *key) const {
    if (!object.is_object() || !object.contains(key)) damaged(std::string("'") + key + "' is missing");
    return object[key];
  }
  // A part that must have one value; a missing one counts as null.
  void only(const Json &object, const char *key, const Json &expected) const {
    if (!object.is_object()) damaged("an object with '" + std::string(key) + "' is due");
    if (!object.contains(key)) {
      if (!expected.is_null() && expected != false) damaged(std::string("'") + key + "' is missing");
      return;
    }
    const Json &found = object[key];
    if (found == expected || (found.is_null() && expected == false)) return;
    // Only what holds nothing is spelled out: nlohmann prints nested values by recursion, however deep.
    unavailable(std::string(key) + " " +
                (found.is_structured() ? std::string("of type ") + found.type_name()
                                       : found.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 40)));
  }
  std::string text(const Json &value) const {
    if (!value.is_string()) damaged("a string is due, not " + std::string(value.type_name()));
    return value.get<std::string>();
  }

  std::u32string pattern(const Json &sequence) const {
    only(sequence, "type", "Sequence");
    const Json &parts = at(sequence, "pretokenizers");
    if (!parts.is_array() || parts.size() != 2) unavailable("another number of pre-tokenizers than two");
    only(parts[0], "type", "Split");
    only(parts[0], "behavior", "Removed");
    only(parts[0], "invert", true);
    only(parts[1], "type", "ByteLevel");
    only(parts[1], "add_prefix_space", false);
    only(parts[1], "use_regex", false);
    const Json &wanted = at(parts[0], "pattern");
    if (!wanted.is_object() || !wanted.contains("Regex")) unavailable("a pattern that is no regular expression");
    return from_utf8(text(wanted["Regex"]));
  }
  Vocabulary vocabulary(const Json &entries) const {
    if (!entries.is_object()) damaged("its vocabulary is no object");
    Vocabulary found;
    found.reserve(entries.size());
    std::vector<bool> taken(entries.size());
    for (const auto &[token, id] : entries.items()) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= taken.size() || taken[id.get<size_t>()]) {
        damaged("the id of '" + token + "' is none of its own in 0.." + std::to_string(taken.size() - 1));
      }
      taken[id.get<size_t>()] = true;
      found.emplace(token, id.get<int32_t>());
    }
    return found;
  }
  Merges merges(const Json &entries) const {
    if (!entries.is_array()) damaged("its merges are no list");
    Merges found;
    found.reserve(entries.size());
    for (const Json &entry : entries) {
      if (!entry.is_array() || entry.size() != 2) damaged("a merge is no pair of strings");
      found.emplace_back(text(entry[0]), text(entry[1]));
    }
    return found;
  }
  int32_t special(const Json &entries, const std::string &literal, const Vocabulary &vocabulary) const {
    if (!entries.is_array()) damaged("its added tokens are no list");
    for (const Json &entry : entries) {
      if (at(entry, "content") != literal) continue;
      for (const char *flag : {"single_word", "lstrip", "rstrip", "normalized"}) only(entry, flag, false);
      const auto known = vocabulary.find(literal);
      if (known == vocabulary.end() || at(entry, "id") != known->second)
        damaged("the id of " + literal + " is another");
      return known->second;
    }
    damaged("it lacks the added token " + literal);
  }

  const std::string &origin_;
};

}  // namespace

TokenizerFile parse_tokenizer(const std::string &json, const std::string &origin) {
  const Reader reader(origin);
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) reader.damaged("it is not JSON");
  return reader.read(root);
}

TokenizerFile read_tokenizer(const std::string &path) {
  return parse_tokenizer(read_file(path, kMostBytes, VTR_BUNDLE_ERROR), path);
}

}  // namespace vtr::internal
