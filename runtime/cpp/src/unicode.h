// Characters as Python 3.11 sees them (Unicode 14): UTF-8, NFC, lower case.
#pragma once

#include <string>
#include <string_view>

#include "tables.h"

namespace vtr::internal {

inline const CodePoint &properties(char32_t character) {
  return kRecords[kRecordOf[kBlockOf[character / kBlock] * kBlock + character % kBlock]];
}
inline bool has(char32_t character, uint8_t flag) { return (properties(character).flags & flag) != 0; }
// Of a place in CodePoint that is not 0.
inline std::u32string_view stored_string(uint16_t place) { return {kStrings + place + 1, kStrings[place]}; }

// How many characters UTF-8 holds; Error(VTR_TEXT_ERROR) for what is not UTF-8, a surrogate included.
size_t count_characters(std::string_view utf8);
// The same error; a zero byte is a character as any other.
std::u32string from_utf8(std::string_view utf8);
void append_utf8(char32_t character, std::string &out);
std::string to_utf8(std::u32string_view text);

// unicodedata.normalize("NFC", text), in time that grows with the length whatever the order of combining marks.
std::u32string normalize_nfc(std::u32string text);
// str.lower()
std::u32string lower_case(std::u32string_view text);

}  // namespace vtr::internal
