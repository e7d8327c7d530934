#include "text_cleaning.h"

#include <algorithm>

#include "html_entities.h"
#include "status.h"
#include "unicode.h"

namespace vtr::internal {
namespace {

// As vtr_runtime/text.py: MAX_CHARACTERS, MAX_ROUNDS.
constexpr size_t kMostCharacters = 1'000'000;
constexpr int kMostRounds = 32;
constexpr char32_t kEscape = 0x1B;

std::string with_commas(size_t number) {
  std::string digits = std::to_string(number);
  for (size_t left = digits.size(); left > 3;) digits.insert(left -= 3, ",");
  return digits;
}

// ftfy's fixers of C1 controls, ligatures, widths, quotes and line breaks: one table and the break of two characters.
std::u32string fix_characters(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\r') {
      if (at + 1 == text.size() || text[at + 1] != '\n') out += '\n';
    } else if (const uint16_t place = properties(text[at]).fixed) {
      out += stored_string(place);
    } else {
      out += text[at];
    }
  }
  return out;
}

// The place behind a terminal's escape sequence, "\x1b[31;1m", at `at`; `at` itself where there is none.
size_t skip_escape(std::u32string_view text, size_t at) {
  if (text[at] != kEscape || at + 1 == text.size() || text[at + 1] != '[') return at;
  size_t end = at + 2;
  while (end < text.size() && (text[end] == ';' || has(text[end], kDecimal))) ++end;
  const char32_t letter = end < text.size() ? text[end] | 0x20 : 0;
  return letter >= 'a' && letter <= 'z' ? end + 1 : at;
}

std::u32string remove_escapes_and_controls(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (const size_t end = skip_escape(text, at); end != at) {
      at = end;
    } else if (has(text[at], kRemoved)) {
      ++at;
    } else {
      out += text[at++];
    }
  }
  return out;
}

void fix_until_stable(std::u32string_view line, bool entities, std::u32string &out) {
  if (std::all_of(line.begin(), line.end(), [](char32_t character) { return has(character, kSettled); })) {
    out += line;
    return;
  }
  std::u32string text(line);
  for (int round = 0; round < kMostRounds; ++round) {
    std::u32string next = fix_characters(entities ? unescape_whole_entities(text) : text);
    next = normalize_nfc(remove_escapes_and_controls(next));
    if (next == text) {
      out += text;
      return;
    }
    text = std::move(next);
  }
  throw Error(VTR_TEXT_ERROR, "the caption still changes after " + std::to_string(kMostRounds) +
                                  " rounds of cleaning, its HTML entities are nested that deep; unescape them first");
}

// ftfy works line by line and takes text for HTML, whose entities stay, from the first line on that holds a "<".
std::u32string fix_lines(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  bool entities = true;
  for (size_t first = 0, end = 0; first < text.size(); first = end) {
    end = std::min(text.find('\n', first), text.size() - 1) + 1;
    const std::u32string_view line = text.substr(first, end - first);
    entities = entities && line.find('<') == line.npos;
    fix_until_stable(line, entities, out);
  }
  return out;
}

std::u32string collapse_white_space(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  bool between = false;
  for (const char32_t character : text) {
    if (has(character, kWhite)) {
      between = !out.empty();
      continue;
    }
    if (between) out += ' ';
    between = false;
    out += character;
  }
  return out;
}

}  // namespace

std::u32string clean(std::string_view utf8) {
  if (utf8.size() > kMostCharacters) {
    if (const size_t count = count_characters(utf8); count > kMostCharacters) {
      throw Error(VTR_TEXT_ERROR, "a caption of " + with_commas(count) + " characters is too long; cut it to at most " +
                                      with_commas(kMostCharacters));
    }
  }
  std::u32string text = fix_lines(from_utf8(utf8));
  for (int time = 0; time < 2; ++time) {
    if (text.find('&') == text.npos) break;
    text = unescape_html(text);
  }
  return lower_case(collapse_white_space(text));
}

}  // namespace vtr::internal
