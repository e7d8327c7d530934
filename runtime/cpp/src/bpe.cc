#include "bpe.h"

#include <queue>

#include "status.h"
#include "unicode.h"

namespace vtr::internal {
namespace {

uint64_t key(int32_t first, int32_t second) {
  return static_cast<uint64_t>(static_cast<uint32_t>(first)) << 32 | static_cast<uint32_t>(second);
}

// GPT-2's letter of each byte: its own where that is visible, else one from U+0100 on.
std::array<std::string, 256> letters_of_bytes() {
  std::array<std::string, 256> letters;
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < letters.size(); ++byte) {
    const bool visible = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    append_utf8(visible ? byte : next++, letters[byte]);
  }
  return letters;
}

}  // namespace

struct Bpe::Symbol {
  int32_t id;  // -1: joined to the one before
  uint32_t before, after;
};

struct Bpe::Candidate {
  int32_t rank, id;
  uint32_t place;

  // Lowest rank first, then leftmost; std::priority_queue gives the largest.
  bool operator<(const Candidate &other) const { return rank != other.rank ? rank > other.rank : place > other.place; }
};

Bpe::Bpe(const Vocabulary &vocabulary, const Merges &merges, const std::string &end_of_word,
         const std::string &origin) {
  const auto id = [&](const std::string &token) {
    const auto found = vocabulary.find(token);
    if (found == vocabulary.end()) {
      throw Error(VTR_BUNDLE_ERROR, origin + " is not a readable tokenizer (its vocabulary lacks '" + token +
                                        "'); export the bundle again");
    }
    return found->second;
  };
  const auto letters = letters_of_bytes();
  for (size_t byte = 0; byte < letters.size(); ++byte) {
    bytes_[byte] = id(letters[byte]);
    last_bytes_[byte] = id(letters[byte] + end_of_word);
  }
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto &[first, second] = merges[rank];
    merges_.insert_or_assign(key(id(first), id(second)), Merge{static_cast<int32_t>(rank), id(first + second)});
  }
}

const Bpe::Merge *Bpe::find(int32_t first, int32_t second) const {
  const auto found = merges_.find(key(first, second));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view word, std::vector<int32_t> &ids) const {
  if (word.empty()) return;
  const auto count = static_cast<uint32_t>(word.size());
  std::vector<Symbol> symbols(count);
  for (uint32_t place = 0; place < count; ++place) {
    const auto byte = static_cast<unsigned char>(word[place]);
    symbols[place] = {place + 1 < count ? bytes_[byte] : last_bytes_[byte], place - 1, place + 1};
  }
  std::priority_queue<Candidate> queue;
  const auto offer = [&](uint32_t first, uint32_t second) {
    if (const Merge *merge = find(symbols[first].id, symbols[second].id)) queue.push({merge->rank, merge->id, first});
  };
  for (uint32_t place = 1; place < count; ++place) offer(place - 1, place);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol &symbol = symbols[best.place];
    if (symbol.id < 0 || symbol.after == count) continue;
    const uint32_t second = symbol.after;
    const Merge *merge = find(symbol.id, symbols[second].id);
    if (merge == nullptr || merge->rank != best.rank) continue;  // offered before a neighbour was joined
    symbol.id = merge->id;
    symbol.after = symbols[second].after;
    symbols[second].id = -1;
    if (symbol.after != count) {
      symbols[symbol.after].before = best.place;
      offer(best.place, symbol.after);
    }
    if (best.place != 0) offer(symbol.before, best.place);
  }
  for (uint32_t place = 0; place < count; place = symbols[place].after) ids.push_back(symbols[place].id);
}

}  // namespace vtr::internal
