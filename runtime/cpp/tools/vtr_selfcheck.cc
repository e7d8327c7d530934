// vtr-selfcheck: does this library make of a bundle's golden inputs what PyTorch made of them?
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>

#include "json_lines.h"
#include "quiet.h"
#include "selfcheck/comparators.h"
#include "selfcheck/golden.h"
#include "selfcheck/serve.h"

namespace {

using namespace vtr::tools;  // NOLINT: this is the tool
using vtr::internal::EngineOptions;
using vtr::internal::Error;
using vtr::internal::Model;

struct Result {
  std::string stage, id, status, where, hint;
  double measured = 0, limit = 0;
};

const char *hint_of(const std::string &stage) {
  static const std::map<std::string, const char *> kHints = {
      {"container", "another FFmpeg, or a re-muxed file"},
      {"indices", "another FFmpeg, or a re-muxed file"},
      {"rgb", "an FFmpeg whose swscale was built without bit-exact paths"},
      {"pixels", "a compiler that fuses multiply and add: build with -ffp-contract=off"},
      {"ids", "a bundle whose tokenizer.json is newer than this library"},
      {"ranking", "embeddings that moved more than their tolerance"},
  };
  const auto found = kHints.find(stage);
  return found == kHints.end() ? "reduced precision, or another provider than the bundle was checked with"
                               : found->second;
}

Result check(const Host &host, const Case &known) {
  Result result{known.question.stage, known.id, "not_run", "", "", 0, 0};
  const auto gate = known.gates.find(host.precision());
  try {
    const Answer answer = host.answer(known.question);
    if (!answer.not_run.empty() || gate == known.gates.end()) {
      result.hint = answer.not_run.empty() ? "golden.json has no limit for " + host.precision() : answer.not_run;
      return result;
    }
    const Comparison found = compare(gate->second.comparator, known.expected, answer.arrays, gate->second.limit);
    result.status = found.passed ? "pass" : "fail";
    result.measured = found.measured;
    result.where = found.where;
  } catch (const Error &error) {
    result.status = error.code() == VTR_UNAVAILABLE ? "not_run" : "fail";
    result.where = error.what();
  }
  if (gate != known.gates.end()) result.limit = gate->second.limit;
  result.hint = result.status == "not_run" ? result.where : hint_of(result.stage);
  return result;
}

void print(const Result &result) {
  if (result.status == "not_run") {
    std::printf("%-18s %-36s NOT RUN  %s\n", result.stage.c_str(), result.id.c_str(), result.hint.c_str());
    return;
  }
  std::printf("%-18s %-36s %-7s  %.3g (limit %.3g) %s\n", result.stage.c_str(), result.id.c_str(),
              result.status == "pass" ? "pass" : "FAIL", result.measured, result.limit,
              result.status == "pass" ? "" : result.where.c_str());
}

std::string line_of(const Result &result, const std::string &backend, const std::string &precision) {
  const bool ran = result.status != "not_run";
  std::string line = R"({"schema": 1, "host": "vtr-runtime-cpp", "backend": )" + json_string(backend) +
                     ", \"stage\": " + json_string(result.stage) + ", \"case\": " + json_string(result.id) +
                     ", \"status\": " + json_string(result.status) +
                     ", \"measured\": " + (ran ? json_number(result.measured) : "null") +
                     ", \"limit\": " + (ran ? json_number(result.limit) : "null");
  line += ", \"where\": " + json_string(result.where) + ", \"hint\": " + json_string(result.hint);
  return line + ", \"precision\": " + json_string(precision) + "}\n";
}

int check_bundle(const std::string &bundle, const EngineOptions &options, const std::string &report) {
  const Model model(bundle, options);
  const Host host(model);
  std::ofstream lines;
  if (!report.empty()) lines.open(report, std::ios::trunc);
  size_t passed = 0, failed = 0, not_run = 0;
  std::string first;
  for (const Case &known : read_golden(model.bundle())) {
    const Result result = check(host, known);
    print(result);
    if (lines.is_open()) lines << line_of(result, options.backend, host.precision());
    if (result.status == "fail" && failed++ == 0) first = result.stage;
    passed += result.status == "pass";
    not_run += result.status == "not_run";
  }
  lines.close();
  if (!report.empty() && !lines) throw Error(VTR_INTERNAL, report + " cannot be written; give another place");
  const std::string verdict = failed != 0   ? "first stage that moved: " + first
                              : passed == 0 ? "nothing was checked"
                                            : "every gate met";
  std::printf("%s: %zu passed, %zu failed, %zu not run\n", verdict.c_str(), passed, failed, not_run);
  return failed == 0 && passed != 0 ? 0 : 3;
}

}  // namespace

int main(int argc, char **argv) {
  CLI::App app("Check this library on a bundle's golden vectors, stage by stage; ends with 3 on a miss.",
               "vtr-selfcheck");
  std::string bundle, report;
  EngineOptions options;
  bool serving = false;
  app.add_option("bundle", bundle, "Folder that vtr-export wrote");
  app.add_option("--backend", options.backend, "onnx-cpu, onnx-cuda, onnx-tensorrt or onnx-trt-rtx")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads of one run of a graph; 0: one per core")->capture_default_str();
  app.add_option("--report", report, "A file for the results, one JSON object a line");
  app.add_flag("--serve", serving,
               "Be a host of vtr-conformance: requests on standard input, answers on standard output");
  app.set_version_flag("--version", vtr_version());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  silence_ffmpeg();
  try {
    if (serving) {
      serve(std::cin, std::cout, options);
      return 0;
    }
    if (bundle.empty()) {
      std::fprintf(stderr, "give a bundle's folder, or --serve\n");
      return 2;
    }
    return check_bundle(bundle, options, report);
  } catch (const Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.code() == VTR_INVALID_ARGUMENT ? 2 : 1;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
