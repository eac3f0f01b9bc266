#include "server/jobs/value_record.h"

#include <algorithm>
#include <cmath>

namespace gradwatch::jobs {

void ValueRecord::Add(absl::Time now, double value) {
  if (!std::isfinite(value)) return;
  ++count_;
  sum_ += value;
  const int64_t second = absl::ToUnixSeconds(now);
  if (second < 0) return;
  Bucket& bucket = buckets_[static_cast<size_t>(second % kSeconds)];
  if (bucket.second != second) bucket = {second, value, value};
  bucket.minimum = std::min(bucket.minimum, value);
  bucket.maximum = std::max(bucket.maximum, value);
}

ValueSummary ValueRecord::At(absl::Time now) const {
  ValueSummary summary;
  summary.count = count_;
  summary.sum = sum_;
  if (count_ == 0) return summary;  // As for all jobs that wait.
  const int64_t second = absl::ToUnixSeconds(now);
  for (const Bucket& bucket : buckets_) {
    if (bucket.second < 0 || bucket.second <= second - kSeconds) continue;
    if (!summary.last_60s.has_value()) summary.last_60s = {bucket.minimum, bucket.maximum};
    summary.last_60s->minimum = std::min(summary.last_60s->minimum, bucket.minimum);
    summary.last_60s->maximum = std::max(summary.last_60s->maximum, bucket.maximum);
  }
  return summary;
}

}  // namespace gradwatch::jobs
