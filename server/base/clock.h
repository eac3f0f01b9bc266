#ifndef GRADWATCH_SERVER_BASE_CLOCK_H_
#define GRADWATCH_SERVER_BASE_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace gradwatch {

// Where the program reads wall time, so that tests can hold it still.
// Threads: every implementation may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

class RealClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_CLOCK_H_
