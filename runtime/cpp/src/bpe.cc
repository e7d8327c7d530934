#include "bpe.h"

#include <algorithm>

#include "status.h"
#include "unicode.h"

namespace vtr::internal {
namespace {

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
  size_t slots = 2;
  while (slots < 2 * merges.size() + 2) slots *= 2;
  merges_.resize(slots);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto &[first, second] = merges[rank];
    Merge merge{id(first), id(second), static_cast<int32_t>(rank), id(first + second)};
    merges_[slot(merge.first, merge.second)] = merge;
  }
}

size_t Bpe::slot(int32_t first, int32_t second) const {
  const uint64_t pair = static_cast<uint64_t>(static_cast<uint32_t>(first)) << 32 | static_cast<uint32_t>(second);
  size_t place = (pair * 0x9E3779B97F4A7C15 >> 32) & (merges_.size() - 1);
  while (merges_[place].rank != kNone && (merges_[place].first != first || merges_[place].second != second)) {
    place = (place + 1) & (merges_.size() - 1);
  }
  return place;
}

void Bpe::encode(std::string_view word, Work &work, std::vector<int32_t> &ids) const {
  const auto count = static_cast<uint32_t>(word.size());
  auto &symbols = work.symbols_;
  auto &heap = work.heap_;
  symbols.resize(count);
  heap.clear();
  for (uint32_t place = 0; place < count; ++place) {
    const auto byte = static_cast<unsigned char>(word[place]);
    symbols[place] = {place + 1 < count ? bytes_[byte] : last_bytes_[byte], place - 1, place + 1, kNone, -1};
  }
  const auto later = [](const Work::Candidate &a, const Work::Candidate &b) {
    return a.rank != b.rank ? a.rank > b.rank : a.place > b.place;
  };
  // What a symbol and the one after it would become.
  const auto consider = [&](uint32_t place) {
    Work::Symbol &symbol = symbols[place];
    symbol.rank = kNone;
    if (symbol.after == count) return false;
    const Merge &merge = merges_[slot(symbol.id, symbols[symbol.after].id)];
    symbol.rank = merge.rank;
    symbol.merged = merge.id;
    if (merge.rank != kNone) heap.push_back({merge.rank, place});
    return merge.rank != kNone;
  };
  for (uint32_t place = 0; place < count; ++place) consider(place);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Work::Candidate best = heap.back();
    heap.pop_back();
    Work::Symbol &symbol = symbols[best.place];
    if (symbol.rank != best.rank) continue;  // a neighbour was joined since
    symbols[symbol.after].rank = kNone;
    symbol.id = symbol.merged;
    symbol.after = symbols[symbol.after].after;
    if (symbol.after != count) symbols[symbol.after].before = best.place;
    if (consider(best.place)) std::push_heap(heap.begin(), heap.end(), later);
    if (best.place != 0 && consider(symbol.before)) std::push_heap(heap.begin(), heap.end(), later);
  }
  for (uint32_t place = 0; place < count; place = symbols[place].after) ids.push_back(symbols[place].id);
}

}  // namespace vtr::internal
