#include "server/stats/growth.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch::stats {
namespace {

using ::testing::DoubleNear;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// A layer whose gradient is `delta` at each time step and whose carry is `ratio` times that.
struct Layer {
  std::vector<double> norms;
  std::vector<double> carries;
  LayerCarry carry() const { return {norms, carries}; }
};

Layer Constant(int time_steps, double ratio, double delta = 1.0) {
  Layer layer;
  layer.norms.assign(static_cast<size_t>(time_steps), delta);
  layer.carries.assign(static_cast<size_t>(time_steps - 1), ratio * delta);
  return layer;
}

TEST(Growth, IsTheGeometricMeanOfTheRatios) {
  const std::vector<double> norms = {0.5, 2.0, 8.0, 4.0};
  const std::vector<double> carries = {0.5, 2.0, 8.0};  // Ratios 1/4, 1/4, 2.
  const LayerCarry layer = {norms, carries};
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer}, 4, &growth));

  const double log_factor = std::log(2.0 / 16.0) / 3.0;
  EXPECT_DOUBLE_EQ(growth.growth_factor, std::exp(log_factor));
  ASSERT_TRUE(growth.horizon.has_value());
  EXPECT_DOUBLE_EQ(*growth.horizon, -1.0 / log_factor);
  EXPECT_FALSE(growth.horizon_beyond_window);
  EXPECT_DOUBLE_EQ(growth.decades, 4.0 * std::log10(growth.growth_factor));
  EXPECT_EQ(growth.window, 4);
  EXPECT_FALSE(growth.underflow_at_lag.has_value());
}

TEST(Growth, HeadlineIsTheLargestOverLayers) {
  const Layer low = Constant(10, 0.5);
  const Layer high = Constant(10, 0.9);
  const Layer middle = Constant(10, 0.7);
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({low.carry(), high.carry(), middle.carry()}, 10, &growth));

  EXPECT_EQ(growth.layer, 1);
  EXPECT_DOUBLE_EQ(growth.growth_factor, 0.9);
  EXPECT_THAT(
      growth.layer_growth_factors,
      testing::ElementsAre(DoubleNear(0.5, 1e-15), DoubleNear(0.9, 1e-15), DoubleNear(0.7, 1e-15)));
}

TEST(Growth, HorizonIsAbsentFromOneUpwards) {
  Growth growth;
  growth.horizon = 3.0;

  ASSERT_TRUE(MeasureGrowth({Constant(10, 1.1).carry()}, 10, &growth));

  EXPECT_FALSE(growth.horizon.has_value());
  EXPECT_TRUE(growth.horizon_beyond_window);
  EXPECT_NEAR(growth.decades, 10 * std::log10(1.1), 1e-12);
}

TEST(Growth, HorizonLongerThanTheWindowSaysSo) {
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({Constant(10, 0.99).carry()}, 10, &growth));

  ASSERT_TRUE(growth.horizon.has_value());
  EXPECT_NEAR(*growth.horizon, -1.0 / std::log(0.99), 1e-9);
  EXPECT_TRUE(growth.horizon_beyond_window);
}

TEST(Growth, LeavesOutUnderflowAndNamesTheSmallestLag) {
  Layer layer = Constant(6, 0.5);
  layer.carries[2] = 1e-31;  // What arrives at t = 2, lag 3 from the end.
  layer.norms[2] = 1e-31;
  layer.carries[1] = 0.0;
  layer.norms[1] = 0.0;
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer.carry()}, 6, &growth));

  EXPECT_DOUBLE_EQ(growth.growth_factor, 0.5);
  ASSERT_TRUE(growth.underflow_at_lag.has_value());
  EXPECT_EQ(*growth.underflow_at_lag, 3);
}

TEST(Growth, IsTheSameInStridesWhereEveryCarryIsTheGradient) {
  const std::vector<double> norms = {0.5, 3.0, 8.0, 4.0, 7.0, 1.0};
  const std::vector<double> carries(norms.begin(), norms.end() - 1);
  const std::vector<double> some = {0.5, 4.0, 1.0};
  const std::vector<double> some_carries = {0.5, 4.0};
  const std::vector<int> strides = {3, 2};
  const LayerCarry whole = {norms, carries};
  const LayerCarry in_strides = {some, some_carries, strides};
  Growth expected;
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({whole}, 6, &expected));
  ASSERT_TRUE(MeasureGrowth({in_strides}, 6, &growth));

  EXPECT_DOUBLE_EQ(growth.growth_factor, expected.growth_factor);
  EXPECT_DOUBLE_EQ(growth.decades, expected.decades);
  EXPECT_DOUBLE_EQ(*growth.horizon, *expected.horizon);
}

TEST(Growth, LeavesOutAStrideThatEndsInUnderflow) {
  const std::vector<double> norms = {1e-35, 0.0, 1e-20, 1e-10, 1.0};
  const std::vector<double> carries(norms.begin(), norms.end() - 1);
  const std::vector<int> strides = {2, 8, 8, 8};
  const LayerCarry layer = {norms, carries, strides};
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer}, 27, &growth));

  EXPECT_DOUBLE_EQ(growth.growth_factor, std::pow(1e-20, 1.0 / 16.0));
  EXPECT_EQ(growth.underflow_at_lag, 24);
}

TEST(Growth, TakesEveryStretchOfStridesThatIsKnown) {
  const std::vector<double> norms = {3.0, 1.0, kNaN, 8.0, kNaN, 2.0, 4.0, 1.0, 0.0, 5.0};
  const std::vector<double> carries(norms.begin(), norms.end() - 1);
  const std::vector<int> strides = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const LayerCarry layer = {norms, carries, strides};
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer}, 46, &growth));

  // 3 over 1 in one time step, 2 over 1 in 13.
  EXPECT_DOUBLE_EQ(growth.growth_factor, std::pow(6.0, 1.0 / 14.0));
  EXPECT_EQ(growth.underflow_at_lag, 9);
}

TEST(Growth, ChunkWithoutLossIsNoUnderflow) {
  Layer layer = Constant(8, 0.5);
  for (size_t t = 0; t < 4; ++t) layer.norms[t] = 0.0;
  for (size_t t = 0; t < 3; ++t) layer.carries[t] = 0.0;
  layer.carries[3] = kNaN;
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer.carry()}, 4, &growth));

  EXPECT_DOUBLE_EQ(growth.growth_factor, 0.5);
  EXPECT_FALSE(growth.underflow_at_lag.has_value());
  EXPECT_DOUBLE_EQ(growth.decades, 4.0 * std::log10(0.5));
}

TEST(Growth, TakesNoRatioAcrossTheBorderOfAWindow) {
  Layer layer = Constant(6, 0.5);
  layer.carries[1] = 1e6;  // Windows 0-1, 2-3, 4-5: nothing crosses from 2 to 1.
  layer.carries[3] = 1e6;
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer.carry()}, 2, &growth));

  EXPECT_DOUBLE_EQ(growth.growth_factor, 0.5);
  EXPECT_EQ(growth.window, 2);
}

TEST(Growth, LeavesOutWhatIsNotFinite) {
  Layer layer = Constant(6, 0.5);
  layer.carries[0] = std::numeric_limits<double>::infinity();
  layer.norms[3] = kNaN;
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer.carry()}, 6, &growth));

  EXPECT_DOUBLE_EQ(growth.growth_factor, 0.5);
}

// What MeasureGrowth must find in one layer, pair by pair.
struct Reference {
  double log_sum = 0.0;
  int pairs = 0;
  std::optional<int> underflow_at_lag;
};

Reference SlowGrowth(const Layer& layer, int window) {
  Reference expected;
  const int time_steps = static_cast<int>(layer.norms.size());
  const auto measurable = [](double norm) { return std::isfinite(norm) && norm >= kNormFloor; };
  for (int t = 0; t + 1 < time_steps; ++t) {
    if ((t + 1) % window == 0) continue;
    const double whole = layer.norms[static_cast<size_t>(t) + 1];
    const double carry = layer.carries[static_cast<size_t>(t)];
    if (!measurable(whole)) continue;
    if (measurable(carry)) {
      expected.log_sum += std::log(carry) - std::log(whole);
      ++expected.pairs;
    } else if (carry < kNormFloor) {
      const int end = std::min(time_steps, (t / window + 1) * window);
      const int lag = end - 1 - t;
      expected.underflow_at_lag = std::min(lag, expected.underflow_at_lag.value_or(lag));
    }
  }
  return expected;
}

void ExpectAgreement(const Layer& layer, int window) {
  const Reference expected = SlowGrowth(layer, window);
  Growth growth;

  ASSERT_TRUE(MeasureGrowth({layer.carry()}, window, &growth));

  // Few roundings for each pair, of numbers around 1 and of logarithms up to 140.
  EXPECT_NEAR(std::log(growth.growth_factor), expected.log_sum / expected.pairs, 1e-12);
  EXPECT_EQ(growth.underflow_at_lag, expected.underflow_at_lag);
}

// Ratios around 1, all different.
Layer Wavy(int time_steps) {
  Layer layer;
  for (int t = 0; t < time_steps; ++t) {
    layer.norms.push_back(1.5 + std::sin(t));
    if (t + 1 < time_steps) layer.carries.push_back(1.4 + std::sin(3.0 * t));
  }
  return layer;
}

TEST(Growth, AgreesWithSlowReferenceAtEveryLengthAndWindow) {
  for (const int time_steps : {2, 16, 17, 18, 32, 33, 34, 100}) {
    for (const int window : {2, 15, 16, 17, 18, 33, 34, 1000}) {
      SCOPED_TRACE(testing::Message() << time_steps << " time steps, window " << window);
      ExpectAgreement(Wavy(time_steps), window);
    }
  }
}

TEST(Growth, AgreesWithSlowReferenceWhereverAnOddPairStands) {
  for (const double odd :
       {kNaN, std::numeric_limits<double>::infinity(), 0.0, 9e-31, 1e-30, 1e-25, 1e25, 1e308}) {
    for (size_t at = 1; at < 39; ++at) {
      SCOPED_TRACE(testing::Message() << odd << " at " << at);
      Layer odd_norm = Wavy(40);
      Layer odd_carry = Wavy(40);

      odd_norm.norms[at] = odd;
      odd_carry.carries[at] = odd;

      ExpectAgreement(odd_norm, 37);
      ExpectAgreement(odd_carry, 37);
    }
  }
}

TEST(Growth, HoldsWhereEveryRatioIsExtreme) {
  for (const double ratio : {1e-29, 1e-19, 1e-17, 1e17, 1e19, 1e300}) {
    SCOPED_TRACE(ratio);
    ExpectAgreement(Constant(100, ratio), 100);
  }
}

TEST(Growth, IsAbsentWithoutAValidPair) {
  Growth growth;

  EXPECT_FALSE(MeasureGrowth({}, 5, &growth));
  EXPECT_FALSE(MeasureGrowth({Constant(1, 0.5).carry()}, 1, &growth));
  EXPECT_FALSE(MeasureGrowth({Constant(5, 0.5, 0.0).carry()}, 5, &growth));
  EXPECT_FALSE(MeasureGrowth({Constant(5, 0.5).carry()}, 1, &growth));
}

TEST(Growth, BecomesAMessage) {
  Growth growth;
  v1::GrowthStats message;
  ASSERT_TRUE(MeasureGrowth({Constant(10, 0.5).carry(), Constant(10, 0.9).carry()}, 10, &growth));

  ToProto(growth, &message);

  EXPECT_DOUBLE_EQ(message.growth_factor(), 0.9);
  EXPECT_TRUE(message.has_horizon());
  EXPECT_DOUBLE_EQ(message.decades(), growth.decades);
  EXPECT_EQ(message.layer(), 1);
  EXPECT_EQ(message.window(), 10);
  EXPECT_FALSE(message.has_underflow_at_lag());
  EXPECT_EQ(message.layer_growth_factors_size(), 2);
}

}  // namespace
}  // namespace gradwatch::stats
