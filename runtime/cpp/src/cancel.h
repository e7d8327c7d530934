// Asking calls to stop, whichever thread they run in.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <mutex>

#include "status.h"

namespace vtr::internal {

class Cancel {
 public:
  // Runs the stoppers of all calls that are under way; safe from any thread, any number of times.
  void request();
  bool requested() const { return requested_.load(std::memory_order_acquire); }
  const std::atomic<bool> *flag() const { return &requested_; }

  // While one lives, a request also calls `stop`. `cancel` may be null.
  class Scope {
   public:
    Scope(Cancel *cancel, std::function<void()> stop);
    ~Scope();
    Scope(const Scope &) = delete;
    Scope &operator=(const Scope &) = delete;

   private:
    Cancel *cancel_;
    std::list<std::function<void()>>::iterator place_;
  };

 private:
  std::atomic<bool> requested_{false};
  std::mutex mutex_;
  std::list<std::function<void()>> stoppers_;
};

// Error(VTR_CANCELLED) once a request was made; `cancel` may be null.
void check_cancelled(const Cancel *cancel);

}  // namespace vtr::internal
