// Find videos by a sentence:  minimal BUNDLE "a dog runs" VIDEO...
#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "vtr/vtr.hpp"

int main(int argc, char **argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s BUNDLE SENTENCE VIDEO...\n", argv[0]);
    return 2;
  }
  try {
    const vtr::Model model(argv[1]);
    const vtr::Matrix query = model.embed_texts({argv[2]});
    std::vector<std::pair<float, std::string>> found;
    int status = 0;
    for (int i = 3; i < argc; ++i) {
      try {
        const std::vector<float> video = model.embed_video(argv[i]);
        found.emplace_back(std::inner_product(video.begin(), video.end(), query.row(0), 0.0F), argv[i]);
      } catch (const vtr::Error &error) {  // one bad file does not stop the others
        std::fprintf(stderr, "%s\n", error.what());
        status = 1;
      }
    }
    std::sort(found.rbegin(), found.rend());
    for (const auto &[score, path] : found) std::printf("%.4f  %s\n", score, path.c_str());
    return status;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
