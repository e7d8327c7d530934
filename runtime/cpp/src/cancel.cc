#include "cancel.h"

#include <utility>

namespace vtr::internal {

void Cancel::request() {
  requested_.store(true, std::memory_order_release);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto &stop : stoppers_) stop();
}

Cancel::Scope::Scope(Cancel *cancel, std::function<void()> stop) : cancel_(cancel) {
  if (cancel_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(cancel_->mutex_);
  place_ = cancel_->stoppers_.insert(cancel_->stoppers_.end(), std::move(stop));
  if (cancel_->requested()) (*place_)();
}

Cancel::Scope::~Scope() {
  if (cancel_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(cancel_->mutex_);
  cancel_->stoppers_.erase(place_);
}

void check_cancelled(const Cancel *cancel) {
  if (cancel != nullptr && cancel->requested()) throw Error(VTR_CANCELLED, "the call was cancelled");
}

}  // namespace vtr::internal
