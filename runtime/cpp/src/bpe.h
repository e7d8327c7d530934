// Byte pair encoding of one word, as the model "BPE" of Hugging Face's tokenizers behind its "ByteLevel".
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace vtr::internal {

// Which ids stand for which texts; bytes are written as GPT-2 writes them (0x20 is "Ġ"), in UTF-8.
using Vocabulary = std::unordered_map<std::string, int32_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;  // the first is done first

class Bpe {
 public:
  // Error(VTR_BUNDLE_ERROR) where the vocabulary lacks a byte or what a merge names; `origin` is named in it.
  Bpe(const Vocabulary &vocabulary, const Merges &merges, const std::string &end_of_word, const std::string &origin);

  // Append the ids of a word of bytes. Time grows with n log n. Safe to call from many threads.
  void encode(std::string_view word, std::vector<int32_t> &ids) const;

 private:
  struct Merge {
    int32_t rank, id;
  };
  struct PairHash {
    size_t operator()(uint64_t pair) const { return pair * 0x9E3779B97F4A7C15 >> 20; }
  };
  struct Symbol;
  struct Candidate;

  const Merge *find(int32_t first, int32_t second) const;

  std::array<int32_t, 256> bytes_;       // inside a word
  std::array<int32_t, 256> last_bytes_;  // at its end
  std::unordered_map<uint64_t, Merge, PairHash> merges_;
};

}  // namespace vtr::internal
