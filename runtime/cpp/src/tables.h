// What scripts/make_text_tables.py writes: tables asked of Python itself, not of a system's library, whose Unicode
// version differs between Debian, Ubuntu and Jetson (see docs/cpp-text.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace vtr::internal {

// Bits of CodePoint::flags, in the order of the script's FLAGS.
enum : uint8_t {
  kCased = 1,          // str.lower(): a final sigma may follow
  kCaseIgnorable = 2,  // ... and is looked for beyond these
  kDecimal = 4,        // re's \d
  kWhite = 8,          // str.split()
  kRemoved = 16,       // ftfy removes it
  kSecond = 32,        // NFC may join it to what stands before it
  kComposed = 64,      // NFC leaves texts of such characters as they are
  kSettled = 128,      // and so does every other fixer
};

// Strings are places in kStrings, where their length stands before them; 0: the character itself.
struct CodePoint {
  uint16_t fixed;       // by ftfy's tables
  uint16_t decomposed;  // NFD, without Hangul's syllables
  uint16_t lower;
  uint8_t combining;  // class
  uint8_t flags;
};

// NFC joins first and second.
struct Pair {
  char32_t first, second, joined;
};

struct Entity {
  uint16_t offset;  // in kEntityNames; without "&", with ";" where it has one
  uint8_t length;
  bool html5;        // else a name in capitals that ftfy alone knows
  char32_t text[3];  // zeros behind
};

constexpr size_t kBlock = 128;
extern const uint16_t kBlockOf[0x110000 / kBlock];
extern const uint16_t kRecordOf[];
extern const CodePoint kRecords[];
extern const char32_t kStrings[];
extern const Pair kPairs[];  // ascending
extern const size_t kPairCount;

constexpr size_t kLongestEntity = 32;
extern const char *const kEntityNames;
extern const Entity kEntities[];  // by name
extern const size_t kEntityCount;

}  // namespace vtr::internal
