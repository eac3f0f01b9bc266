#ifndef GRADWATCH_SERVER_JOBS_TIMER_H_
#define GRADWATCH_SERVER_JOBS_TIMER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/jobs/notify.h"

namespace gradwatch::jobs {

// Runs callbacks on a thread of its own when their time has come, at most kLateness later by the
// clock that it is given. Thread-safe.
class Timer {
 public:
  static constexpr absl::Duration kLateness = absl::Milliseconds(20);

  explicit Timer(const Clock* clock);
  ~Timer();

  // Ends the thread; what is still waiting never runs. Idempotent, by one thread at a time.
  void Stop();

  // Ends with the handle's destructor, as Callback::Cancel. Handles may outlive the timer.
  class Handle;
  std::unique_ptr<Handle> At(absl::Time time, absl::AnyInvocable<void()> call);
  // The same without a way to call it off.
  void Schedule(absl::Time time, absl::AnyInvocable<void()> call);

 private:
  struct Shared {
    Mutex mu;
    std::multimap<absl::Time, std::shared_ptr<Callback>> waiting ABSL_GUARDED_BY(mu);
    bool stopping ABSL_GUARDED_BY(mu) = false;
  };
  void Work();

  const Clock* const clock_;
  const std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

class Timer::Handle {
 public:
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

 private:
  friend class Timer;
  Handle(std::shared_ptr<Shared> shared, absl::Time time, std::shared_ptr<Callback> callback)
      : shared_(std::move(shared)), time_(time), callback_(std::move(callback)) {}

  const std::shared_ptr<Shared> shared_;
  const absl::Time time_;
  const std::shared_ptr<Callback> callback_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_TIMER_H_
