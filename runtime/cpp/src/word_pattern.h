// The regular expression that cuts a sentence into words, in the one form that vtr_export/tokenizer.py writes:
// alternatives of characters and classes, of which the last may repeat.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vtr::internal {

class WordPattern {
 public:
  // Error(VTR_UNAVAILABLE) for a form that is not done here, `origin` is named in it.
  WordPattern(const std::u32string &pattern, const std::string &origin);

  // The next word at or behind `at`, as [first, second); an empty one at the end of the text where there is none.
  std::pair<size_t, size_t> find(std::u32string_view text, size_t at) const;

 private:
  class Characters {
   public:
    void add(char32_t first, char32_t last) { ranges_.emplace_back(first, last); }
    void finish();
    bool holds(char32_t character) const;

   private:
    std::array<bool, 128> ascii_{};
    std::vector<std::pair<char32_t, char32_t>> ranges_;
  };
  struct Alternative {
    std::vector<Characters> characters;
    bool repeats = false;  // the last of them
  };
  class Parser;

  std::vector<Alternative> alternatives_;
};

}  // namespace vtr::internal
