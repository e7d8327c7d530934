#include "sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "frame_data.h"

namespace {

using vtr::internal::ClipTimes;
using vtr::internal::Error;
using vtr::internal::SamplePlan;
using vtr::internal::Sampling;
using vtr::internal::Window;

template <typename Work>
std::string failure(const Work &work) {
  try {
    work();
  } catch (const Error &error) {
    return error.what();
  }
  return "";
}

std::string joined(const SamplePlan &plan) {
  std::string text;
  for (const size_t index : plan) text += (text.empty() ? "" : " ") + std::to_string(index);
  return text;
}

std::optional<double> cut(const std::string &word) {
  if (word == "-") return std::nullopt;
  return std::strtod(word.c_str(), nullptr);
}

TEST(Sampling, EveryClipIsPythons) {
  size_t plans = 0, one_a_second = 0, refused = 0;
  for (const std::string &line : frame_lines("sampling.txt")) {
    const auto parts = split(line, '|');
    ASSERT_EQ(parts.size(), 6u);
    const auto words = split(parts[0], ' ');
    std::vector<int64_t> ticks;
    for (const auto &word : split(parts[1], ' ')) ticks.push_back(std::stoll(word));
    const ClipTimes times(ticks, std::stoll(words[3]), {std::stoll(words[0]), std::stoll(words[1])},
                          std::stoll(words[2]));
    std::string found;
    const std::string error = failure([&] {
      found = joined(times.sample(std::stoull(words[4]), Window{cut(words[5]), cut(words[6])},
                                  words[7] == "fps1" ? Sampling::kFps1 : Sampling::kUniform));
    });
    if (error.empty()) {
      EXPECT_EQ(found, parts[2]) << line;
      ++(words[7] == "fps1" ? one_a_second : plans);
    } else {
      EXPECT_EQ("! " + error, parts[2]) << line;
      ++refused;
    }
    const auto seconds = split(parts[3], ' '), exact = split(parts[4], ' ');
    ASSERT_EQ(times.size(), seconds.size()) << line;
    for (size_t i = 0; i < seconds.size(); ++i) {
      EXPECT_EQ(times.seconds(i), std::strtod(seconds[i].c_str(), nullptr)) << line;
      try {
        const vtr::internal::Rational time = times.exact(i);
        EXPECT_EQ(std::to_string(time.num) + "/" + std::to_string(time.den), exact[i]) << line;
      } catch (const Error &) {
        EXPECT_GT(exact[i].find('/'), 18u) << line;  // more than 64 bits
      }
    }
    EXPECT_EQ(times.end(), std::strtod(parts[5].c_str(), nullptr)) << line;
  }
  EXPECT_GT(plans, 1000u);
  EXPECT_GT(one_a_second, 1000u);
  EXPECT_GT(refused, 500u);
}

TEST(Sampling, AFrameThatStandsLongComesSeveralTimes) {
  EXPECT_EQ(joined(ClipTimes({0, 1, 2, 10}, 2, {1, 1}).sample(3)), "2 2 3");
}

TEST(Sampling, WithoutFramesThereIsNoPlan) {
  const ClipTimes none({}, 0, {1, 1});
  EXPECT_TRUE(none.sample(4).empty());
  EXPECT_EQ(none.end(), 0);
  EXPECT_TRUE(ClipTimes({1}, 0, {1, 1}).sample(4, {2.0, 3.0}).empty());
}

TEST(Sampling, WhatIsNoTimeIsRefused) {
  EXPECT_NE(failure([] { ClipTimes({0}, 0, {1, 0}); }), "");
  EXPECT_NE(failure([] { ClipTimes({0}, 0, {0, 1}); }), "");
  EXPECT_NE(failure([] { ClipTimes({0}, 0, {1, -1}); }), "");
  EXPECT_NE(failure([] { ClipTimes({0}, -1, {1, 1}); }), "");
  EXPECT_EQ(failure([] { ClipTimes({0}, 0, {1, 1}).sample(0); }), "count is 0; a clip needs at least 1 frame");
  EXPECT_NE(failure([] { ClipTimes({0}, 0, {1, 1}).sample(std::numeric_limits<size_t>::max()); }), "");
}

TEST(Sampling, TheNearestDoubleIsRoundedOnce) {
  EXPECT_EQ(vtr::internal::nearest_double(1, 3), 1.0 / 3);
  EXPECT_EQ(vtr::internal::nearest_double((vtr::internal::Wide{1} << 53) + 1, 1), 0x1p53);      // half way: to even
  EXPECT_EQ(vtr::internal::nearest_double((vtr::internal::Wide{1} << 54) + 3, 1), 0x1p54 + 4);  // above half way
  EXPECT_EQ(vtr::internal::nearest_double((vtr::internal::Wide{1} << 53) - 1, 1), 0x1p53 - 1);
  EXPECT_EQ(vtr::internal::nearest_double((vtr::internal::Wide{1} << 54) - 1, 1),
            0x1p54);  // up to the next power of two
  EXPECT_EQ(vtr::internal::nearest_double(-7, 2), -3.5);
  EXPECT_EQ(vtr::internal::nearest_double(0, 5), 0.0);
}

TEST(Sampling, NumbersAreWrittenAsPythonWritesThem) {
  EXPECT_EQ(vtr::internal::decimal(7), "7.0");
  EXPECT_EQ(vtr::internal::decimal(0.1), "0.1");
  EXPECT_EQ(vtr::internal::decimal(1e22), "1e+22");
  EXPECT_EQ(vtr::internal::decimal(1e-5), "1e-05");
  EXPECT_EQ(vtr::internal::decimal(-2.5), "-2.5");
  EXPECT_EQ(vtr::internal::decimal(std::nan("")), "nan");
}

}  // namespace
