// vtr-grpc-server BUNDLE [--index FILE.vtri] [--media FOLDER]: ends with SIGTERM or SIGINT, with status 0.
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "server.h"

int main(int argc, char **argv) {
  // Before any thread starts, so that all of them leave the signals to sigwait below.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  ServerOptions options;
  ServiceOptions &service = options.service;
  int wait_ms = static_cast<int>(service.batching.wait.count()), grace_s = 10, message_mb = options.message_bytes >> 20;
  CLI::App app("Embeddings and search of a bundle over gRPC.", "vtr-grpc-server");
  app.add_option("bundle", service.bundle, "Folder that vtr-export wrote")->required();
  app.add_option("--index", service.index, "A .vtri file to search in");
  app.add_option("--media", service.media, "Folder whose videos EmbedVideo may read");
  app.add_option("--listen", options.address, "HOST:PORT; port 0: any that is free")->capture_default_str();
  app.add_option("--backend", service.backend, "onnx-cpu, onnx-cuda, onnx-tensorrt or onnx-trt-rtx")
      ->capture_default_str();
  app.add_option("--threads", service.threads, "Threads of one run of a graph")->capture_default_str();
  app.add_option("--batch", service.batching.most, "Sentences of a pass; 1: no batching")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_option("--batch-wait-ms", wait_ms, "How long a sentence waits for others")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  app.add_option("--clips", service.clips, "Clips embedded at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--requests", options.requests, "Requests at a time")
      ->capture_default_str()
      ->check(CLI::Range(4, 4096));
  app.add_option("--message-mb", message_mb, "Largest message")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_option("--grace", grace_s, "Seconds that running requests get when the server is stopped")
      ->capture_default_str()
      ->check(CLI::Range(0, 3600));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  service.batching.wait = std::chrono::milliseconds(wait_ms);
  options.message_bytes = message_mb << 20;
  try {
    Server server(options);
    std::printf("listening on port %d\n", server.port());
    std::fflush(stdout);
    int signal = 0;
    sigwait(&signals, &signal);
    server.stop(std::chrono::seconds(grace_s));
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
