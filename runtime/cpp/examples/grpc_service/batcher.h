// Sentences of many requests through the text graph together: a pass over 16 costs far less than 16 passes.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "vtr/vtr.hpp"
#include "watch.h"

struct BatcherOptions {
  size_t most = 64;                   // sentences of a pass
  std::chrono::milliseconds wait{2};  // for others, from the first sentence on
  size_t most_waiting = 1024;         // sentences; more are refused
};

// The queue is full.
struct Busy : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The request is over: its deadline has passed, its client is gone, or the server stops.
struct Over : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Batcher {
 public:
  Batcher(const vtr::Model &model, Watch &watch, const BatcherOptions &options);
  ~Batcher();  // no call of `embed` runs by then
  Batcher(const Batcher &) = delete;
  Batcher &operator=(const Batcher &) = delete;

  // Waits for the embeddings of ids [count, context_length], which vtr::Model::tokenize gave: a bad sentence is found
  // there, before it could spoil a pass for others. Throws vtr::Error, Busy or Over.
  vtr::Matrix embed(std::vector<int32_t> ids, size_t count, const grpc::ServerContext &context);

  // Sentences that went through the graph, and passes.
  size_t embedded() const { return embedded_; }
  size_t passes() const { return passes_; }

 private:
  struct Job;
  struct Pass;
  using Jobs = std::vector<std::shared_ptr<Job>>;

  void run();
  void leave(Job &job);
  Jobs take(std::unique_lock<std::mutex> &lock);
  void embed(const Jobs &jobs, const vtr::Cancel &cancel);

  const vtr::Model &model_;
  Watch &watch_;
  const BatcherOptions options_;
  std::mutex mutex_;
  std::condition_variable arrived_, answered_;
  std::deque<std::shared_ptr<Job>> waiting_;
  size_t sentences_waiting_ = 0;
  bool closing_ = false;
  std::atomic<size_t> embedded_{0}, passes_{0};
  std::thread worker_;
};
