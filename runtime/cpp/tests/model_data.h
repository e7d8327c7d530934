// What make_model_data.py wrote: a bundle and what the Python runtime makes of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor_file.h"

inline std::string model_data(const std::string &name) {
  const char *folder = std::getenv("VTR_TEST_DATA");
  return (folder == nullptr ? "." : std::string(folder)) + "/model/" + name;
}

// A test of a bundle fails, and says what to run, where the bundle is not there.
class ModelData : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream(model_data("expected.safetensors"))) {
      GTEST_FAIL() << model_data("expected.safetensors")
                   << " is not there; run python runtime/cpp/tests/make_model_data.py FOLDER and set "
                   << "VTR_TEST_DATA=FOLDER";
    }
    expected_ = std::make_unique<vtr::internal::TensorFile>(model_data("expected.safetensors"), VTR_INTERNAL);
    std::ifstream file(model_data("texts.jsonl"));
    for (std::string line; std::getline(file, line);) texts_.push_back(nlohmann::json::parse(line));
  }

  template <typename T>
  std::vector<T> expected(const std::string &name) const {
    const auto &view = expected_->get(name);
    std::vector<T> values(view.bytes / sizeof(T));
    std::memcpy(values.data(), view.data, view.bytes);
    return values;
  }
  std::vector<uint64_t> shape(const std::string &name) const { return expected_->get(name).shape; }
  std::vector<std::string> names(const std::string &prefix) const {
    std::vector<std::string> found;
    for (const auto &[name, _] : expected_->all()) {
      if (name.rfind(prefix, 0) == 0) found.push_back(name.substr(prefix.size()));
    }
    return found;
  }

  std::vector<std::string> texts_;

 private:
  std::unique_ptr<vtr::internal::TensorFile> expected_;
};

// Embeddings agree with Python's to the last digits that another batch may change.
inline void expect_near(const std::vector<float> &want, const float *got, double limit = 1e-6) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i])) << i;
    worst = std::max(worst, std::abs(static_cast<double>(want[i]) - got[i]));
  }
  EXPECT_LE(worst, limit);
}
