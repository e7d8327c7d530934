// Every text of the data folder cleaned and tokenized, and compared with what Python made of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "files.h"
#include "text_cleaning.h"
#include "tokenizer.h"
#include "unicode.h"

namespace {

using vtr::internal::Error;
using vtr::internal::TextSpec;
using vtr::internal::Tokenizer;

constexpr uint16_t kRefused = 0xFFFF;

std::string data_folder() {
  const char *folder = std::getenv("VTR_TEST_DATA");
  if (folder == nullptr) {
    throw std::runtime_error(
        "VTR_TEST_DATA is not set; run python runtime/cpp/tests/make_text_data.py FOLDER and set it to FOLDER");
  }
  return std::string(folder) + "/text/";
}

const Tokenizer &tokenizer() {
  static const Tokenizer made(data_folder() + "tokenizer.json", TextSpec{77, 49408, 49406, 49407});
  return made;
}

// Reads a file of make_text_data.py.
class Records {
 public:
  explicit Records(const std::string &path) : file_(path, VTR_INTERNAL) {
    if (take(8) != "VTRTEXT1") throw std::runtime_error(path + " is not of make_text_data.py");
  }
  bool next() {
    if (at_ == file_.size()) return false;
    const auto text_size = number<uint32_t>(), told_size = number<uint32_t>();
    const auto count = number<uint16_t>();
    refused = count == kRefused;
    text = take(text_size);
    told = take(told_size);
    ids.assign(refused ? 0 : count, 0);
    const std::string_view bytes = take(ids.size() * sizeof(int32_t));
    if (!bytes.empty()) std::memcpy(ids.data(), bytes.data(), bytes.size());
    return true;
  }

  std::string_view text, told;  // told: the cleaned text, or the error
  bool refused = false;
  std::vector<int32_t> ids;  // without the zeros behind

 private:
  std::string_view take(size_t size) {
    if (size > file_.size() - at_) throw std::runtime_error("the data end inside a record; make them again");
    const auto *first = reinterpret_cast<const char *>(file_.data() + at_);
    at_ += size;
    return {first, size};
  }
  template <typename Number>
  Number number() {
    Number value;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }

  vtr::internal::MappedFile file_;
  size_t at_ = 0;
};

struct Outcome {
  std::string told;
  bool refused = false;
  std::vector<int32_t> ids;
};

Outcome outcome(std::string_view text) {
  Outcome made;
  try {
    made.told = vtr::internal::to_utf8(vtr::internal::clean(text));
    made.ids.resize(tokenizer().spec().context_length);
    tokenizer().encode(text, made.ids.data());
    vtr::internal::validate_ids(made.ids.data(), 1, made.ids.size(), tokenizer().spec());
    while (!made.ids.empty() && made.ids.back() == 0) made.ids.pop_back();
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), VTR_TEXT_ERROR);
    made = {error.what(), true, {}};
  }
  return made;
}

class TextData : public testing::TestWithParam<const char *> {};

TEST_P(TextData, TextsAndIdsAreThoseOfPython) {
  Records records(data_folder() + GetParam() + ".bin");
  size_t count = 0, differing = 0;
  for (; records.next(); ++count) {
    const Outcome made = outcome(records.text);
    if (made.refused == records.refused && made.told == records.told && made.ids == records.ids) continue;
    if (++differing > 10) continue;
    ADD_FAILURE() << "text " << count << ": " << testing::PrintToString(std::string(records.text.substr(0, 300)))
                  << "\n  Python: " << testing::PrintToString(std::string(records.told.substr(0, 300)))
                  << "\n  C++:    " << testing::PrintToString(made.told.substr(0, 300));
  }
  EXPECT_EQ(differing, 0u) << "of " << count;
  RecordProperty("texts", static_cast<int>(count));
  std::printf("%s: %zu texts, %zu differ\n", GetParam(), count, differing);
  if (count == 0) GTEST_SKIP() << "the benchmarks' annotations were not at hand when the data were made";
}

INSTANTIATE_TEST_SUITE_P(Sets, TextData,
                         testing::Values("hard", "golden", "limits", "captions", "generated", "code_points"),
                         [](const auto &info) { return std::string(info.param); });

}  // namespace
