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

  // Memory that words may share, one behind the other.
  class Work;
  // Append the ids of a word of bytes. Time grows with n log n. Safe to call from many threads, each with its own work.
  void encode(std::string_view word, Work &work, std::vector<int32_t> &ids) const;

 private:
  // A slot of the table of merges: open addressing, half of it empty.
  struct Merge {
    int32_t first = -1, second = -1;  // empty
    int32_t rank = kNone, id = -1;
  };
  static constexpr int32_t kNone = INT32_MAX;

  // The slot of a pair, or the empty one where it would stand.
  size_t slot(int32_t first, int32_t second) const;

  std::array<int32_t, 256> bytes_;       // inside a word
  std::array<int32_t, 256> last_bytes_;  // at its end
  std::vector<Merge> merges_;
};

class Bpe::Work {
 private:
  friend class Bpe;
  struct Symbol {
    int32_t id;
    uint32_t before, after;
    int32_t rank;  // of its merge with the one after; kNone where there is none, or where it is gone
    int32_t merged;
  };
  struct Candidate {
    int32_t rank;
    uint32_t place;
  };

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;  // the lowest rank first, then the leftmost
};

}  // namespace vtr::internal
