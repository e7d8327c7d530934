#include "unicode.h"

#include <algorithm>
#include <cstdio>

#include "status.h"

namespace vtr::internal {
namespace {

constexpr char32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr char32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28, kSyllableCount = 11172;
constexpr char32_t kCapitalSigma = 0x3A3, kSmallSigma = 0x3C3, kFinalSigma = 0x3C2;

[[noreturn]] void not_utf8(std::string_view utf8, size_t at) {
  char byte[8];
  std::snprintf(byte, sizeof(byte), "0x%02X", static_cast<unsigned char>(utf8[at]));
  throw Error(VTR_TEXT_ERROR, "a caption must be UTF-8, and its byte " + std::to_string(at) + " (" + byte +
                                  ") is not; decode or convert it first");
}

// The character at `at`, which moves behind it.
char32_t next_character(std::string_view utf8, size_t &at) {
  const auto byte = [&](size_t place) { return static_cast<unsigned char>(utf8[place]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return utf8[at++];
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || utf8.size() - at < length) not_utf8(utf8, at);
  char32_t character = lead & (0x7F >> length);
  for (size_t place = at + 1; place < at + length; ++place) {
    if ((byte(place) & 0xC0) != 0x80) not_utf8(utf8, at);
    character = character << 6 | (byte(place) & 0x3F);
  }
  const bool overlong = (length == 3 && character < 0x800) || (length == 4 && character < 0x10000);
  if (overlong || (character >= 0xD800 && character < 0xE000) || character > 0x10FFFF) not_utf8(utf8, at);
  at += length;
  return character;
}

std::u32string decomposed(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char32_t character : text) {
    if (const char32_t syllable = character - kSyllables; syllable < kSyllableCount) {
      out += kLeads + syllable / (kVowelCount * kTailCount);
      out += kVowels + syllable / kTailCount % kVowelCount;
      if (syllable % kTailCount != 0) out += kTails + syllable % kTailCount;
    } else if (const uint16_t place = properties(character).decomposed) {
      out += stored_string(place);
    } else {
      out += character;
    }
  }
  return out;
}

void order_marks(std::u32string &text) {
  const auto combining = [](char32_t character) { return properties(character).combining; };
  for (auto run = text.begin(); run != text.end();) {
    run = std::find_if(run, text.end(), combining);
    const auto end = std::find_if_not(run, text.end(), combining);
    std::stable_sort(run, end, [&](char32_t a, char32_t b) { return combining(a) < combining(b); });
    run = end;
  }
}

// The character that NFC puts in place of two, or 0.
char32_t joined(char32_t first, char32_t second) {
  if (!has(second, kSecond)) return 0;
  if (const char32_t lead = first - kLeads, vowel = second - kVowels; lead < kLeadCount && vowel < kVowelCount) {
    return kSyllables + (lead * kVowelCount + vowel) * kTailCount;
  }
  if (const char32_t syllable = first - kSyllables, tail = second - kTails;
      syllable < kSyllableCount && syllable % kTailCount == 0 && tail > 0 && tail < kTailCount) {
    return first + tail;
  }
  const auto before = [](const Pair &a, const Pair &b) {
    return a.first != b.first ? a.first < b.first : a.second < b.second;
  };
  const Pair wanted{first, second, 0};
  const Pair *const end = kPairs + kPairCount, *found = std::lower_bound(kPairs, end, wanted, before);
  return found != end && !before(wanted, *found) ? found->joined : 0;
}

// As CPython: sigma is final behind a cased character and before none, whatever is ignorable between.
char32_t lower_sigma(std::u32string_view text, size_t at) {
  size_t place = at;
  while (place > 0 && has(text[place - 1], kCaseIgnorable)) --place;
  if (place == 0 || !has(text[place - 1], kCased)) return kSmallSigma;
  place = at + 1;
  while (place < text.size() && has(text[place], kCaseIgnorable)) ++place;
  return place < text.size() && has(text[place], kCased) ? kSmallSigma : kFinalSigma;
}

}  // namespace

size_t count_characters(std::string_view utf8) {
  size_t count = 0;
  for (size_t at = 0; at < utf8.size(); ++count) next_character(utf8, at);
  return count;
}

std::u32string from_utf8(std::string_view utf8) {
  std::u32string text;
  text.reserve(utf8.size());
  for (size_t at = 0; at < utf8.size();) text += next_character(utf8, at);
  return text;
}

void append_utf8(char32_t character, std::string &out) {
  const auto trail = [&](int shift) { out += static_cast<char>(0x80 | (character >> shift & 0x3F)); };
  if (character < 0x80) {
    out += static_cast<char>(character);
  } else if (character < 0x800) {
    out += static_cast<char>(0xC0 | character >> 6);
    trail(0);
  } else if (character < 0x10000) {
    out += static_cast<char>(0xE0 | character >> 12);
    trail(6);
    trail(0);
  } else {
    out += static_cast<char>(0xF0 | character >> 18);
    trail(12);
    trail(6);
    trail(0);
  }
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t character : text) append_utf8(character, out);
  return out;
}

std::u32string normalize_nfc(std::u32string text) {
  if (std::all_of(text.begin(), text.end(), [](char32_t character) { return has(character, kComposed); })) return text;
  std::u32string out = decomposed(text);
  order_marks(out);
  // Joined in place: what is kept never overtakes what is read.
  size_t kept = 0, starter = std::u32string::npos;
  uint8_t last = 0;  // class of the last character kept behind the starter
  for (const char32_t character : out) {
    const uint8_t combining = properties(character).combining;
    if (starter != std::u32string::npos && (kept == starter + 1 || last < combining)) {
      if (const char32_t both = joined(out[starter], character)) {
        out[starter] = both;
        continue;
      }
    }
    if (combining == 0) starter = kept;
    last = combining;
    out[kept++] = character;
  }
  out.resize(kept);
  return out;
}

std::u32string lower_case(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    const char32_t character = text[at];
    if (character == kCapitalSigma) {
      out += lower_sigma(text, at);
    } else if (const uint16_t place = properties(character).lower) {
      out += stored_string(place);
    } else {
      out += character;
    }
  }
  return out;
}

}  // namespace vtr::internal
