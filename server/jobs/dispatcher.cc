#include "server/jobs/dispatcher.h"

#include <utility>

namespace gradwatch::jobs {

Dispatcher::Dispatcher() : thread_([this] { Work(); }) {}

Dispatcher::~Dispatcher() {
  Stop();
  while (ServeAll()) {
  }
}

void Dispatcher::Stop() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Dispatcher::Post(std::shared_ptr<Item> item) {
  if (item->posted_.exchange(true)) return;
  Item* const posted = item.get();
  posted->self_ = std::move(item);
  posted->next_ = newest_.load();
  while (!newest_.compare_exchange_weak(posted->next_, posted)) {
  }
  // In this order, as AwaitPost has it the other way round: one of the two sees the other.
  if (!asleep_) return;
  MutexLock lock(&mu_);
  asleep_ = false;
}

void Dispatcher::Work() {
  while (AwaitPost()) {
    while (ServeAll()) {
      if (!Pause()) break;
    }
  }
  while (ServeAll()) {
  }
}

bool Dispatcher::ServeAll() {
  Item* newest = newest_.exchange(nullptr);
  if (newest == nullptr) return false;
  Item* oldest = nullptr;
  while (newest != nullptr) {
    Item* const next = std::exchange(newest->next_, oldest);
    oldest = std::exchange(newest, next);
  }
  while (oldest != nullptr) {
    const std::shared_ptr<Item> item = std::move(oldest->self_);
    oldest = oldest->next_;
    // First: what is posted from now on has another turn, and what was posted up to now is seen.
    item->posted_.exchange(false);
    item->Serve();
  }
  return true;
}

bool Dispatcher::AwaitPost() {
  MutexLock lock(&mu_);
  asleep_ = true;
  if (newest_ == nullptr) {
    mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !asleep_; });
  }
  asleep_ = false;
  return !stopping_;
}

bool Dispatcher::Pause() {
  MutexLock lock(&mu_);
  return !mu_.AwaitFor([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_; }, kPause);
}

}  // namespace gradwatch::jobs
