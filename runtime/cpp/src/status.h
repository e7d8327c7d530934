// Errors inside the library: thrown here, turned into a vtr_status at the C interface (vtr.cc), never further.
#pragma once

#include <stdexcept>
#include <string>

#include "vtr/vtr.h"

namespace vtr::internal {

class Error : public std::runtime_error {
 public:
  Error(vtr_code code, const std::string &message) : std::runtime_error(message), code_(code) {}
  vtr_code code() const noexcept { return code_; }

 private:
  vtr_code code_;
};

}  // namespace vtr::internal
