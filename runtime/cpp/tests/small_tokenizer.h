// A tokenizer.json of all bytes and a few merges, for tests and fuzzers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bundle.h"
#include "unicode.h"

namespace vtr::internal {

inline nlohmann::json small_tokenizer() {
  using Json = nlohmann::json;
  const char *const pattern =
      "<[s\u017F]tart_of_text>|<end_of_text>|'[s\u017F]|'re|[\\x{41}-\\x{5A}\\x{61}-\\x{7A}\\x{AA}-\\x{2FFF}]+|"
      "[\\x{30}-\\x{39}]|[\\x{21}-\\x{2F}\\x{3A}-\\x{40}\\x{5B}-\\x{60}\\x{7B}-\\x{A9}\\x{3000}-\\x{10FFFF}]+";
  Json vocabulary = Json::object(), merges = Json::array(), added = Json::array();
  const auto add = [&](const std::string &token) { vocabulary.emplace(token, vocabulary.size()); };
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    std::string letter;
    append_utf8(visible ? byte : next++, letter);
    add(letter);
    add(letter + "</w>");
  }
  const std::pair<const char *, const char *> pairs[] = {{"a", "a"}, {"aa", "a"},     {"t", "h"},   {"th", "e</w>"},
                                                         {"a", "m"}, {"am", "p</w>"}, {"aa", "aa"}, {"a", "aa"}};
  for (const auto &[first, second] : pairs) {
    merges.push_back(Json::array({first, second}));
    add(std::string(first) + second);
  }
  for (const char *literal : {"<start_of_text>", "<end_of_text>"}) {
    add(literal);
    added.push_back({{"id", vocabulary.size() - 1}, {"content", literal}});
  }
  const Json split = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Removed"}, {"invert", true}};
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {
      {"normalizer", nullptr},
      {"post_processor", nullptr},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}, {"end_of_word_suffix", "</w>"}}},
  };
}

inline TextSpec small_spec(size_t context_length) {
  const auto size = static_cast<int32_t>(small_tokenizer()["model"]["vocab"].size());
  return {context_length, size, size - 2, size - 1};
}

}  // namespace vtr::internal
