#include "word_pattern.h"

#include <algorithm>

#include "status.h"
#include "unicode.h"

namespace vtr::internal {

class WordPattern::Parser {
 public:
  Parser(std::u32string_view pattern, const std::string &origin) : pattern_(pattern), origin_(origin) {}

  std::vector<Alternative> alternatives() {
    std::vector<Alternative> found(1);
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '|') {
        ++at_;
        found.emplace_back();
      } else if (found.back().repeats) {
        refuse();  // what follows a repetition would need backtracking
      } else if (pattern_[at_] == '+' && !found.back().characters.empty()) {
        ++at_;
        found.back().repeats = true;
      } else {
        found.back().characters.push_back(pattern_[at_] == '[' ? members() : single());
      }
      if (found.size() > kMost || found.back().characters.size() > kMost) refuse();
    }
    for (const Alternative &alternative : found) {
      if (alternative.characters.empty()) refuse();
    }
    return found;
  }

 private:
  static constexpr size_t kMost = 64;  // alternatives, and characters of one

  Characters single() {
    Characters found;
    const char32_t character = one(U".^$*+?()[]{}\\");
    found.add(character, character);
    found.finish();
    return found;
  }
  Characters members() {
    Characters found;
    ++at_;
    const size_t start = at_;
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      const char32_t first = member();
      char32_t last = first;
      if (at_ < pattern_.size() && pattern_[at_] == '-') {
        ++at_;
        last = member();
      }
      if (first > last) refuse();
      found.add(first, last);
    }
    if (at_ == pattern_.size() || at_ == start) refuse();
    ++at_;
    found.finish();
    return found;
  }
  char32_t member() {
    if (pattern_.substr(at_, 3) != U"\\x{") return one(U"[]^-&:\\");
    const size_t end = pattern_.find('}', at_);
    if (end == pattern_.npos || end - at_ < 4 || end - at_ > 9) refuse();
    char32_t code = 0;
    for (at_ += 3; at_ < end; ++at_) {
      const char32_t digit = pattern_[at_];
      const bool decimal = digit >= '0' && digit <= '9', letter = digit >= 'A' && digit <= 'F';
      if (!decimal && !letter) refuse();
      code = code << 4 | (decimal ? digit - '0' : digit - 'A' + 10);
    }
    ++at_;
    if (code > 0x10FFFF) refuse();
    return code;
  }
  char32_t one(std::u32string_view special) {
    if (at_ == pattern_.size() || special.find(pattern_[at_]) != special.npos) refuse();
    return pattern_[at_++];
  }
  [[noreturn]] void refuse() const {
    throw Error(VTR_UNAVAILABLE, origin_ + " cuts words by a pattern that this library does not know (at '" +
                                     to_utf8(pattern_.substr(at_, 20)) +
                                     "'); use the Python runtime, or a newer version of this one");
  }

  std::u32string_view pattern_;
  const std::string &origin_;
  size_t at_ = 0;
};

void WordPattern::Characters::finish() {
  std::sort(ranges_.begin(), ranges_.end());
  // Overlapping ranges become one, so that the one before a character decides.
  size_t kept = 0;
  for (const auto &range : ranges_) {
    if (kept > 0 && range.first <= ranges_[kept - 1].second) {
      ranges_[kept - 1].second = std::max(ranges_[kept - 1].second, range.second);
    } else {
      ranges_[kept++] = range;
    }
  }
  ranges_.resize(kept);
  for (const auto &[first, last] : ranges_) {
    for (char32_t character = first; character <= last && character < ascii_.size(); ++character) {
      ascii_[character] = true;
    }
  }
}

bool WordPattern::Characters::holds(char32_t character) const {
  if (character < ascii_.size()) return ascii_[character];
  const auto behind = std::upper_bound(ranges_.begin(), ranges_.end(), character,
                                       [](char32_t key, const auto &range) { return key < range.first; });
  return behind != ranges_.begin() && character <= std::prev(behind)->second;
}

WordPattern::WordPattern(const std::u32string &pattern, const std::string &origin)
    : alternatives_(Parser(pattern, origin).alternatives()) {}

std::pair<size_t, size_t> WordPattern::find(std::u32string_view text, size_t at) const {
  for (; at < text.size(); ++at) {
    for (const Alternative &alternative : alternatives_) {
      const size_t count = alternative.characters.size();
      if (text.size() - at < count) continue;
      size_t matched = 0;
      while (matched < count && alternative.characters[matched].holds(text[at + matched])) ++matched;
      if (matched < count) continue;
      size_t end = at + count;
      while (alternative.repeats && end < text.size() && alternative.characters.back().holds(text[end])) ++end;
      return {at, end};
    }
  }
  return {text.size(), text.size()};
}

}  // namespace vtr::internal
