// HTML's character references, as Python's html.unescape and as ftfy's stricter unescape_html decode them.
#pragma once

#include <string>
#include <string_view>

namespace vtr::internal {

// html.unescape: with or without semicolon, the longest name that fits; numbers of any length.
std::u32string unescape_html(std::u32string_view text);
// ftfy.fixes.unescape_html: with semicolon alone, and Latin letters' names in capitals too.
std::u32string unescape_whole_entities(std::u32string_view text);

}  // namespace vtr::internal
