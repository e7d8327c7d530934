// One JSON object a line. Bytes that are no UTF-8 become \udcXX, as Python writes them: no name is lost.
#pragma once

#include <string>
#include <string_view>

namespace vtr::tools {

// A JSON string, quotes included, ASCII alone.
std::string json_string(std::string_view bytes);
// The shortest number that reads back as the same float.
std::string json_number(float value);
std::string json_number(double value);

}  // namespace vtr::tools
