#include "tests/bench/summary.h"

#include <vector>

#include "gtest/gtest.h"

namespace gradwatch::bench {
namespace {

// 0, 1, …, n - 1, so that a value is its own place.
std::vector<double> Places(size_t n) {
  std::vector<double> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<double>(i);
  return values;
}

// The places are those of tables of the sign test.
TEST(MedianInterval95, TakesTheOrderStatisticsOfTheSignTest) {
  using Pair = std::pair<double, double>;
  EXPECT_EQ(MedianInterval95(Places(1)), Pair(0, 0));
  EXPECT_EQ(MedianInterval95(Places(5)), Pair(0, 4));
  EXPECT_EQ(MedianInterval95(Places(6)), Pair(0, 5));
  EXPECT_EQ(MedianInterval95(Places(9)), Pair(1, 7));
  EXPECT_EQ(MedianInterval95(Places(10)), Pair(1, 8));
  EXPECT_EQ(MedianInterval95(Places(20)), Pair(5, 14));
  EXPECT_EQ(MedianInterval95(Places(40)), Pair(13, 26));
}

TEST(MedianInterval95, DoesNotMindTheOrder) {
  std::vector<double> values = Places(20);
  std::swap(values.front(), values.back());
  std::swap(values[3], values[11]);
  EXPECT_EQ(MedianInterval95(values), MedianInterval95(Places(20)));
}

}  // namespace
}  // namespace gradwatch::bench
