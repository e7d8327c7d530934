#include "watch.h"

#include <chrono>

namespace {

// How late work may be stopped. gRPC's synchronous server tells nobody: it has to be asked.
constexpr std::chrono::milliseconds kEvery{5};

}  // namespace

bool is_over(const grpc::ServerContext &context) {
  return context.IsCancelled() || context.deadline() <= std::chrono::system_clock::now();
}

Watch::Watch() : thread_([this] { run(); }) {}

Watch::~Watch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watch::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!closing_) {
    if (entries_.empty()) {
      changed_.wait(lock, [this] { return closing_ || !entries_.empty(); });
    } else {
      changed_.wait_for(lock, kEvery, [this] { return closing_; });
    }
    for (Entry &entry : entries_) {
      if (entry.stopped || !is_over(*entry.context)) continue;
      entry.stopped = true;
      entry.stop();
    }
  }
}

Watch::Guard::Guard(Watch &watch, const grpc::ServerContext &context, std::function<void()> stop) : watch_(watch) {
  const std::lock_guard<std::mutex> lock(watch_.mutex_);
  place_ = watch_.entries_.insert(watch_.entries_.end(), {&context, std::move(stop)});
  if (watch_.entries_.size() == 1) watch_.changed_.notify_one();
}

Watch::Guard::~Guard() {
  const std::lock_guard<std::mutex> lock(watch_.mutex_);
  watch_.entries_.erase(place_);
}
