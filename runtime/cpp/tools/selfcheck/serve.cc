#include "serve.h"

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "golden.h"
#include "host.h"

namespace vtr::tools {
namespace {

using Json = nlohmann::json;

class Session {
 public:
  explicit Session(const internal::EngineOptions &options) : options_(options) {}

  Json reply(const Json &request) {
    const std::string what = request.at("do").get<std::string>();
    if (what == "hello") return hello(request);
    if (!host_) throw internal::Error(VTR_INVALID_ARGUMENT, "hello comes first");
    const auto start = std::chrono::steady_clock::now();
    Answer answer;
    if (what == "run") {
      answer.arrays = host_->run(request.at("graph").get<std::string>(), tensors_of(request));
    } else if (what == "answer") {
      Question question;
      question.stage = request.at("stage").get<std::string>();
      question.media = request.value("media", "");
      question.texts = request.value("texts", std::vector<std::string>());
      question.tensors = tensors_of(request);
      answer = host_->answer(question);
    } else {
      throw internal::Error(VTR_UNAVAILABLE, "this host does not do '" + what + "'");
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (!answer.not_run.empty()) return {{"not_run", answer.not_run}};
    write_arrays(request.at("output").get<std::string>(), answer.arrays);
    return {{"seconds", taken.count()}};
  }

 private:
  Json hello(const Json &request) {
    model_ = std::make_unique<internal::Model>(request.at("bundle").get<std::string>(), options_);
    host_ = std::make_unique<Host>(*model_);
    std::set<std::string> stages;
    for (const Case &known : read_golden(model_->bundle())) {
      const std::string &stage = known.question.stage;
      stages.insert(stage.rfind("sampler_step_", 0) == 0 ? "sampler_step" : stage);
    }
    std::vector<std::string> graphs;
    for (const char *name : {"video", "text", "rerank"}) {
      if (model_->engine().has(name)) graphs.emplace_back(name);
    }
    Json found = {{"protocol", 1},
                  {"name", "vtr-runtime-cpp"},
                  {"backend", model_->engine().backend()},
                  {"precision", host_->precision()},
                  {"version", vtr_version()},
                  {"stages", stages},
                  {"graphs", graphs}};
    if (!host_->note().empty()) found["note"] = host_->note();
    return found;
  }
  static Arrays tensors_of(const Json &request) {
    return request.contains("tensors") ? read_arrays(request["tensors"].get<std::string>()) : Arrays();
  }

  internal::EngineOptions options_;
  std::unique_ptr<internal::Model> model_;
  std::unique_ptr<Host> host_;
};

}  // namespace

void serve(std::istream &requests, std::ostream &answers, const internal::EngineOptions &options) {
  Session session(options);
  for (std::string line; std::getline(requests, line);) {
    Json request = Json::parse(line, nullptr, /*allow_exceptions=*/false), answer;
    if (request.is_object() && request.value("do", "") == "bye") return;
    try {
      answer = session.reply(request);
    } catch (const std::exception &error) {
      answer = {{"error", error.what()}};
    }
    if (request.is_object() && request.contains("id")) answer["id"] = request["id"];
    answers << answer.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace) << std::endl;
  }
}

}  // namespace vtr::tools
