#ifndef GRADWATCH_CLIENT_CPP_CANCELLATION_H_
#define GRADWATCH_CLIENT_CPP_CANCELLATION_H_

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gradwatch::client {

// A wish to stop, told once to everything that can be stopped.
//
// Threads: safe from any. Not from a signal handler: hand the signal to a thread first.
class Cancellation {
 public:
  // Runs every callback that is registered; later registrations run at once. Repeating it does
  // nothing.
  void Cancel();

  bool cancelled() const;

  // Waits so long, or until cancelled; returns cancelled().
  bool WaitFor(absl::Duration duration) const;

  // Calls `callback` when cancelled, at most once; it must be quick and not call back into this
  // object. The result goes to Remove, after which the callback neither runs nor will run.
  int64_t Add(std::function<void()> callback);
  void Remove(int64_t id);

 private:
  // Held while callbacks run, so that Remove can promise that none does any more.
  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  int64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<int64_t, std::function<void()>> callbacks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gradwatch::client

#endif  // GRADWATCH_CLIENT_CPP_CANCELLATION_H_
