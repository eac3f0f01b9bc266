#include "client/cpp/cancellation.h"

#include <utility>

namespace gradwatch::client {

void Cancellation::Cancel() {
  absl::MutexLock lock(&mu_);
  if (cancelled_) return;
  cancelled_ = true;
  for (const auto& [id, callback] : callbacks_) callback();
  callbacks_.clear();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

bool Cancellation::WaitFor(absl::Duration duration) const {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&cancelled_), duration);
  return cancelled_;
}

int64_t Cancellation::Add(std::function<void()> callback) {
  absl::MutexLock lock(&mu_);
  if (cancelled_) {
    callback();
    return 0;
  }
  callbacks_.emplace(next_id_, std::move(callback));
  return next_id_++;
}

void Cancellation::Remove(int64_t id) {
  absl::MutexLock lock(&mu_);
  callbacks_.erase(id);
}

}  // namespace gradwatch::client
