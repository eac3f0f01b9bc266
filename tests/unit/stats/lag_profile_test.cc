#include "server/stats/lag_profile.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace gradwatch::stats {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> Geometric(double first, double factor, int size) {
  std::vector<float> profile;
  for (int lag = 0; lag < size; ++lag) {
    profile.push_back(static_cast<float>(first * std::pow(factor, lag)));
  }
  return profile;
}

TEST(DecayFactorTest, IsTheFactorOfAGeometricProfile) {
  for (const double factor : {0.5, 0.97, 1.0, 1.25}) {
    const auto decay = DecayFactor(Geometric(3.0, factor, 40));

    ASSERT_TRUE(decay.has_value());
    EXPECT_NEAR(*decay, factor, 1e-6 * factor);  // Norms are rounded to float, relative 6e-8.
  }
}

TEST(DecayFactorTest, IsTheLeastSquaresSlope) {
  // ln: 0, 1, 1, 4 over 0, 1, 2, 3: the slope is (-1.5 * 0 - 0.5 * 1 + 0.5 * 1 + 1.5 * 4) / 5
  // = 1.2.
  const float e = std::exp(1.0f);

  EXPECT_NEAR(DecayFactor({1.0f, e, e, std::exp(4.0f)}).value(), std::exp(1.2), 1e-5);
}

TEST(DecayFactorTest, LeavesOutZerosAndWhatIsNotFinite) {
  std::vector<float> profile = Geometric(1.0, 0.5, 12);
  profile[2] = 0.0f;
  profile[5] = kInfinity;
  profile[7] = kNaN;
  profile.resize(20, 0.0f);

  EXPECT_NEAR(DecayFactor(profile).value(), 0.5, 1e-6);
}

TEST(DecayFactorTest, NeedsTwoNorms) {
  EXPECT_FALSE(DecayFactor({}).has_value());
  EXPECT_FALSE(DecayFactor({1.0f}).has_value());
  EXPECT_FALSE(DecayFactor({1.0f, 0.0f, kNaN}).has_value());
}

TEST(LagHorizonTest, IsTheLastLagWithAThousandthLeft) {
  EXPECT_EQ(LagHorizon(Geometric(5.0, 0.5, 30)), 9);  // 2^-9 > 1e-3 > 2^-10.
  EXPECT_EQ(LagHorizon(Geometric(5.0, 1.1, 30)), 29);
  EXPECT_EQ(LagHorizon({1.0f, 1e-4f, 2e-3f, 0.0f, kNaN}), 2);
  EXPECT_EQ(LagHorizon({1.0f, 0.0f}), 0);
}

TEST(LagHorizonTest, NeedsANormAtLagZero) {
  EXPECT_FALSE(LagHorizon({}).has_value());
  EXPECT_FALSE(LagHorizon({0.0f, 1.0f}).has_value());
  EXPECT_FALSE(LagHorizon({kNaN, 1.0f}).has_value());
}

}  // namespace
}  // namespace gradwatch::stats
