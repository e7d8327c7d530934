// vtr-bench: what a bundle costs on this machine, stage by stage. benchmarks/cpp/run.py sets it beside Python.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>

#include "json_lines.h"
#include "quiet.h"
#include "vtr/vtr.hpp"

namespace {

using vtr::tools::json_number;
using vtr::tools::json_string;

// Seconds of each call, until `seconds` have passed and at least five were made; the first is not counted.
std::vector<double> time_calls(double seconds, const std::function<void()> &call) {
  call();
  std::vector<double> found;
  double total = 0;
  while (total < seconds || found.size() < 5) {
    const auto start = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    found.push_back(taken.count());
    total += taken.count();
  }
  std::sort(found.begin(), found.end());
  return found;
}

double quantile(const std::vector<double> &sorted, double part) {
  return sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1) + 0.5)];
}

class Report {
 public:
  explicit Report(bool json) : json_(json) {}
  // `items`: how many are done by one call.
  void add(const char *what, const std::vector<double> &seconds, size_t items) {
    const double rate = static_cast<double>(items) / quantile(seconds, 0.5);
    if (json_) {
      std::printf(
          "{\"what\": %s, \"p50_ms\": %s, \"p90_ms\": %s, \"p99_ms\": %s, \"per_second\": %s, \"calls\": %zu}\n",
          json_string(what).c_str(), json_number(1e3 * quantile(seconds, 0.5)).c_str(),
          json_number(1e3 * quantile(seconds, 0.9)).c_str(), json_number(1e3 * quantile(seconds, 0.99)).c_str(),
          json_number(rate).c_str(), seconds.size());
    } else {
      std::printf("%-34s p50 %10.3f ms  p90 %10.3f ms  p99 %10.3f ms  %12.1f a second\n", what,
                  1e3 * quantile(seconds, 0.5), 1e3 * quantile(seconds, 0.9), 1e3 * quantile(seconds, 0.99), rate);
    }
    std::fflush(stdout);
  }

 private:
  bool json_;
};

std::vector<std::string> sentences(const std::string &path) {
  std::vector<std::string> found;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line) && found.size() < 10'000;) found.push_back(line);
  if (found.empty() && !path.empty()) {
    throw vtr::Error(VTR_INVALID_ARGUMENT, path + " holds no sentence; give a file of one sentence a line");
  }
  for (size_t i = 0; found.size() < 256; ++i) {
    found.push_back("a person in a red coat walks dog number " + std::to_string(i) + " along the river");
  }
  return found;
}

}  // namespace

int main(int argc, char **argv) {
  CLI::App app("Measure tokenization, one query, many queries, frames and videos with a bundle.", "vtr-bench");
  std::string bundle, texts_file, backend = "onnx-cpu";
  std::vector<std::string> videos;
  int threads = 1;
  double seconds = 2;
  size_t width = 1280, height = 720;
  bool json = false, spin = false;
  app.add_option("bundle", bundle, "Folder that vtr-export wrote")->required();
  app.add_option("videos", videos, "Video files, embedded one after the other");
  app.add_option("--texts", texts_file, "A file of one sentence a line, in place of made-up ones");
  app.add_option("--backend", backend, "onnx-cpu, onnx-cuda, onnx-tensorrt or onnx-trt-rtx")->capture_default_str();
  app.add_option("--threads", threads, "Threads of one run of a graph; 0: one per core")->capture_default_str();
  app.add_option("--seconds", seconds, "How long each is measured")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 3600.0));
  app.add_flag("--spin", spin, "Threads of ONNX Runtime that wait spin, as Python's do");
  app.add_option("--width", width, "Of a frame")->capture_default_str()->check(CLI::Range(1, 8192));
  app.add_option("--height", height, "Of a frame")->capture_default_str()->check(CLI::Range(1, 8192));
  app.add_flag("--json", json, "One JSON object a line");
  app.set_version_flag("--version", vtr_version());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  vtr::tools::silence_ffmpeg();
  try {
    const std::vector<std::string> texts = sentences(texts_file);
    vtr_model_options options = vtr::Model::options();
    options.backend = backend.c_str();
    options.threads = threads;
    options.spin = spin ? 1 : 0;
    const vtr::Model model(bundle, options);
    Report report(json);
    report.add("tokenize", time_calls(seconds, [&] { model.tokenize(texts); }), texts.size());
    size_t next = 0;
    report.add("embed one sentence", time_calls(seconds, [&] { model.embed_texts({texts[next++ % texts.size()]}); }),
               1);
    const std::vector<std::string> many(texts.begin(), texts.begin() + 64);
    report.add("embed 64 sentences", time_calls(seconds, [&] { model.embed_texts(many); }), many.size());
    std::vector<uint8_t> pixels(width * height * 3);
    uint32_t state = 1;
    for (uint8_t &pixel : pixels) pixel = static_cast<uint8_t>((state = state * 1664525U + 1013904223U) >> 24);
    const vtr_frame frame = {pixels.data(), width, height, 0};
    const size_t size = model.info().frame_size, count = model.info().frames;
    std::vector<uint8_t> square(size * size * 3);
    report.add("resize one frame",
               time_calls(seconds, [&] { vtr::check(vtr_resize_frame(&frame, size, square.data())); }), 1);
    const std::vector<vtr_frame> frames(count, frame);
    report.add("embed one clip of frames",
               time_calls(seconds,
                          [&] {
                            model.embed_clips({{frames.data(), count}});
                          }),
               1);
    if (!videos.empty()) {
      report.add("embed all videos",
                 time_calls(seconds,
                            [&] {
                              for (const std::string &path : videos) model.embed_video(path);
                            }),
                 videos.size());
    }
    return 0;
  } catch (const vtr::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.code() == VTR_INVALID_ARGUMENT ? 2 : 1;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
