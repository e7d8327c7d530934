// What text_data_test.cc cannot ask of Python: bytes that are no str, and sizes.
#include "text_cleaning.h"

#include <gtest/gtest.h>

#include <chrono>

#include "html_entities.h"
#include "status.h"
#include "unicode.h"

namespace {

using vtr::internal::clean;
using vtr::internal::Error;

std::string cleaned(std::string_view text) { return vtr::internal::to_utf8(clean(text)); }

std::string failure(std::string_view text) {
  try {
    clean(text);
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), VTR_TEXT_ERROR);
    return error.what();
  }
  return "";
}

TEST(Utf8, EveryCharacterComesBack) {
  std::u32string every;
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code < 0xD800 || code > 0xDFFF) every += code;
  }
  const std::string utf8 = vtr::internal::to_utf8(every);
  EXPECT_TRUE(vtr::internal::from_utf8(utf8) == every);
  EXPECT_EQ(vtr::internal::count_characters(utf8), every.size());
}

TEST(Utf8, WhatIsNoneIsRefusedWithItsPlace) {
  EXPECT_EQ(failure("caf\xE9"), "a caption must be UTF-8, and its byte 3 (0xE9) is not; decode or convert it first");
  for (const char *text : {
           "\x80",
           "\xBF",
           "\xC0\xAF",
           "\xC1\xBF",
           "\xC2",
           "\xC2\x41",
           "\xE0\x80\x80",
           "\xE0\x9F\xBF",
           "\xE2\x82",
           "\xE2\x28\xA1",
           "\xED\xA0\x80",
           "\xED\xBF\xBF",
           "\xED\xA0\xBD\xED\xB8\x80",  // surrogates, a pair too
           "\xF0\x80\x80\x80",
           "\xF0\x8F\xBF\xBF",
           "\xF0\x9F\x98",
           "\xF4\x90\x80\x80",
           "\xF5\x80\x80\x80",
           "\xFE",
           "\xFF",
           "\xF8\x88\x80\x80\x80",
       }) {
    EXPECT_NE(failure(std::string("ab") + text).find("byte 2 "), std::string::npos) << testing::PrintToString(text);
  }
}

TEST(Cleaning, AZeroByteIsACharacterLikeOthers) {
  EXPECT_EQ(cleaned(std::string_view("a\0b", 3)), "ab");  // ftfy removes control characters
  EXPECT_EQ(cleaned(std::string_view("\0", 1)), "");
}

TEST(Cleaning, CharactersAreCountedNotBytes) {
  std::string text;
  for (int time = 0; time < 1'000'000; ++time) text += "\xF0\x9F\x98\x80";
  EXPECT_EQ(vtr::internal::clean(text).size(), 1'000'000u);
  EXPECT_EQ(failure(text + "a"), "a caption of 1,000,001 characters is too long; cut it to at most 1,000,000");
}

TEST(Cleaning, TenMegabytesAreRefusedAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(failure(std::string(10'000'000, 'a')),
            "a caption of 10,000,000 characters is too long; cut it to at most 1,000,000");
  EXPECT_NE(failure(std::string(10'000'000, '\xFF')).find("UTF-8"), std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));  // milliseconds, on a busy machine too
}

TEST(Entities, TheTwoReadingsDiffer) {
  EXPECT_EQ(vtr::internal::unescape_html(U"&notit; &ampx &#65x &EACUTE;"), U"\u00ACit; &x Ax &EACUTE;");
  EXPECT_EQ(vtr::internal::unescape_whole_entities(U"&notit; &ampx &#65x &EACUTE; &#59;"),
            U"&notit; &ampx &#65x \u00C9 &#59;");
}

}  // namespace
