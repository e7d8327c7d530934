// The calls of retrieval.proto over a bundle and, perhaps, an index. Runs in the threads of gRPC's synchronous server.
#pragma once

#include <atomic>
#include <filesystem>
#include <optional>
#include <string>

#include "batcher.h"
#include "retrieval.grpc.pb.h"
#include "vtr/vtr.hpp"
#include "watch.h"

struct ServiceOptions {
  std::string bundle;
  std::string index;  // empty: no search
  std::string media;  // empty: no EmbedVideo
  std::string backend = "onnx-cpu";
  int threads = 1;       // of one graph's run
  size_t clips = 4;      // embedded at a time; more are refused
  size_t texts = 256;    // of a request
  size_t most_k = 1000;  // hits of a search
  BatcherOptions batching;
};

class Service final : public vtr::v1::Retrieval::Service {
 public:
  // Throws vtr::Error where the bundle, the index or the media folder cannot be used.
  explicit Service(const ServiceOptions &options);

  grpc::Status Describe(grpc::ServerContext *context, const vtr::v1::DescribeRequest *request,
                        vtr::v1::DescribeResponse *response) override;
  grpc::Status EmbedTexts(grpc::ServerContext *context, const vtr::v1::EmbedTextsRequest *request,
                          vtr::v1::EmbedTextsResponse *response) override;
  grpc::Status EmbedFrames(grpc::ServerContext *context, const vtr::v1::EmbedFramesRequest *request,
                           vtr::v1::EmbedVideoResponse *response) override;
  grpc::Status EmbedVideo(grpc::ServerContext *context, const vtr::v1::EmbedVideoRequest *request,
                          vtr::v1::EmbedVideoResponse *response) override;
  grpc::Status Search(grpc::ServerContext *context, const vtr::v1::SearchRequest *request,
                      vtr::v1::SearchResponse *response) override;

  const vtr::Model &model() const { return model_; }
  const Batcher &batcher() const { return batcher_; }

 private:
  vtr::Matrix embed_texts(const std::vector<std::string> &texts, const grpc::ServerContext &context);
  std::string media_path(const std::string &given) const;

  const ServiceOptions options_;
  const vtr::Model model_;
  std::optional<vtr::Index> index_;
  std::filesystem::path media_;
  std::atomic<size_t> clips_{0};
  Watch watch_;
  Batcher batcher_;
};
