#include "client/cli/histogram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

TEST(LogBarsTest, CountsEverySampleInItsBar) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> norm(0.0, 3.0);
  std::vector<NormSample> samples(5000);
  for (NormSample& sample : samples) sample = {norm(random), false};
  for (NormSample& sample : samples) sample.clipped = sample.norm > 1;

  const std::vector<NormBar> bars = LogBars(samples);

  EXPECT_LE(bars.size(), 60u);
  EXPECT_GE(bars.size(), 20u);
  for (size_t i = 0; i < bars.size(); ++i) {
    if (i > 0) {
      EXPECT_DOUBLE_EQ(bars[i].low, bars[i - 1].high);
    }
    int64_t steps = 0;
    int64_t clipped = 0;
    for (const NormSample& sample : samples) {
      if (sample.norm < bars[i].low || sample.norm >= bars[i].high) continue;
      ++steps;
      clipped += sample.clipped ? 1 : 0;
    }
    EXPECT_EQ(bars[i].steps, steps);
    EXPECT_EQ(bars[i].clipped, clipped);
  }
}

TEST(LogBarsTest, FitsAnyRange) {
  EXPECT_THAT(LogBars({{2, false}, {2, true}}), SizeIs(1));
  EXPECT_LE(LogBars({{1e-300, false}, {1e300, false}}).size(), 60u);
  EXPECT_THAT(LogBars({}), SizeIs(0));
  EXPECT_THAT(LogBars({{0, false}, {std::numeric_limits<double>::infinity(), false}}), SizeIs(0));
}

TEST(HistogramTest, ShowsTheThresholdBeyondTheBars) {
  const std::string text =
      DrawHistogram(LogBars({{1, false}, {2, false}}), {{1e6, "clip 1e+06", "threshold"}}, "norms");

  EXPECT_THAT(text, HasSubstr(">clip 1e+06</text>"));
  EXPECT_THAT(text, HasSubstr(">10⁶</text>"));
  EXPECT_THAT(text, Not(HasSubstr("nan")));
}

TEST(HistogramTest, IsEmptyWithoutBars) { EXPECT_EQ(DrawHistogram({}, {}, "norms"), ""); }

}  // namespace
}  // namespace gradwatch::cli
