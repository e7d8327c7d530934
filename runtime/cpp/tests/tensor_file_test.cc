#include "tensor_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace {

using vtr::internal::Error;
using vtr::internal::TensorFile;

std::string written(const std::string &header, const std::string &body) {
  const std::string path = testing::TempDir() + "/tensors.safetensors";
  std::ofstream file(path, std::ios::binary);
  for (int byte = 0; byte < 8; ++byte) file.put(static_cast<char>(header.size() >> 8 * byte & 255));
  file << header << body;
  return path;
}

TEST(TensorFile, TensorsAndMetadataAreFound) {
  const auto path = written(R"({"__metadata__":{"space":"x"},"a":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]}})",
                            std::string("\1\0\0\0\2\0\0\0", 8));
  const TensorFile file(path, VTR_INDEX_ERROR);
  EXPECT_EQ(file.metadata().at("space"), "x");
  EXPECT_EQ(file.get("a", "I32").elements(), 2u);
  EXPECT_EQ(file.get("a").data[4], 2);
  EXPECT_THROW(file.get("a", "F32"), Error);
  EXPECT_THROW(file.get("b"), Error);
}

TEST(TensorFile, WhatLiesAboutItsSizeIsRefused) {
  for (const char *header : {
           R"({"a":{"dtype":"I32","shape":[3],"data_offsets":[0,12]}})",
           R"({"a":{"dtype":"I32","shape":[1],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"I32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
           R"({"a":{"dtype":"I32","shape":[-1],"data_offsets":[0,4]}})",
           R"({"a":{"dtype":"X32","shape":[2],"data_offsets":[0,8]}})",
           R"({"a":{"dtype":"I32","shape":[0],"data_offsets":[8,0]}})",
           R"({"a":7})",
           R"({"__metadata__":{"space":1}})",
           "[]",
           "{",
       }) {
    EXPECT_THROW(TensorFile(written(header, std::string(8, '\0')), VTR_INDEX_ERROR), Error) << header;
  }
  EXPECT_THROW(TensorFile("/dev/null", VTR_INDEX_ERROR), Error);
  EXPECT_THROW(TensorFile("/nowhere", VTR_INDEX_ERROR), Error);
}

}  // namespace
