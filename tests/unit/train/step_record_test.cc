#include "server/train/step_record.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch::train {
namespace {

TEST(FillTensorStatsTest, LeavesOutTheEmptyBinsAtBothEnds) {
  for (const auto& [first, last] :
       {std::pair{0, 0}, {0, 255}, {15, 16}, {17, 17}, {31, 240}, {100, 239}, {255, 255}}) {
    SCOPED_TRACE(testing::Message() << first << " to " << last);
    stats::Log2Histogram histogram{};
    histogram[static_cast<size_t>(first)] += 3;
    histogram[static_cast<size_t>(last)] += 5;
    v1::TensorStats message;

    FillTensorStats(stats::TensorSummary(), &histogram, &message);

    EXPECT_EQ(message.magnitude_first_bin(), first);
    std::vector<uint32_t> expected(static_cast<size_t>(last - first + 1));
    expected.front() += 3;
    expected.back() += 5;
    EXPECT_THAT(message.magnitude_counts(), testing::ElementsAreArray(expected));
  }
}

TEST(FillTensorStatsTest, HasNoCountsWithoutAFullBin) {
  const stats::Log2Histogram histogram{};
  v1::TensorStats message;

  FillTensorStats(stats::TensorSummary(), &histogram, &message);
  EXPECT_EQ(message.magnitude_counts_size(), 0);
  FillTensorStats(stats::TensorSummary(), nullptr, &message);
  EXPECT_EQ(message.magnitude_counts_size(), 0);
}

}  // namespace
}  // namespace gradwatch::train
