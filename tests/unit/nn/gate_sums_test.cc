#include "server/nn/gate_sums.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/philox.h"

namespace gradwatch::nn {
namespace {

template <typename S>
class GateSumsTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(GateSumsTest, Scalars);

constexpr double kError = 2e-6;  // Half of 2^-18.

// [positions, values] of numbers in (-1, 1).
template <typename S>
std::vector<S> RandomValues(int64_t positions, int64_t values, uint64_t seed) {
  RandomStream random(seed, StreamOf("gate sums"), 0);
  std::vector<S> made(static_cast<size_t>(positions * values));
  for (S& value : made) value = static_cast<S>(2.0 * random.NextUniform() - 1.0);
  return made;
}

std::vector<double> MeansOf(const GateSums& sums, int gate, int64_t units, int64_t positions) {
  std::vector<double> means(static_cast<size_t>(units));
  sums.Means(gate, positions, absl::MakeSpan(means));
  return means;
}

// Against plain sums, for gates of less, as much and more than a vector, with values between the
// positions, and more positions than fit in the narrow sums.
TYPED_TEST(GateSumsTest, AreThoseOfTheMagnitudes) {
  constexpr int kGates = 3;
  constexpr int64_t kPositions = 17'000;
  for (const int64_t units : {1, 3, 4, 8, 15, 16, 17, 37}) {
    const int64_t stride = kGates * units + 2;
    const std::vector<TypeParam> values = RandomValues<TypeParam>(kPositions, stride, 1);
    GateSums sums(kGates, units, 1);
    sums.Add(0, values.data(), stride, 3);
    sums.Add(0, values.data() + 3 * stride, stride, kPositions - 3);

    for (int gate = 0; gate < kGates; ++gate) {
      const std::vector<double> means = MeansOf(sums, gate, units, kPositions);
      int64_t closed = 0;
      int64_t open = 0;
      for (int64_t i = 0; i < units; ++i) {
        double sum = 0.0;
        for (int64_t p = 0; p < kPositions; ++p) {
          const TypeParam value =
              std::abs(values[static_cast<size_t>(p * stride + gate * units + i)]);
          sum += static_cast<double>(value);
          closed += value < static_cast<TypeParam>(kGateClosed) ? 1 : 0;
          open += value > static_cast<TypeParam>(kGateOpen) ? 1 : 0;
        }
        EXPECT_NEAR(means[static_cast<size_t>(i)], sum / kPositions, kError) << units;
      }
      EXPECT_EQ(sums.Closed(gate), closed) << units;
      EXPECT_EQ(sums.Open(gate), open) << units;
    }
  }
}

TYPED_TEST(GateSumsTest, HaveTheSameBitsWhoeverAddsInWhateverOrder) {
  constexpr int64_t kUnits = 9;
  const std::vector<TypeParam> values = RandomValues<TypeParam>(50, kUnits, 2);
  GateSums alone(1, kUnits, 1), together(1, kUnits, 3);

  alone.Add(0, values.data(), kUnits, 50);
  for (int p = 50; p-- > 0;) together.Add(p % 3, values.data() + p * kUnits, kUnits, 1);

  EXPECT_EQ(MeansOf(alone, 0, kUnits, 50), MeansOf(together, 0, kUnits, 50));
  EXPECT_EQ(alone.Closed(0), together.Closed(0));
  EXPECT_EQ(alone.Open(0), together.Open(0));
}

TYPED_TEST(GateSumsTest, KeepNothingFromBefore) {
  GateSums sums(1, 3, 1);
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  const TypeParam values[] = {nan, TypeParam(1), TypeParam(-0.5)};
  for (int i = 0; i < 10'000; ++i) sums.Add(0, values, 3, 1);

  sums.Clear();
  const TypeParam good[] = {TypeParam(0), TypeParam(1), TypeParam(-0.5)};
  sums.Add(0, good, 3, 1);

  EXPECT_EQ(MeansOf(sums, 0, 3, 1), (std::vector<double>{0.0, 1.0, 0.5}));
  EXPECT_EQ(sums.Closed(0), 1);
  EXPECT_EQ(sums.Open(0), 1);
}

TYPED_TEST(GateSumsTest, TakeNanForNeitherEnd) {
  GateSums sums(1, 3, 1);
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  const TypeParam values[] = {nan, TypeParam(1), TypeParam(-0.5)};

  sums.Add(0, values, 3, 1);

  EXPECT_EQ(sums.Closed(0), 0);
  EXPECT_EQ(sums.Open(0), 1);
  EXPECT_EQ(MeansOf(sums, 0, 3, 1)[1], 1.0);
  EXPECT_EQ(MeansOf(sums, 0, 3, 1)[2], 0.5);
}

}  // namespace
}  // namespace gradwatch::nn
