// Captions to the form that the tokenizer expects, as vtr_runtime/text.py's cleaning "standard": ftfy's fixers without
// its guess at wrongly decoded text, HTML's entities twice, one blank for each run of white space, lower case.
#pragma once

#include <string>
#include <string_view>

namespace vtr::internal {

// Error(VTR_TEXT_ERROR) for what is not UTF-8, more than 1,000,000 characters, or a line that still changes after 32
// rounds. Time and memory grow with the length, whatever the text.
std::u32string clean(std::string_view utf8);

}  // namespace vtr::internal
