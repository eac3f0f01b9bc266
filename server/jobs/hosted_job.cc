#include "server/jobs/hosted_job.h"

#include <algorithm>

namespace gradwatch::jobs {

void MinuteMaximum::Add(absl::Time now, double value) {
  const int64_t second = absl::ToUnixSeconds(now);
  if (second < 0) return;
  Bucket& bucket = buckets_[static_cast<size_t>(second % kSeconds)];
  if (bucket.second != second) bucket = {second, value};
  bucket.maximum = std::max(bucket.maximum, value);
}

double MinuteMaximum::At(absl::Time now) const {
  const int64_t second = absl::ToUnixSeconds(now);
  double maximum = 0.0;
  for (const Bucket& bucket : buckets_) {
    if (bucket.second < 0 || bucket.second <= second - kSeconds) continue;
    maximum = std::max(maximum, bucket.maximum);
  }
  return maximum;
}

}  // namespace gradwatch::jobs
