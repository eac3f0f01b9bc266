#include "server/metrics/process_stats.h"

#include <gtest/gtest.h>

namespace gradwatch::metrics {
namespace {

TEST(ProcessStatTest, ReadsTheFieldsBehindANameWithBrackets) {
  const auto stat = ParseProcessStat(
      "17 (a) b (c)) S 1 17 17 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 3 0 "
      "12345 8192000 500 "
      "18446744073709551615 1 1",
      100, 4096);

  ASSERT_TRUE(stat.has_value());
  EXPECT_DOUBLE_EQ(stat->cpu_seconds, 4.0);
  EXPECT_DOUBLE_EQ(stat->start_seconds_after_boot, 123.45);
  EXPECT_EQ(stat->virtual_bytes, 8192000);
  EXPECT_EQ(stat->resident_bytes, 500 * 4096);
}

TEST(ProcessStatTest, OtherTextIsNothing) {
  EXPECT_FALSE(ParseProcessStat("", 100, 4096).has_value());
  EXPECT_FALSE(ParseProcessStat("17 (x) S 1 2 3", 100, 4096).has_value());
}

}  // namespace
}  // namespace gradwatch::metrics
