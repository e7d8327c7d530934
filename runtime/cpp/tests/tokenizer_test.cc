// Files that are no tokenizer, or another one; ids that no tokenizer made.
#include "tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "small_tokenizer.h"
#include "status.h"

namespace {

using vtr::internal::Error;
using vtr::internal::TextSpec;
using vtr::internal::Tokenizer;
using Json = nlohmann::json;

const Json &good() {
  static const Json made = vtr::internal::small_tokenizer();
  return made;
}

Tokenizer tokenizer(const Json &file = good(), const TextSpec &spec = vtr::internal::small_spec(8)) {
  return Tokenizer::parse(file.dump(), spec, "t.json");
}

std::pair<vtr_code, std::string> failure(const Json &file, const TextSpec &spec = vtr::internal::small_spec(8)) {
  try {
    tokenizer(file, spec);
  } catch (const Error &error) {
    return {error.code(), error.what()};
  }
  return {VTR_OK, ""};
}

// The file with one place changed.
Json changed(const char *place, const Json &value) {
  Json file = good();
  file[Json::json_pointer(place)] = value;
  return file;
}

std::vector<int32_t> ids(const std::string &text) {
  std::vector<int32_t> found(8);
  tokenizer().encode(text, found.data());
  return found;
}

TEST(Tokenizer, LongerCaptionsAreCutAndKeepTheirEnd) {
  const auto [start, end] = std::pair(vtr::internal::small_spec(8).start_id, vtr::internal::small_spec(8).end_id);
  const auto the = good()["model"]["vocab"]["the</w>"].get<int32_t>();
  EXPECT_EQ(ids(""), (std::vector<int32_t>{start, end, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(ids("The the"), (std::vector<int32_t>{start, the, the, end, 0, 0, 0, 0}));
  EXPECT_EQ(ids("the the the the the the the"), (std::vector<int32_t>{start, the, the, the, the, the, the, end}));
  EXPECT_EQ(ids("the<end_of_text>the"), (std::vector<int32_t>{start, the, end, the, end, 0, 0, 0}));
  EXPECT_EQ(ids("!<end_of_text>")[1], good()["model"]["vocab"]["!"].get<int32_t>());
}

TEST(Tokenizer, ErrorsNameTheCaption) {
  const vtr_string texts[] = {{"a dog", 5}, {"\xFF", 1}};
  std::vector<int32_t> rows(16);
  try {
    tokenizer().encode(texts, 2, rows.data());
    FAIL();
  } catch (const Error &error) {
    EXPECT_EQ(std::string(error.what()).find("caption 1: a caption must be UTF-8"), 0u);
  }
}

TEST(TokenizerThreads, ManyShareOne) {
  const Tokenizer shared = tokenizer();
  const std::vector<int32_t> expected = ids("the aaaa & !");
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&] {
      std::vector<int32_t> found(8);
      for (int time = 0; time < 200; ++time) {
        shared.encode("the aaaa &amp; !", found.data());
        EXPECT_EQ(found, expected);
      }
    });
  }
  for (auto &thread : threads) thread.join();
}

TEST(TokenizerFile, APartThatIsNotDoneHereIsRefusedByName) {
  const struct {
    const char *place;
    Json value;
    const char *named;
  } cases[] = {
      {"/normalizer", {{"type", "NFC"}}, "normalizer"},
      {"/post_processor", {{"type", "ByteLevel"}}, "post_processor"},
      {"/truncation", {{"max_length", 5}}, "truncation"},
      {"/padding", {{"pad_id", 0}}, "padding"},
      {"/model/type", "WordPiece", "WordPiece"},
      {"/model/dropout", 0.1, "dropout"},
      {"/model/unk_token", "<unk>", "unk_token"},
      {"/model/continuing_subword_prefix", "##", "continuing_subword_prefix"},
      {"/model/byte_fallback", true, "byte_fallback"},
      {"/model/ignore_merges", true, "ignore_merges"},
      {"/pre_tokenizer/type", "Whitespace", "Whitespace"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "Isolated", "Isolated"},
      {"/pre_tokenizer/pretokenizers/0/invert", false, "invert"},
      {"/pre_tokenizer/pretokenizers/0/pattern", {{"String", " "}}, "no regular expression"},
      {"/pre_tokenizer/pretokenizers/1/use_regex", true, "use_regex"},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "add_prefix_space"},
      {"/added_tokens/0/lstrip", true, "lstrip"},
      {"/added_tokens/2", {{"content", "<pad>"}, {"id", 1}}, "third added token"},
  };
  for (const auto &[place, value, named] : cases) {
    const auto [code, message] = failure(changed(place, value));
    EXPECT_EQ(code, VTR_UNAVAILABLE) << place;
    EXPECT_NE(message.find(named), std::string::npos) << message;
  }
}

TEST(TokenizerFile, APatternOfAnotherFormIsRefused) {
  for (const char *pattern : {"",        "a|",        "\\p{L}+", "[^a]",        "a+b",
                              "a*",      "a{2}",      "(a)",     "[a",          "[]",
                              "[a-]",    "[z-a]",     "\\d",     "[\\s]",       "[\\x{110000}]",
                              "[\\x{}]", "[\\x{zz}]", "[a[b]]",  "[[:alpha:]]", "[a&&b]",
                              "+",       "a++",       ".",       "^a",          "a$",
                              "\\",      "[\\x{41"}) {
    const auto [code, message] = failure(changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", pattern));
    EXPECT_EQ(code, VTR_UNAVAILABLE) << pattern;
    EXPECT_NE(message.find("pattern"), std::string::npos) << message;
  }
}

TEST(TokenizerFile, ADamagedFileIsRefused) {
  Json without_byte = good();
  without_byte["model"]["vocab"].erase("a");
  without_byte["model"]["vocab"]["somewhat"] = good()["model"]["vocab"]["a"];
  const Json cases[] = {
      Json(),
      Json::array(),
      changed("/model", 7),
      changed("/model/vocab", Json::array()),
      changed("/model/vocab/a", -1),
      changed("/model/vocab/a", 1 << 20),
      changed("/model/vocab/a", 1.5),
      changed("/model/vocab/a", good()["model"]["vocab"]["b"]),
      changed("/model/merges", Json::object()),
      changed("/model/merges/0", "a a"),
      changed("/model/merges/0", {"a", 7}),
      changed("/model/merges/0", {"a", "nothing"}),
      changed("/model/end_of_word_suffix", nullptr),
      changed("/added_tokens", nullptr),
      changed("/added_tokens/0/content", "<bos>"),
      changed("/added_tokens/0/id", 1),
      changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", 7),
      without_byte,
  };
  for (const Json &file : cases) {
    const auto [code, message] = failure(file);
    EXPECT_EQ(code, VTR_BUNDLE_ERROR) << message;
    EXPECT_NE(message.find("is not a readable tokenizer"), std::string::npos) << message;
  }
  EXPECT_THROW(Tokenizer("/nowhere/tokenizer.json", vtr::internal::small_spec(8)), Error);
  EXPECT_THROW(Tokenizer::parse("{", vtr::internal::small_spec(8), "t.json"), Error);
}

TEST(TokenizerFile, NestingWithoutEndIsRefused) {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  for (const char *place : {"/normalizer", "/model", "/model/type", "/model/vocab", "/model/vocab/a",
                            "/model/merges/0/0", "/model/dropout", "/added_tokens/0/content", "/added_tokens/0/id",
                            "/pre_tokenizer", "/pre_tokenizer/type", "/pre_tokenizer/pretokenizers/0/pattern/Regex"}) {
    std::string json = changed(place, "DEEP").dump();
    json.replace(json.find("\"DEEP\""), 6, deep);
    EXPECT_THROW(Tokenizer::parse(json, vtr::internal::small_spec(8), "t.json"), Error) << place;
  }
}

TEST(TokenizerFile, FlippedAndMissingBytesAreErrorsOrATokenizer) {
  const std::string json = good().dump();
  std::mt19937 random(7);
  for (int time = 0; time < 300; ++time) {
    std::string broken = json;
    for (int flip = 0; flip < 3; ++flip) broken[random() % broken.size()] = static_cast<char>(random());
    if (time % 3 == 0) broken.resize(random() % broken.size());
    try {
      std::vector<int32_t> found(8);
      Tokenizer::parse(broken, vtr::internal::small_spec(8), "t.json").encode("the aaa &lt;!", found.data());
    } catch (const Error &error) {
      EXPECT_TRUE(error.code() == VTR_BUNDLE_ERROR || error.code() == VTR_UNAVAILABLE) << error.what();
    }
  }
}

TEST(TokenizerFile, AnotherModelsFileIsRefused) {
  TextSpec spec = vtr::internal::small_spec(8);
  ++spec.vocab_size;
  EXPECT_EQ(failure(good(), spec).first, VTR_BUNDLE_ERROR);
  EXPECT_NE(failure(good(), spec).second.find(", the manifest says ("), std::string::npos);
  spec = vtr::internal::small_spec(8);
  std::swap(spec.start_id, spec.end_id);
  EXPECT_EQ(failure(good(), spec).first, VTR_BUNDLE_ERROR);
  EXPECT_EQ(failure(good(), vtr::internal::small_spec(2)).first, VTR_BUNDLE_ERROR);
}

std::string id_failure(const std::vector<int32_t> &rows, size_t length) {
  try {
    vtr::internal::validate_ids(rows.data(), rows.size() / length, length, TextSpec{77, 49408, 49406, 49407});
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), VTR_TEXT_ERROR);
    return error.what();
  }
  return "";
}

TEST(Ids, WhatNoTokenizerMadeIsRefused) {
  EXPECT_EQ(id_failure({49406, 1929, 49407, 0, 49406, 49407, 0, 0}, 4), "");
  EXPECT_EQ(id_failure({49407}, 1), "ids have shape [1, 1]; what fits is [N, L] with L from 2 to 77");
  EXPECT_EQ(id_failure(std::vector<int32_t>(78, 49407), 78),
            "ids have shape [1, 78]; what fits is [N, L] with L from 2 to 77");
  EXPECT_EQ(id_failure({49406, 49407, 49408, 49407}, 2),
            "row 1 of the ids holds 49408, outside 0..49407; make ids with the bundle's tokenizer");
  EXPECT_EQ(id_failure({-1, 49407}, 2),
            "row 0 of the ids holds -1, outside 0..49407; make ids with the bundle's tokenizer");
  EXPECT_EQ(id_failure({49406, 49407, 49406, 0}, 2),
            "row 1 of the ids has no end id 49407; make ids with the bundle's tokenizer");
}

}  // namespace
