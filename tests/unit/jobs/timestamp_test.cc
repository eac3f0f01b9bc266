#include "proto/support/timestamp.h"

#include "gtest/gtest.h"

namespace gradwatch {
namespace {

TEST(TimestampTest, KeepsEveryNanosecond) {
  const absl::Time times[] = {absl::UnixEpoch(), absl::FromUnixSeconds(1'700'000'000),
                              absl::FromUnixNanos(1'699'999'999'999'999'999),
                              absl::FromUnixNanos(1)};
  for (const absl::Time time : times) {
    SCOPED_TRACE(time);
    const google::protobuf::Timestamp stamp = ToTimestamp(time);

    EXPECT_EQ(FromTimestamp(stamp), time);
    EXPECT_GE(stamp.nanos(), 0);
    EXPECT_LT(stamp.nanos(), 1'000'000'000);
  }
  EXPECT_EQ(ToTimestamp(times[2]).seconds(), 1'699'999'999);
  EXPECT_EQ(ToTimestamp(times[2]).nanos(), 999'999'999);
}

TEST(TimestampTest, ReplacesWhatWasThere) {
  google::protobuf::Timestamp stamp = ToTimestamp(absl::FromUnixNanos(5));

  SetTimestamp(absl::FromUnixSeconds(7), &stamp);

  EXPECT_EQ(FromTimestamp(stamp), absl::FromUnixSeconds(7));
}

TEST(TimestampTest, ReadsDurationsOfEitherSign) {
  google::protobuf::Duration duration;
  duration.set_seconds(-1);
  duration.set_nanos(-500'000'000);

  EXPECT_EQ(FromDuration(duration), absl::Milliseconds(-1500));
}

}  // namespace
}  // namespace gradwatch
