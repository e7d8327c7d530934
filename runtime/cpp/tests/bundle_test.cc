#include "bundle.h"

#include <gtest/gtest.h>

#include <string>

namespace {

using vtr::internal::Error;
using vtr::internal::parse_manifest;

std::string failure(const std::string &json) {
  try {
    parse_manifest(json, "here");
  } catch (const Error &error) {
    return error.what();
  }
  return "";
}

TEST(Manifest, WhatIsNoManifestIsRefusedInASentence) {
  EXPECT_NE(failure("{").find("not JSON"), std::string::npos);
  EXPECT_NE(failure("[]").find("not a vtr-export bundle"), std::string::npos);
  EXPECT_NE(failure(R"({"format": "zip"})").find("not a vtr-export bundle"), std::string::npos);
  EXPECT_NE(failure(R"({"format": "vtr-bundle", "schema_version": 99})").find("newer version"), std::string::npos);
  EXPECT_NE(failure(R"({"format": "vtr-bundle", "schema_version": 1})").find("'name' (missing)"), std::string::npos);
}

TEST(Manifest, WhatIsNotDoneIsRefusedByName) {
  const std::string before = R"({"format": "vtr-bundle", "schema_version": 1, "name": "a", "space": "a", "variant": "a",
    "weights_sha256": "a", "precision": "fp32", "graph_precision": "fp32", "dim": 4,
    "frames": {"count": 4, "size": 32, "resize": "shortest", "interpolation": "bicubic", "sampling": ")";
  EXPECT_EQ(failure(before + R"(every"}})"),
            "here has frames.sampling every, and this library does only uniform or fps1; use the Python runtime, or a "
            "newer version of this one");
  for (const char *known : {"uniform", "fps1"}) {
    EXPECT_NE(failure(before + known + "\"}}").find("'normalisation' (missing)"), std::string::npos);
  }
}

TEST(Manifest, NestingWithoutEndIsRefused) {
  EXPECT_NE(failure(std::string(1 << 20, '[')).find("not JSON"), std::string::npos);
}

TEST(Bundle, AFolderThatIsNoneIsRefused) { EXPECT_THROW(vtr::internal::Bundle("/nowhere/at/all"), Error); }

}  // namespace
