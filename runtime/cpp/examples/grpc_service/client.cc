// vtr-grpc-client HOST:PORT health | describe | text SENTENCE... | video PATH... | search SENTENCE
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "health.grpc.pb.h"
#include "retrieval.grpc.pb.h"

namespace {

using vtr::v1::Retrieval;

// A context of its own for each call: the time that the whole call may take.
struct Context : grpc::ClientContext {
  explicit Context(int ms) { set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(ms)); }
};

void check(const grpc::Status &status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

void print(const std::string &name, const vtr::v1::Embedding &embedding) {
  std::printf("%s:", name.c_str());
  for (const float value : embedding.values()) std::printf(" %.6g", value);
  std::printf("\n");
}

}  // namespace

int main(int argc, char **argv) {
  CLI::App app("Asks vtr-grpc-server.", "vtr-grpc-client");
  std::string address, sentence;
  std::vector<std::string> texts, paths;
  int timeout_ms = 10000;
  uint32_t k = 10;
  app.add_option("address", address, "HOST:PORT of the server")->required();
  app.add_option("--timeout-ms", timeout_ms, "For each call")->capture_default_str();
  app.require_subcommand(1);
  CLI::App *health = app.add_subcommand("health", "Status 0 where the server is serving");
  CLI::App *describe = app.add_subcommand("describe", "The server's bundle");
  CLI::App *text = app.add_subcommand("text", "Embed sentences");
  text->add_option("sentences", texts)->required();
  CLI::App *video = app.add_subcommand("video", "Embed files of the server's media folder");
  video->add_option("paths", paths)->required();
  CLI::App *search = app.add_subcommand("search", "Find videos");
  search->add_option("sentence", sentence)->required();
  search->add_option("-k", k, "Hits")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const auto stub = Retrieval::NewStub(channel);
  Context context(timeout_ms);
  try {
    if (*health) {
      grpc::health::v1::HealthCheckRequest request;
      grpc::health::v1::HealthCheckResponse response;
      request.set_service(Retrieval::service_full_name());
      check(grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &response));
      std::printf("%s\n", grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status()).c_str());
      return response.status() == grpc::health::v1::HealthCheckResponse::SERVING ? 0 : 1;
    }
    if (*describe) {
      vtr::v1::DescribeResponse response;
      check(stub->Describe(&context, {}, &response));
      std::printf("%s", response.DebugString().c_str());
    }
    if (*text) {
      vtr::v1::EmbedTextsRequest request;
      vtr::v1::EmbedTextsResponse response;
      for (const std::string &one : texts) request.add_texts(one);
      check(stub->EmbedTexts(&context, request, &response));
      for (size_t i = 0; i < texts.size(); ++i) print(texts[i], response.embeddings(static_cast<int>(i)));
    }
    for (const std::string &path : paths) {
      Context each(timeout_ms);
      vtr::v1::EmbedVideoRequest request;
      vtr::v1::EmbedVideoResponse response;
      request.set_path(path);
      check(stub->EmbedVideo(&each, request, &response));
      print(path, response.embedding());
    }
    if (*search) {
      vtr::v1::SearchRequest request;
      vtr::v1::SearchResponse response;
      request.set_text(sentence);
      request.set_k(k);
      check(stub->Search(&context, request, &response));
      for (const vtr::v1::Hit &hit : response.hits()) std::printf("%.4f  %s\n", hit.score(), hit.name().c_str());
    }
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
