// What make_frame_data.py wrote.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

inline std::string frame_data(const std::string &name) {
  const char *folder = std::getenv("VTR_TEST_DATA");
  return (folder == nullptr ? "." : std::string(folder)) + "/frames/" + name;
}

// The lines of a text file; none, and a failed test that says what to run, where it is not there.
inline std::vector<std::string> frame_lines(const std::string &name) {
  std::vector<std::string> lines;
  std::ifstream file(frame_data(name));
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  if (lines.empty()) {
    ADD_FAILURE() << frame_data(name)
                  << " is not there; run python runtime/cpp/tests/make_frame_data.py FOLDER and set "
                  << "VTR_TEST_DATA=FOLDER";
  }
  return lines;
}

// The parts of a line between the marks.
inline std::vector<std::string> split(const std::string &line, char mark) {
  std::vector<std::string> parts(1);
  for (const char letter : line) {
    if (letter == mark) {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  return parts;
}
