// A bundle on disk: its manifest, and every core file compared with its sha256 before anything of it is used.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sampling.h"
#include "status.h"

namespace vtr::internal {

struct FrameSpec {
  size_t count = 0;  // T
  size_t size = 0;   // S
  Sampling sampling = Sampling::kUniform;
};

struct TextSpec {
  size_t context_length = 0;
  int32_t vocab_size = 0;
  int32_t start_id = 0;
  int32_t end_id = 0;
};

struct GraphSpec {
  std::string file;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
};

struct RerankSpec {
  std::string kind;
  double weight = 0;
  bool textual_attention = false;
};

struct FileEntry {
  std::string sha256;
  uint64_t size = 0;
};

struct Manifest {
  std::string name, space, variant, precision, graph_precision, weights_sha256;
  size_t dim = 0;
  FrameSpec frames;
  TextSpec text;
  std::map<std::string, GraphSpec> graphs;  // by name: video, text, rerank, frames, temporal
  std::optional<RerankSpec> rerank;
  std::map<std::string, FileEntry> files;
};

// Read a manifest; Error(VTR_BUNDLE_ERROR) for a foreign, newer or malformed one, Error(VTR_UNAVAILABLE) for one that
// asks for what this library does not do (open_clip's text cleaning). `origin` is named in the message.
Manifest parse_manifest(const std::string &json, const std::string &origin);

class Bundle {
 public:
  // Error(VTR_BUNDLE_ERROR) where a file is missing, changed, or leads out of the folder.
  explicit Bundle(const std::string &folder);

  const std::string &folder() const { return folder_; }
  const Manifest &manifest() const { return manifest_; }
  // The path of a file that the manifest lists; Error(VTR_BUNDLE_ERROR) for another.
  std::string file(const std::string &name) const;

 private:
  std::string folder_;
  Manifest manifest_;
};

}  // namespace vtr::internal
