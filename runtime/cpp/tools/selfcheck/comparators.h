// What was expected against what came: the comparators that golden.json names. NaN and infinity never pass.
#pragma once

#include <string>

#include "array.h"

namespace vtr::tools {

struct Comparison {
  bool passed = true;
  double measured = 0;
  std::string where;  // which output, and the index of the largest difference in it
};

// Every expected array; the worst is told. `kind` as in golden.json; vtr::internal::Error for an unknown one.
Comparison compare(const std::string &kind, const Arrays &expected, const Arrays &actual, double limit);

}  // namespace vtr::tools
