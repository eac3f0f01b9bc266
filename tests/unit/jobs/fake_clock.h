#ifndef GRADWATCH_TESTS_UNIT_JOBS_FAKE_CLOCK_H_
#define GRADWATCH_TESTS_UNIT_JOBS_FAKE_CLOCK_H_

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"

namespace gradwatch::jobs {

// Wall time that stands still until it is moved. Thread-safe.
class FakeClock final : public Clock {
 public:
  absl::Time Now() const override {
    MutexLock lock(&mu_);
    return now_;
  }
  void Advance(absl::Duration by) {
    MutexLock lock(&mu_);
    now_ += by;
  }

 private:
  mutable Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::FromUnixSeconds(1'700'000'000);
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_TESTS_UNIT_JOBS_FAKE_CLOCK_H_
