#include "resize.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "frame_data.h"
#ifndef VTR_PIXEL_TESTS_ALONE
#include "files.h"
#endif

namespace {

using vtr::internal::Error;
using vtr::internal::resize_crop;

std::string hexadecimal(const uint8_t *bytes, size_t count) {
  std::string text;
  char digits[3];
  for (size_t i = 0; i < count; ++i) {
    std::snprintf(digits, sizeof digits, "%02x", bytes[i]);
    text += digits;
  }
  return text;
}

// Every seventh byte, as make_frame_data.py has it.
std::string fnv1a(const std::vector<uint8_t> &data) {
  uint64_t value = 0xCBF29CE484222325u;
  for (size_t i = 0; i < data.size(); i += 7) value = (value ^ data[i]) * 0x100000001B3u;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
  return digits;
}

// The same bytes as noise() and extreme() of make_frame_data.py.
std::vector<uint8_t> noise(uint64_t seed, size_t bytes, bool extreme) {
  std::vector<uint8_t> data(bytes);
  for (size_t at = 0; at < bytes; at += 8) {
    uint64_t z = (at / 8 + seed) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    for (size_t i = at; i < std::min(at + 8, bytes); ++i, z >>= 8) data[i] = static_cast<uint8_t>(z);
  }
  if (extreme) {
    for (uint8_t &byte : data) byte = byte < 128 ? 0 : 255;
  }
  return data;
}

std::vector<uint8_t> source(const std::string &name, size_t bytes) {
  const size_t colon = name.find(':');
  if (colon != std::string::npos) return noise(std::stoull(name.substr(colon + 1)), bytes, name[0] == 'e');
  std::ifstream file(frame_data(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string failure(const uint8_t *rgb, size_t width, size_t height, ptrdiff_t stride, size_t size) {
  std::vector<uint8_t> out(size < 4096 ? 3 * size * size + 1 : 1);
  try {
    resize_crop(rgb, width, height, stride, size, out.data());
  } catch (const Error &error) {
    return error.what();
  }
  return "";
}

TEST(Resize, EveryPictureIsPillowsByteForByte) {
  size_t compared = 0;
  for (const std::string &line : frame_lines("resize.txt")) {
    const auto words = split(line, ' ');
    const size_t width = std::stoull(words.at(1)), height = std::stoull(words.at(2)), size = std::stoull(words.at(4));
    const size_t stride = std::stoull(words.at(3));
    const auto rgb = source(words.at(0), stride * height);
    ASSERT_EQ(rgb.size(), stride * height) << line;
    if (words.at(5) == "!") {
      EXPECT_EQ(failure(rgb.data(), width, height, static_cast<ptrdiff_t>(stride), size),
                line.substr(line.find('!') + 2));
      continue;
    }
    // Between guards: nothing is written beside the result.
    std::vector<uint8_t> guarded(3 * size * size + 2, 77);
    resize_crop(rgb.data(), width, height, static_cast<ptrdiff_t>(stride), size, guarded.data() + 1);
    EXPECT_EQ(guarded.front(), 77);
    EXPECT_EQ(guarded.back(), 77);
    const std::vector<uint8_t> out(guarded.begin() + 1, guarded.end() - 1);
    EXPECT_EQ(fnv1a(out), words.at(6)) << line;
#ifndef VTR_PIXEL_TESTS_ALONE
    uint8_t digest[32];
    vtr::internal::sha256(out.data(), out.size(), digest);
    EXPECT_EQ(hexadecimal(digest, sizeof digest), words.at(5)) << line;
#endif
    ++compared;
  }
  EXPECT_GT(compared, 300u);
}

TEST(Resize, AStrideOfZeroIsRowsWithoutAGap) {
  const auto rgb = noise(1, 3 * 60 * 40, false);
  std::vector<uint8_t> plain(3 * 32 * 32), strided(plain.size());
  resize_crop(rgb.data(), 60, 40, 0, 32, plain.data());
  resize_crop(rgb.data(), 60, 40, 3 * 60, 32, strided.data());
  EXPECT_EQ(plain, strided);
}

TEST(Resize, WhatIsNoFrameIsRefusedInASentence) {
  const uint8_t pixel[3] = {};
  EXPECT_EQ(failure(nullptr, 4, 4, 0, 16), "a frame is null; give uint8 [height, width, 3]");
  EXPECT_EQ(failure(pixel, 0, 0, 0, 16), "a frame is 0 x 0 pixels; give uint8 [height, width, 3]");
  EXPECT_EQ(failure(pixel, 0, 4, 0, 16), "a frame is 0 x 4 pixels; give uint8 [height, width, 3]");
  EXPECT_NE(failure(pixel, 1, 1, -3, 16).find("the row stride of a frame 1 pixels wide is -3"), std::string::npos);
  EXPECT_NE(failure(pixel, 1, 1, 2, 16).find("give at least 3 bytes"), std::string::npos);
  EXPECT_NE(failure(pixel, 1, 1, 0, 0).find("0 pixels wide"), std::string::npos);
  EXPECT_EQ(failure(pixel, 16384, 1, 0, 224),
            "a frame of 16384 x 1 pixels is too narrow to resize to 224; crop the video first");
  EXPECT_NE(failure(pixel, 1, 65535, 0, 224).find("65535 pixels is too narrow"), std::string::npos);
  EXPECT_NE(failure(pixel, SIZE_MAX, SIZE_MAX, 0, 224).find("too large"), std::string::npos);
  EXPECT_NE(failure(pixel, 1, 1, 0, SIZE_MAX).find("too narrow"), std::string::npos);
}

}  // namespace
