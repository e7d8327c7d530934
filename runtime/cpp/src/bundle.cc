#include "bundle.h"

#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "files.h"

namespace vtr::internal {
namespace {

using Json = nlohmann::json;

constexpr int kSchemaVersion = 1;
// Nothing that a manifest rightly holds comes near this; a larger file is refused before it is read.
constexpr size_t kMostManifestBytes = 16 << 20;
const char *const kAgain = "copy the bundle again, or export it anew";

[[noreturn]] void fail(const std::string &what) { throw Error(VTR_BUNDLE_ERROR, what + "; " + kAgain); }

// A field of the manifest with a sentence for each way in which it can be wrong.
class Field {
 public:
  Field(const Json &value, std::string where, const std::string &origin)
      : value_(value), where_(std::move(where)), origin_(origin) {}

  Field at(const char *key) const {
    if (!value_.is_object() || !value_.contains(key)) malformed(where_.empty() ? key : where_ + "." + key, "missing");
    return Field(value_[key], where_.empty() ? key : where_ + "." + key, origin_);
  }
  bool has(const char *key) const { return value_.is_object() && value_.contains(key) && !value_[key].is_null(); }
  std::string text() const {
    if (!value_.is_string()) malformed(where_, "not a string");
    return value_.get<std::string>();
  }
  int64_t integer(int64_t least, int64_t most) const {
    if (!value_.is_number_integer()) malformed(where_, "not an integer");
    const bool huge = value_.is_number_unsigned() && value_.get<uint64_t>() > static_cast<uint64_t>(most);
    if (huge || value_.get<int64_t>() < least || value_.get<int64_t>() > most) {
      malformed(where_, "outside " + std::to_string(least) + ".." + std::to_string(most));
    }
    return value_.get<int64_t>();
  }
  double number() const {
    if (!value_.is_number()) malformed(where_, "not a number");
    return value_.get<double>();
  }
  bool truth() const {
    if (!value_.is_boolean()) malformed(where_, "not true or false");
    return value_.get<bool>();
  }
  void only(const char *expected) const {
    if (text() != expected) {
      throw Error(VTR_UNAVAILABLE, origin_ + " has " + where_ + " " + text() + ", and this library does only " +
                                       expected + "; use the Python runtime, or a newer version of this one");
    }
  }
  std::vector<std::string> names() const {
    if (!value_.is_array()) malformed(where_, "not a list");
    std::vector<std::string> found;
    for (const Json &entry : value_) found.push_back(Field(entry, where_, origin_).at("name").text());
    return found;
  }
  std::vector<std::pair<std::string, Field>> entries() const {
    if (!value_.is_object()) malformed(where_, "not an object");
    std::vector<std::pair<std::string, Field>> found;
    for (const auto &[key, value] : value_.items()) found.emplace_back(key, Field(value, where_ + "." + key, origin_));
    return found;
  }
  bool is_null() const { return value_.is_null(); }

 private:
  [[noreturn]] void malformed(const std::string &where, const std::string &why) const {
    fail(origin_ + ": manifest.json is malformed at '" + where + "' (" + why + ")");
  }

  const Json &value_;
  std::string where_;
  const std::string &origin_;
};

// A name that stays inside the folder whatever the file system makes of it.
bool leads_outside(const std::string &folder, const std::string &name) {
  if (name.empty() || name.find_first_of(std::string("\\:\0", 3)) != std::string::npos) return true;
  const std::filesystem::path path(name);
  if (path.is_absolute()) return true;
  for (const auto &part : path) {
    if (part == "..") return true;
  }
  std::error_code error;
  const auto root = std::filesystem::weakly_canonical(folder, error);
  const auto real = std::filesystem::weakly_canonical(std::filesystem::path(folder) / path, error);
  if (error) return true;
  const auto relative = real.lexically_relative(root);
  return relative.empty() || *relative.begin() == "..";
}

std::string known_precision(const Field &field) {
  const std::string found = field.text();
  for (const char *known : {"fp32", "fp16", "bf16", "int8"}) {
    if (found == known) return found;
  }
  field.only("fp32, fp16, bf16 or int8");
  return found;
}

Sampling known_sampling(const Field &field) {
  const std::string found = field.text();
  if (found == "fps1") return Sampling::kFps1;
  if (found != "uniform") field.only("uniform or fps1");
  return Sampling::kUniform;
}

}  // namespace

Manifest parse_manifest(const std::string &json, const std::string &origin) {
  const Json data = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (data.is_discarded()) fail(origin + ": manifest.json is not JSON");
  if (!data.is_object() || !data.contains("format") || data["format"] != "vtr-bundle") {
    throw Error(VTR_BUNDLE_ERROR, origin + " is not a vtr-export bundle: its manifest does not say format vtr-bundle");
  }
  const Field root(data, "", origin);
  const int64_t schema = root.at("schema_version").integer(1, INT32_MAX);
  if (schema > kSchemaVersion) {
    throw Error(VTR_BUNDLE_ERROR, origin + " has manifest schema " + std::to_string(schema) +
                                      ", and this library reads up to " + std::to_string(kSchemaVersion) +
                                      "; use a newer version of it");
  }
  Manifest found;
  found.name = root.at("name").text();
  found.space = root.at("space").text();
  found.variant = root.at("variant").text();
  found.weights_sha256 = root.at("weights_sha256").text();
  found.precision = known_precision(root.at("precision"));
  found.graph_precision = known_precision(root.at("graph_precision"));
  found.dim = static_cast<size_t>(root.at("dim").integer(1, 1 << 20));
  const Field frames = root.at("frames");
  found.frames.count = static_cast<size_t>(frames.at("count").integer(1, 512));
  found.frames.size = static_cast<size_t>(frames.at("size").integer(16, 1024));
  found.frames.sampling = known_sampling(frames.at("sampling"));
  frames.at("resize").only("shortest");
  frames.at("interpolation").only("bicubic");
  root.at("normalisation").only("l2");
  const Field text = root.at("text");
  text.at("cleaning").only("standard");
  found.text.context_length = static_cast<size_t>(text.at("context_length").integer(3, 1 << 16));
  found.text.vocab_size = static_cast<int32_t>(text.at("vocab_size").integer(3, INT32_MAX));
  found.text.start_id = static_cast<int32_t>(text.at("start_id").integer(0, found.text.vocab_size - 1));
  found.text.end_id = static_cast<int32_t>(text.at("end_id").integer(0, found.text.vocab_size - 1));
  for (const auto &[name, graph] : root.at("graphs").entries()) {
    if (graph.is_null()) continue;
    found.graphs[name] = {graph.at("file").text(), graph.at("inputs").names(), graph.at("outputs").names()};
  }
  for (const char *needed : {"video", "text"}) {
    if (!found.graphs.count(needed)) fail(origin + ": manifest.json names no graph '" + needed + "'");
  }
  if (root.has("rerank")) {
    const Field rerank = root.at("rerank");
    found.rerank = RerankSpec{rerank.at("kind").text(), rerank.at("weight").number(),
                              rerank.has("textual_attention") && rerank.at("textual_attention").truth()};
  }
  for (const auto &[name, entry] : root.at("files").entries()) {
    found.files[name] = {entry.at("sha256").text(), static_cast<uint64_t>(entry.at("size").integer(0, INT64_MAX))};
  }
  return found;
}

Bundle::Bundle(const std::string &folder) : folder_(folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw Error(VTR_BUNDLE_ERROR, folder + " is not a folder; give the folder that vtr-export wrote with -o");
  }
  const std::string path = folder + "/manifest.json";
  if (!std::filesystem::exists(path, error)) {
    throw Error(VTR_BUNDLE_ERROR,
                folder + " is not a bundle: it holds no manifest.json; give the folder that vtr-export wrote");
  }
  manifest_ = parse_manifest(read_file(path, kMostManifestBytes, VTR_BUNDLE_ERROR), folder);
  for (const auto &[name, entry] : manifest_.files) {
    if (leads_outside(folder, name)) {
      throw Error(VTR_BUNDLE_ERROR,
                  folder + ": the manifest lists '" + name + "', which leads outside the bundle; do not use it");
    }
    const std::string file = folder + "/" + name;
    const auto size = std::filesystem::file_size(file, error);
    if (error) fail(folder + ": " + name + " is missing");
    if (size != entry.size) {
      fail(folder + ": " + name + " has " + std::to_string(size) + " bytes, not " + std::to_string(entry.size));
    }
    if (file_sha256(file, VTR_BUNDLE_ERROR) != entry.sha256) {
      fail(folder + ": " + name + " is damaged, its sha256 is not the manifest's");
    }
  }
  for (const auto &[_, graph] : manifest_.graphs) this->file(graph.file);
  for (const char *needed : {"tokenizer.json", "golden/golden.json"}) this->file(needed);
}

std::string Bundle::file(const std::string &name) const {
  if (!manifest_.files.count(name)) fail(folder_ + ": the manifest gives no hash for " + name);
  return folder_ + "/" + name;
}

}  // namespace vtr::internal
