// golden/golden.json of a bundle: what every stage gives for a few clips and sentences.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "array.h"
#include "bundle.h"
#include "host.h"

namespace vtr::tools {

struct Gate {
  std::string comparator;
  double limit = 0;
};

struct Case {
  std::string id;
  Question question;
  Arrays expected;
  std::map<std::string, Gate> gates;  // by precision
};

// vtr::internal::Error where the vectors are damaged, of a newer schema or of another model.
std::vector<Case> read_golden(const internal::Bundle &bundle);

}  // namespace vtr::tools
