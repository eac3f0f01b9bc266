#ifndef GRADWATCH_PROTO_SUPPORT_TIMESTAMP_H_
#define GRADWATCH_PROTO_SUPPORT_TIMESTAMP_H_

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace gradwatch {

// Pure, to the nanosecond; times from 1970 to 2262, durations of either sign, none is checked.
inline void SetTimestamp(absl::Time time, google::protobuf::Timestamp* stamp) {
  constexpr int64_t kNanosPerSecond = 1'000'000'000;
  const int64_t nanos = absl::ToUnixNanos(time);
  stamp->set_seconds(nanos / kNanosPerSecond);
  stamp->set_nanos(static_cast<int32_t>(nanos % kNanosPerSecond));
}

inline google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  google::protobuf::Timestamp stamp;
  SetTimestamp(time, &stamp);
  return stamp;
}

inline absl::Time FromTimestamp(const google::protobuf::Timestamp& stamp) {
  return absl::FromUnixSeconds(stamp.seconds()) + absl::Nanoseconds(stamp.nanos());
}

inline absl::Duration FromDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace gradwatch

#endif  // GRADWATCH_PROTO_SUPPORT_TIMESTAMP_H_
