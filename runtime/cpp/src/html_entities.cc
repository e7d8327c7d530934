#include "html_entities.h"

#include <algorithm>
#include <cstdint>

#include "tables.h"

namespace vtr::internal {
namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr char32_t kBeyond = 0x110000;       // any number too large for Unicode
constexpr size_t kMostNameCharacters = 32;   // html.unescape's, a semicolon apart
constexpr size_t kMostWholeCharacters = 24;  // ftfy's

// Windows-1252 in place of 0x80..0x9F, as HTML 5 reads these numbers.
constexpr char32_t kWindows1252[32] = {
    0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
    0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
};

bool is_digit(char32_t character) { return character >= '0' && character <= '9'; }
bool is_letter(char32_t character) { return (character | 0x20) >= 'a' && (character | 0x20) <= 'z'; }

// The value of a hexadecimal digit, 16 for another character.
unsigned digit_value(char32_t character) {
  if (is_digit(character)) return character - '0';
  const char32_t small = character | 0x20;
  return small >= 'a' && small <= 'f' ? small - 'a' + 10 : 16;
}

const Entity *find_entity(std::string_view name) {
  const auto name_of = [](const Entity &entity) {
    return std::string_view(kEntityNames + entity.offset, entity.length);
  };
  const Entity *const end = kEntities + kEntityCount;
  const Entity *found = std::lower_bound(
      kEntities, end, name, [&](const Entity &entity, std::string_view key) { return name_of(entity) < key; });
  return found != end && name_of(*found) == name ? found : nullptr;
}

void append(const Entity &entity, std::u32string &out) {
  for (const char32_t character : entity.text) {
    if (character != 0) out += character;
  }
}

// A number behind "&#": its value, at most kBeyond, and the place behind its digits; `at` itself where it has none.
size_t read_number(std::u32string_view text, size_t at, char32_t &number) {
  const bool hexadecimal = at < text.size() && (text[at] | 0x20) == 'x';
  const unsigned base = hexadecimal ? 16 : 10;
  const size_t first = at + (hexadecimal ? 1 : 0);
  size_t place = first;
  number = 0;
  for (; place < text.size() && digit_value(text[place]) < base; ++place) {
    number = std::min<char32_t>(number * base + digit_value(text[place]), kBeyond);
  }
  return place == first ? at : place;
}

void append_number(char32_t number, std::u32string &out) {
  if (number == 0) {
    out += kReplacement;
  } else if (number == '\r') {
    out += number;
  } else if (number >= 0x80 && number < 0xA0) {
    out += kWindows1252[number - 0x80];
  } else if ((number >= 0xD800 && number < 0xE000) || number >= kBeyond) {
    out += kReplacement;
  } else {
    const bool control = number < 0x20 && number != '\t' && number != '\n' && number != '\f';
    const bool none = (number >= 0xFDD0 && number < 0xFDF0) || (number & 0xFFFE) == 0xFFFE;
    if (!control && !none && number != 0x7F) out += number;
  }
}

// The reference at `at`, which is an ampersand; false where there is none.
bool unescape_one(std::u32string_view text, size_t &at, std::u32string &out) {
  const size_t first = at + 1;
  if (first < text.size() && text[first] == '#') {
    char32_t number = 0;
    const size_t end = read_number(text, first + 1, number);
    if (end == first + 1) return false;
    append_number(number, out);
    at = end + (end < text.size() && text[end] == ';' ? 1 : 0);
    return true;
  }
  std::string name;
  size_t end = first;
  for (; end < text.size() && end - first < kMostNameCharacters; ++end) {
    const char32_t character = text[end];
    if (character >= 0x80 || !(is_digit(character) || is_letter(character))) break;  // no name has another
    name += static_cast<char>(character);
  }
  if (end < text.size() && text[end] == ';') name += ';';
  for (; name.size() >= 2; name.pop_back()) {
    const Entity *entity = name.size() <= kLongestEntity ? find_entity(name) : nullptr;
    if (entity == nullptr || !entity->html5) continue;
    append(*entity, out);
    at = first + name.size();
    return true;
  }
  return false;
}

bool unescape_whole(std::u32string_view text, size_t &at, std::u32string &out) {
  const size_t first = at + 1;
  const bool numeric = first < text.size() && text[first] == '#';
  const size_t start = first + (numeric ? 1 : 0);
  std::string name;
  size_t end = start;
  while (end < text.size() && end - start <= kMostWholeCharacters && (is_digit(text[end]) || is_letter(text[end]))) {
    name += static_cast<char>(text[end++]);
  }
  if (name.empty() || name.size() > kMostWholeCharacters || end == text.size() || text[end] != ';') return false;
  if (numeric) {
    char32_t number = 0;
    if (read_number(text, start, number) != end || number == ';') return false;
    append_number(number, out);
  } else {
    const Entity *entity = find_entity(name + ';');
    if (entity == nullptr) return false;
    append(*entity, out);
  }
  at = end + 1;
  return true;
}

template <typename Unescape>
std::u32string unescaped(std::u32string_view text, Unescape unescape) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '&' || !unescape(text, at, out)) out += text[at++];
  }
  return out;
}

}  // namespace

std::u32string unescape_html(std::u32string_view text) { return unescaped(text, unescape_one); }

std::u32string unescape_whole_entities(std::u32string_view text) { return unescaped(text, unescape_whole); }

}  // namespace vtr::internal
