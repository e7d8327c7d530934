#include "golden.h"

#include <nlohmann/json.hpp>

#include "files.h"

namespace vtr::tools {
namespace {

using Json = nlohmann::json;
using internal::Error;

constexpr int kSchema = 1;
constexpr size_t kMostBytes = 64 << 20;

Arrays pick(const Json &keys, const Arrays &tensors, const std::string &id) {
  Arrays found;
  for (const auto &[name, key] : keys.items()) {
    const auto tensor = tensors.find(key.get<std::string>());
    if (tensor == tensors.end()) {
      throw Error(VTR_BUNDLE_ERROR, "golden case " + id + " names a tensor that is not there; export the bundle again");
    }
    found.emplace(name, tensor->second);
  }
  return found;
}

Case read_case(const Json &entry, const Arrays &tensors, const internal::Bundle &bundle) {
  Case found;
  found.id = entry.at("id").get<std::string>();
  found.question.stage = entry.at("stage").get<std::string>();
  const Json &inputs = entry.at("inputs");
  if (inputs.contains("media")) found.question.media = bundle.file("golden/" + inputs["media"].get<std::string>());
  if (inputs.contains("texts")) found.question.texts = inputs["texts"].get<std::vector<std::string>>();
  if (inputs.contains("tensors")) found.question.tensors = pick(inputs["tensors"], tensors, found.id);
  found.expected = pick(entry.at("expected"), tensors, found.id);
  for (const auto &[precision, comparator] : entry.at("comparator").items()) {
    found.gates[precision] = {comparator.get<std::string>(), entry.at("tolerance").at(precision).get<double>()};
  }
  return found;
}

}  // namespace

std::vector<Case> read_golden(const internal::Bundle &bundle) {
  const std::string path = bundle.file("golden/golden.json");
  try {
    const Json data = Json::parse(internal::read_file(path, kMostBytes, VTR_BUNDLE_ERROR));
    if (data.at("schema") != kSchema) {
      throw Error(VTR_BUNDLE_ERROR, path + " has schema " + data.at("schema").dump() + ", and this reads " +
                                        std::to_string(kSchema) + "; use a newer version of it");
    }
    if (data.at("made_by").at("weights_sha256") != bundle.manifest().weights_sha256) {
      throw Error(VTR_BUNDLE_ERROR,
                  path + " was made with another checkpoint than the bundle; export the bundle again");
    }
    Arrays tensors;
    for (const Json &name : data.at("tensors")) {
      for (auto &[key, array] : read_arrays(bundle.file("golden/" + name.get<std::string>()))) tensors[key] = array;
    }
    std::vector<Case> found;
    for (const Json &entry : data.at("cases")) found.push_back(read_case(entry, tensors, bundle));
    return found;
  } catch (const Json::exception &error) {
    throw Error(VTR_BUNDLE_ERROR, path + " is malformed (" + error.what() + "); export the bundle again");
  }
}

}  // namespace vtr::tools
