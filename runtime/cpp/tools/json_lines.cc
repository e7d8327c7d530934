#include "json_lines.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace vtr::tools {
namespace {

// The length of the UTF-8 sequence at the start of `bytes`, and its code point; 0 where it is none.
size_t sequence(std::string_view bytes, uint32_t &code) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  const size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
  if (length == 0 || bytes.size() < length) return 0;
  code = length == 1 ? lead : lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 2) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  return code < kLeast[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : length;
}

void append_unit(std::string &out, uint32_t unit) {
  char text[8];
  std::snprintf(text, sizeof(text), "\\u%04x", unit);
  out += text;
}

template <typename T>
std::string number(T value) {
  if (!std::isfinite(value)) return "null";
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return std::string(text, end);
}

}  // namespace

std::string json_string(std::string_view bytes) {
  std::string out = "\"";
  while (!bytes.empty()) {
    uint32_t code = 0;
    const size_t length = sequence(bytes, code);
    if (length == 0) {
      append_unit(out, 0xDC00U + static_cast<uint8_t>(bytes[0]));
      bytes.remove_prefix(1);
      continue;
    }
    if (code == '"' || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code >= 0x20 && code < 0x7F) {
      out += static_cast<char>(code);
    } else if (code < 0x10000) {
      append_unit(out, code);
    } else {
      append_unit(out, 0xD800 + ((code - 0x10000) >> 10));
      append_unit(out, 0xDC00 + ((code - 0x10000) & 0x3FF));
    }
    bytes.remove_prefix(length);
  }
  return out + '"';
}

std::string json_number(float value) { return number(value); }
std::string json_number(double value) { return number(value); }

}  // namespace vtr::tools
