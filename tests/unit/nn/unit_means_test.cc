#include "server/nn/unit_means.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/philox.h"

namespace gradwatch::nn {
namespace {

template <typename S>
class UnitMeansTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(UnitMeansTest, Scalars);

constexpr double kError = 2e-6;  // Half of 2^-18.

TYPED_TEST(UnitMeansTest, AreThoseOfTheMagnitudes) {
  constexpr int64_t kUnits = 37;
  constexpr int kPositions = 20'000;  // More than fit in the narrow sums, twice.
  RandomStream random(1, StreamOf("unit means"), 0);
  UnitMeans means(kUnits, 1);
  means.Clear();
  std::vector<double> sums(kUnits);
  std::vector<TypeParam> values(kUnits);
  for (int position = 0; position < kPositions; ++position) {
    for (size_t i = 0; i < kUnits; ++i) {
      values[i] = static_cast<TypeParam>(2.0 * random.NextUniform() - 1.0);
      if (i == 0) values[i] = TypeParam(1);
      sums[i] += std::abs(static_cast<double>(values[i]));
    }
    means.Add(0, values.data());
  }

  for (int64_t i = 0; i < kUnits; ++i) {
    EXPECT_NEAR(means.Mean(i, kPositions), sums[static_cast<size_t>(i)] / kPositions, kError);
  }
  EXPECT_EQ(means.Mean(0, kPositions), 1.0);
}

TYPED_TEST(UnitMeansTest, HaveTheSameBitsWhoeverAddsInWhateverOrder) {
  constexpr int64_t kUnits = 9;
  RandomStream random(2, StreamOf("unit means"), 0);
  std::vector<std::vector<TypeParam>> positions(50, std::vector<TypeParam>(kUnits));
  for (auto& values : positions) {
    for (TypeParam& value : values) value = static_cast<TypeParam>(random.NextUniform());
  }
  UnitMeans alone(kUnits, 1), together(kUnits, 3);
  alone.Clear();
  together.Clear();

  for (size_t i = 0; i < 50; ++i) alone.Add(0, positions[i].data());
  for (size_t i = 50; i-- > 0;) together.Add(static_cast<int>(i % 3), positions[i].data());

  for (int64_t i = 0; i < kUnits; ++i) EXPECT_EQ(alone.Mean(i, 50), together.Mean(i, 50));
}

TYPED_TEST(UnitMeansTest, BoundWhatIsNoMagnitudeOfAGate) {
  UnitMeans means(3, 1);
  const TypeParam values[] = {std::numeric_limits<TypeParam>::quiet_NaN(),
                              std::numeric_limits<TypeParam>::infinity(), TypeParam(-0.5)};
  means.Add(0, values);

  EXPECT_EQ(means.Mean(0, 1), 1.0);
  EXPECT_EQ(means.Mean(1, 1), 1.0);
  EXPECT_EQ(means.Mean(2, 1), 0.5);
  means.Clear();
  means.Add(0, values);
  EXPECT_EQ(means.Mean(2, 1), 0.5);
}

}  // namespace
}  // namespace gradwatch::nn
