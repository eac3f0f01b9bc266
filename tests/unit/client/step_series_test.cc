#include "client/cli/step_series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace gradwatch::cli {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(StepSeriesTest, KeepsExtremesAndMeanOfEachColumn) {
  StepSeries series(100, 1099);  // Five steps to a column.
  for (int64_t step = 100; step < 1100; ++step) {
    series.Add(step, static_cast<double>(step % 5));
  }

  const std::vector<CurvePoint> points = series.Points();

  ASSERT_THAT(points, SizeIs(StepSeries::kColumnsMax));
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_DOUBLE_EQ(points[i].step, 102 + 5.0 * static_cast<double>(i));
    EXPECT_EQ(points[i].low, 0);
    EXPECT_EQ(points[i].middle, 2);
    EXPECT_EQ(points[i].high, 4);
  }
}

TEST(StepSeriesTest, HasNoPointWhereNothingFiniteWasMeasured) {
  StepSeries series(0, 99);
  series.Add(10, std::numeric_limits<double>::infinity());
  series.Add(20, std::nan(""));
  EXPECT_TRUE(series.empty());
  series.Add(50, -3);

  const std::vector<CurvePoint> points = series.Points();

  ASSERT_THAT(points, SizeIs(1));
  EXPECT_EQ(points[0].step, 50);
  EXPECT_EQ(points[0].high, -3);
}

TEST(StepSeriesTest, CountsStepsBeyondItsEndsToTheNearestColumn) {
  StepSeries series(10, 12);
  series.Add(-5, 1);
  series.Add(900, 2);

  EXPECT_THAT(series.Points(), SizeIs(2));
}

TEST(StepSeriesTest, EndsWithItsLastTenth) {
  StepSeries series(0, 99);
  for (int64_t step = 0; step < 100; ++step) series.Add(step, step < 90 ? 1000 : 3);

  EXPECT_EQ(series.AtEnd().mean, 3);
  EXPECT_EQ(series.AtEnd().count, 10);
}

TEST(StepSeriesTest, HasNoEndWithoutAValue) {
  const StepSeries series(0, 99);

  EXPECT_TRUE(std::isnan(series.AtEnd().mean));
  EXPECT_EQ(series.AtEnd().count, 0);
  EXPECT_THAT(series.Points(), IsEmpty());
}

}  // namespace
}  // namespace gradwatch::cli
