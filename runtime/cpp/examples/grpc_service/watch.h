// Ends the work of requests that nobody waits for any more: their deadline has passed or their client is gone.
#pragma once

#include <grpcpp/server_context.h>

#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

// True once an answer would reach nobody.
bool is_over(const grpc::ServerContext &context);

class Watch {
 public:
  Watch();
  ~Watch();  // every Guard is gone by then
  Watch(const Watch &) = delete;
  Watch &operator=(const Watch &) = delete;

  struct Entry {
    const grpc::ServerContext *context;
    std::function<void()> stop;
    bool stopped = false;
  };

  // While it lives, `stop` is called once if the request is over, from the watch's thread.
  class Guard {
   public:
    Guard(Watch &watch, const grpc::ServerContext &context, std::function<void()> stop);
    ~Guard();
    Guard(const Guard &) = delete;
    Guard &operator=(const Guard &) = delete;

   private:
    Watch &watch_;
    std::list<Entry>::iterator place_;
  };

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;
  bool closing_ = false;
  std::thread thread_;
};
