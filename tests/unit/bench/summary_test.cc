#include "tests/bench/summary.h"

#include <optional>
#include <utility>

#include "gtest/gtest.h"

namespace gradwatch::bench {
namespace {

TEST(MedianIntervalOfTest, RunsFromTheKthSmallestToTheKthLargest) {
  // Of 8 tosses none is heads with a chance of 1/256, at most one with 9/256, above 2.5 %.
  EXPECT_EQ(MedianIntervalOf({7, 1, 8, 3, 5, 2, 6, 4}), std::pair(1.0, 8.0));
  // Of 16 at most three with 697/65536, at most four with 2517/65536.
  EXPECT_EQ(MedianIntervalOf({16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}),
            std::pair(4.0, 13.0));
}

TEST(MedianIntervalOfTest, TooFewValuesHaveNone) {
  EXPECT_EQ(MedianIntervalOf({}), std::nullopt);
  EXPECT_EQ(MedianIntervalOf({1, 2, 3, 4, 5}), std::nullopt);
  EXPECT_EQ(MedianIntervalOf({1, 2, 3, 4, 5, 6}), std::pair(1.0, 6.0));
}

}  // namespace
}  // namespace gradwatch::bench
