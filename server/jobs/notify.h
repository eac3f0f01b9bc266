#ifndef GRADWATCH_SERVER_JOBS_NOTIFY_H_
#define GRADWATCH_SERVER_JOBS_NOTIFY_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "server/base/mutex.h"

namespace gradwatch::jobs {

// A callback that can be called off: once Cancel has returned, it does not run and is not running.
// The callback must not cancel itself. Thread-safe.
class Callback {
 public:
  explicit Callback(absl::AnyInvocable<void()> call) : call_(std::move(call)) {}

  void Run() {
    MutexLock lock(&mu_);
    if (call_) call_();
  }
  void Cancel() {
    MutexLock lock(&mu_);
    call_ = nullptr;
  }

 private:
  // Held while the callback runs; the callback only hands work on.
  Mutex mu_;
  absl::AnyInvocable<void()> call_ ABSL_GUARDED_BY(mu_);
};

// Callbacks that want to know that something changed. Thread-safe. Registrations may outlive it.
class NotifyHub {
 public:
  NotifyHub() : shared_(std::make_shared<Shared>()) {}

  // Ends with the registration's destructor, as Callback::Cancel.
  class Registration;
  std::unique_ptr<Registration> Add(absl::AnyInvocable<void()> notify);

  // Runs every callback on this thread. Hold no lock that a callback may want.
  void NotifyAll();

 private:
  struct Shared {
    Mutex mu;
    std::vector<std::shared_ptr<Callback>> callbacks ABSL_GUARDED_BY(mu);
  };
  const std::shared_ptr<Shared> shared_;
};

class NotifyHub::Registration {
 public:
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  friend class NotifyHub;
  Registration(std::shared_ptr<Shared> shared, std::shared_ptr<Callback> callback)
      : shared_(std::move(shared)), callback_(std::move(callback)) {}

  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<Callback> callback_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_NOTIFY_H_
