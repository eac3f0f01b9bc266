#include "server/jobs/notify.h"

#include <algorithm>
#include <utility>

namespace gradwatch::jobs {

std::unique_ptr<NotifyHub::Registration> NotifyHub::Add(absl::AnyInvocable<void()> notify) {
  auto callback = std::make_shared<Callback>(std::move(notify));
  {
    MutexLock lock(&shared_->mu);
    shared_->callbacks.push_back(callback);
  }
  return std::unique_ptr<Registration>(new Registration(shared_, std::move(callback)));
}

void NotifyHub::NotifyAll() {
  std::vector<std::shared_ptr<Callback>> callbacks;
  {
    MutexLock lock(&shared_->mu);
    callbacks = shared_->callbacks;
  }
  for (const auto& callback : callbacks) callback->Run();
}

NotifyHub::Registration::~Registration() {
  {
    MutexLock lock(&shared_->mu);
    auto& all = shared_->callbacks;
    all.erase(std::remove(all.begin(), all.end(), callback_), all.end());
  }
  callback_->Cancel();
}

}  // namespace gradwatch::jobs
