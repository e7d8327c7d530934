// The protocol of vtr-conformance (docs/certify-a-host.md): a JSON object a line, arrays in safetensors files.
#pragma once

#include <istream>
#include <ostream>

#include "engine.h"

namespace vtr::tools {

// Answer requests until `bye` or the end of the input.
void serve(std::istream &requests, std::ostream &answers, const internal::EngineOptions &options);

}  // namespace vtr::tools
