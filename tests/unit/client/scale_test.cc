#include "client/cli/scale.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace gradwatch::cli {
namespace {

using ::testing::ElementsAre;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> LabelsOf(const std::vector<Tick>& ticks) {
  std::vector<std::string> labels;
  for (const Tick& tick : ticks) labels.push_back(tick.label);
  return labels;
}

TEST(ScaleTest, MapsTheEndsOntoTheEnds) {
  const Scale linear = Scale::Linear({10, 20}, 100, 200);
  const Scale log = Scale::Log({0.01, 100}, 200, 0);

  EXPECT_DOUBLE_EQ(linear.At(10), 100);
  EXPECT_DOUBLE_EQ(linear.At(15), 150);
  EXPECT_DOUBLE_EQ(linear.At(20), 200);
  EXPECT_NEAR(log.At(0.01), 200, 1e-9);
  EXPECT_NEAR(log.At(1), 100, 1e-9);
  EXPECT_NEAR(log.At(100), 0, 1e-9);
}

TEST(ScaleTest, KeepsValuesBeyondTheEndsAtTheEnds) {
  const Scale log = Scale::Log({0.01, 100}, 200, 0);

  EXPECT_NEAR(log.At(0), 200, 1e-9);
  EXPECT_NEAR(log.At(-5), 200, 1e-9);
  EXPECT_NEAR(log.At(kInfinity), 0, 1e-9);
  EXPECT_TRUE(std::isnan(log.At(kNone)));
}

TEST(ScaleTest, WidensAnEmptyInterval) {
  const Scale linear = Scale::Linear({7, 7}, 0, 100);
  const Scale log = Scale::Log({7, 7}, 0, 100);

  EXPECT_DOUBLE_EQ(linear.At(7), 50);
  EXPECT_NEAR(log.At(7), 50, 1e-9);
}

TEST(ScaleTest, StaysFiniteOverTheWholeRangeOfDoubles) {
  const double largest = std::numeric_limits<double>::max();
  const Scale linear = Scale::Linear({-largest, largest}, 0, 100);
  const Scale log = Scale::Log({0, largest}, 0, 100);

  EXPECT_DOUBLE_EQ(linear.At(0), 50);
  EXPECT_NEAR(log.At(1), 50, 1e-9);
  EXPECT_LE(linear.Ticks(6).size(), 6u);
  EXPECT_LE(log.Ticks(6).size(), 6u);
  EXPECT_GE(log.Ticks(6).size(), 2u);
}

TEST(TicksTest, AreRoundNumbers) {
  EXPECT_THAT(LabelsOf(Scale::Linear({0, 2500}, 0, 1).Ticks(8, true)),
              ElementsAre("0", "500", "1,000", "1,500", "2,000", "2,500"));
  EXPECT_THAT(LabelsOf(Scale::Linear({0.97, 1.051}, 0, 1).Ticks(6)),
              ElementsAre("0.98", "1.00", "1.02", "1.04"));
  EXPECT_THAT(LabelsOf(Scale::Linear({-1, 1}, 0, 1).Ticks(5)),
              ElementsAre("−1.0", "−0.5", "0.0", "0.5", "1.0"));
}

TEST(TicksTest, AreWholeWhereStepsAreCounted) {
  EXPECT_THAT(LabelsOf(Scale::Linear({-0.5, 0.5}, 0, 1).Ticks(8, true)), ElementsAre("0"));
  EXPECT_THAT(LabelsOf(Scale::Linear({-0.5, 2.5}, 0, 1).Ticks(8, true)),
              ElementsAre("0", "1", "2"));
}

TEST(TicksTest, ArePowersOfTenOverManyDecades) {
  EXPECT_THAT(LabelsOf(Scale::Log({1e-9, 1e3}, 0, 1).Ticks(5)),
              ElementsAre("10⁻⁹", "10⁻⁶", "0.001", "1", "1,000"));
  EXPECT_THAT(LabelsOf(Scale::Log({0.5, 900}, 0, 1).Ticks(10)),
              ElementsAre("0.5", "1", "2", "5", "10", "20", "50", "100", "200", "500"));
}

TEST(TicksTest, HaveRoundStepsWithinADecade) {
  EXPECT_THAT(LabelsOf(Scale::Log({1.38, 1.61}, 0, 1).Ticks(6)),
              ElementsAre("1.40", "1.45", "1.50", "1.55", "1.60"));
}

// Whatever the interval: not more than asked for, within it, rising, each label once.
TEST(TicksTest, HoldTheirContractForAllIntervals) {
  for (int exponent = -300; exponent <= 290; exponent += 7) {
    for (const double factor : {1.0000001, 1.02, 1.7, 9.0, 1.3e3, 4e9}) {
      for (const bool log : {false, true}) {
        const double low = 1.7 * std::pow(10.0, exponent);
        const Interval values{low, low * factor};
        const Scale scale = log ? Scale::Log(values, 0, 1) : Scale::Linear(values, 0, 1);

        const std::vector<Tick> ticks = scale.Ticks(7);

        std::set<std::string> labels;
        double before = -kInfinity;
        EXPECT_LE(ticks.size(), 7u) << low << " " << factor << " " << log;
        for (const Tick& tick : ticks) {
          EXPECT_GT(tick.value, before);
          EXPECT_GE(tick.value, scale.values().low * (1 - 1e-6));
          EXPECT_LE(tick.value, scale.values().high * (1 + 1e-6));
          EXPECT_TRUE(labels.insert(tick.label).second)
              << tick.label << " twice for " << low << " times " << factor;
          before = tick.value;
        }
      }
    }
  }
}

TEST(SpanTest, LeavesOutWhatCannotBeDrawn) {
  const Interval linear = SpanOf({kNone, 2, kInfinity, 4}, false);
  const Interval log = SpanOf({0, -3, 10, 1000, kNone}, true);

  EXPECT_LT(linear.low, 2);
  EXPECT_GT(linear.low, 1.5);
  EXPECT_GT(linear.high, 4);
  EXPECT_LT(linear.high, 4.5);
  EXPECT_LT(log.low, 10);
  EXPECT_GT(log.low, 5);
  EXPECT_GT(log.high, 1000);
}

TEST(SpanTest, StaysAtZeroWhereNothingIsBelow) {
  EXPECT_DOUBLE_EQ(SpanOf({0, 1}, false).low, 0);
  EXPECT_LT(SpanOf({-1, 1}, false).low, -1);
}

TEST(SpanTest, HasADefaultWithoutValues) {
  EXPECT_DOUBLE_EQ(SpanOf({}, false).high, 1);
  EXPECT_DOUBLE_EQ(SpanOf({kNone}, true).low, 0.1);
}

TEST(NumberTest, GroupsDigitsByThree) {
  EXPECT_EQ(GroupedNumber(0, 0), "0");
  EXPECT_EQ(GroupedNumber(999, 0), "999");
  EXPECT_EQ(GroupedNumber(1000, 0), "1,000");
  EXPECT_EQ(GroupedNumber(-1234567.25, 2), "−1,234,567.25");
}

TEST(NumberTest, WritesPowersOfTen) {
  EXPECT_EQ(PowerOfTen(0), "1");
  EXPECT_EQ(PowerOfTen(-2), "0.01");
  EXPECT_EQ(PowerOfTen(4), "10,000");
  EXPECT_EQ(PowerOfTen(-120), "10⁻¹²⁰");
}

}  // namespace
}  // namespace gradwatch::cli
