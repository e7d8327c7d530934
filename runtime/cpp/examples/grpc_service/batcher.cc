#include "batcher.h"

#include <algorithm>
#include <exception>
#include <utility>

// What of a pass is still waited for; the last one who leaves stops it.
struct Batcher::Pass {
  vtr::Cancel cancel;
  size_t waited_for = 0;
};

struct Batcher::Job {
  std::vector<int32_t> ids;
  size_t count = 0;
  vtr::Matrix found;
  std::exception_ptr error;
  bool done = false;
  bool left = false;
  std::shared_ptr<Pass> pass;  // while its pass runs
  std::chrono::steady_clock::time_point came;
  std::chrono::system_clock::time_point deadline;
};

Batcher::Batcher(const vtr::Model &model, Watch &watch, const BatcherOptions &options)
    : model_(model), watch_(watch), options_(options), worker_([this] { run(); }) {}

Batcher::~Batcher() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  arrived_.notify_one();
  worker_.join();
}

vtr::Matrix Batcher::embed(std::vector<int32_t> ids, size_t count, const grpc::ServerContext &context) {
  const auto job = std::make_shared<Job>();
  job->ids = std::move(ids);
  job->count = count;
  job->came = std::chrono::steady_clock::now();
  job->deadline = context.deadline();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_over(context)) throw Over("the deadline has passed");
    if (sentences_waiting_ + count > options_.most_waiting) {
      throw Busy("more than " + std::to_string(options_.most_waiting) + " sentences wait; try again later");
    }
    waiting_.push_back(job);
    sentences_waiting_ += count;
  }
  arrived_.notify_one();
  const Watch::Guard guard(watch_, context, [this, job] { leave(*job); });
  std::unique_lock<std::mutex> lock(mutex_);
  answered_.wait(lock, [&] { return job->done || job->left; });
  if (!job->done) throw Over("the deadline has passed");
  if (job->error) std::rethrow_exception(job->error);
  return std::move(job->found);
}

// Its request is over: a waiting job is passed over, a running pass is stopped where it was the last.
void Batcher::leave(Job &job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (job.done || job.left) return;
    job.left = true;
    if (job.pass != nullptr && --job.pass->waited_for == 0) job.pass->cancel.request();
  }
  answered_.notify_all();
}

// What waits, once there are enough or the first has waited long enough. A request of more than `most` sentences makes
// a pass alone, which the library cuts into parts.
Batcher::Jobs Batcher::take(std::unique_lock<std::mutex> &lock) {
  arrived_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
  if (waiting_.empty()) return {};
  arrived_.wait_until(lock, waiting_.front()->came + options_.wait,
                      [this] { return closing_ || sentences_waiting_ >= options_.most; });
  Jobs jobs;
  size_t sentences = 0;
  while (!waiting_.empty()) {
    const auto &next = waiting_.front();
    if (next->deadline <= std::chrono::system_clock::now()) next->left = true;
    if (next->left) {
      answered_.notify_all();
    } else {
      if (!jobs.empty() && sentences + next->count > options_.most) break;
      sentences += next->count;
      jobs.push_back(next);
    }
    sentences_waiting_ -= next->count;
    waiting_.pop_front();
  }
  return jobs;
}

void Batcher::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!closing_ || !waiting_.empty()) {
    const Jobs jobs = take(lock);
    if (jobs.empty()) continue;
    std::exception_ptr error;
    std::shared_ptr<Pass> pass;
    try {
      pass = std::make_shared<Pass>();
      pass->waited_for = jobs.size();
      for (const auto &job : jobs) job->pass = pass;
      lock.unlock();
      embed(jobs, pass->cancel);
    } catch (...) {
      error = std::current_exception();
    }
    if (!lock.owns_lock()) lock.lock();
    for (const auto &job : jobs) {
      job->error = error;
      job->done = true;
      job->pass = nullptr;
    }
    answered_.notify_all();
  }
}

void Batcher::embed(const Jobs &jobs, const vtr::Cancel &cancel) {
  size_t count = 0;
  std::vector<int32_t> ids;
  for (const auto &job : jobs) {
    ids.insert(ids.end(), job->ids.begin(), job->ids.end());
    count += job->count;
  }
  const size_t dim = model_.dim();
  std::vector<float> found(count * dim);
  vtr::check(vtr_embed_ids(model_.get(), ids.data(), count, model_.info().context_length, cancel.get(), found.data()));
  auto from = found.begin();
  for (const auto &job : jobs) {
    const auto to = from + static_cast<ptrdiff_t>(job->count * dim);
    job->found = {std::vector<float>(from, to), job->count, dim};
    from = to;
  }
  embedded_ += count;
  ++passes_;
}
