#ifndef GRADWATCH_SERVER_JOBS_VALUE_RECORD_H_
#define GRADWATCH_SERVER_JOBS_VALUE_RECORD_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace gradwatch::jobs {

// What happened to a value between two readings of it, exact, for any number of readers that read
// when they like: there is nothing that one could take away from another.
struct ValueSummary {
  // Of all values so far. The difference between two readings is what came between them.
  int64_t count = 0;
  double sum = 0.0;
  // Extremes of the last 60 s. Who reads more often than that misses none.
  struct Range {
    double minimum = 0.0;
    double maximum = 0.0;
  };
  std::optional<Range> last_60s;
};

// Keeps it, in buckets of a second: adding is O(1).
class ValueRecord {
 public:
  // What is not finite is left out.
  void Add(absl::Time now, double value);
  ValueSummary At(absl::Time now) const;

 private:
  static constexpr int64_t kSeconds = 60;
  struct Bucket {
    int64_t second = -1;
    double minimum = 0.0;
    double maximum = 0.0;
  };
  std::array<Bucket, kSeconds> buckets_;
  int64_t count_ = 0;
  double sum_ = 0.0;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_VALUE_RECORD_H_
