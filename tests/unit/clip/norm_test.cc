#include "server/clip/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/clip/gradients.h"

namespace gradwatch::clip {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <typename S>
double Of(Norm order, const std::vector<S>& values) {
  return NormOf(order, absl::MakeConstSpan(values));
}

// The definition, in extended precision, one entry after the other.
template <typename S>
double SlowNorm(Norm order, const std::vector<std::vector<S>>& tensors) {
  long double sum = 0.0L, largest = 0.0L;
  for (const auto& tensor : tensors) {
    for (const S value : tensor) {
      const long double magnitude = std::abs(static_cast<long double>(value));
      sum += order == Norm::kL2 ? magnitude * magnitude : magnitude;
      largest = std::max(largest, magnitude);
    }
  }
  if (order == Norm::kInf) return static_cast<double>(largest);
  return static_cast<double>(order == Norm::kL2 ? std::sqrt(sum) : sum);
}

template <typename S>
class NormTest : public ::testing::Test {};
using Precisions = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NormTest, Precisions);

TYPED_TEST(NormTest, IsZeroForNothing) {
  for (const Norm order : {Norm::kL1, Norm::kL2, Norm::kInf}) {
    EXPECT_EQ(Of<TypeParam>(order, {}), 0.0);
    EXPECT_EQ(Of<TypeParam>(order, {0, -0.0, 0}), 0.0);
    EXPECT_EQ(NormOf<TypeParam>(order, absl::Span<const Block<TypeParam>>()), 0.0);
  }
}

TYPED_TEST(NormTest, OfThreeFour) {
  EXPECT_EQ(Of<TypeParam>(Norm::kL1, {3, -4, 0}), 7.0);
  EXPECT_EQ(Of<TypeParam>(Norm::kL2, {3, -4, 0}), 5.0);
  EXPECT_EQ(Of<TypeParam>(Norm::kInf, {3, -4, 0}), 4.0);
}

TYPED_TEST(NormTest, AgreesWithSlowReferenceAtEveryScale) {
  // Sums of 1085 terms, in 16 accumulators: at most 1085 / 16 + 4 roundings of a term each.
  constexpr double kTolerance = 72 * std::numeric_limits<double>::epsilon();
  const int most = std::is_same_v<TypeParam, float> ? 37 : 300;
  for (int exponent = -most; exponent <= most; exponent += most / 6) {
    const Gradients<TypeParam> gradients(
        RandomGradients<TypeParam>(static_cast<uint64_t>(exponent + 1000), exponent));
    for (const Norm order : {Norm::kL1, Norm::kL2, Norm::kInf}) {
      const double expected = SlowNorm(order, gradients.values());
      EXPECT_NEAR(NormOf(order, gradients.blocks()), expected, kTolerance * expected)
          << "10^" << exponent;
    }
  }
}

TYPED_TEST(NormTest, IsInfiniteOrNanWhereAnEntryIs) {
  const TypeParam inf = std::numeric_limits<TypeParam>::infinity();
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  for (const Norm order : {Norm::kL1, Norm::kL2, Norm::kInf}) {
    for (size_t place = 0; place < 35; ++place) {
      std::vector<TypeParam> values(35, 1);
      values[place] = -inf;
      EXPECT_EQ(Of(order, values), kInfinity);

      values[(place + 7) % 35] = nan;
      EXPECT_TRUE(std::isnan(Of(order, values)));
    }
  }
}

TEST(NormRangeTest, SquaresMayLeaveTheRangeOfDouble) {
  EXPECT_DOUBLE_EQ(Of<double>(Norm::kL2, {3e300, 4e300}), 5e300);
  EXPECT_DOUBLE_EQ(Of<double>(Norm::kL2, {3e-300, 4e-300}), 5e-300);
  EXPECT_EQ(Of<double>(Norm::kL2, {3 * 0x1p-1074, 4 * 0x1p-1074}), 5 * 0x1p-1074);
  EXPECT_EQ(Of<double>(Norm::kL2, {1.5e308, 1.5e308}), kInfinity);
}

TEST(NormRangeTest, FloatExtremesDoNotOverflow) {
  EXPECT_DOUBLE_EQ(Of<float>(Norm::kL2, {3e38f, 0.0f}), static_cast<double>(3e38f));
  EXPECT_DOUBLE_EQ(Of<float>(Norm::kL2, {1e-45f}), static_cast<double>(1e-45f));
}

TEST(JoinNormsTest, KeepsNanBesideInfinity) {
  for (const Norm order : {Norm::kL1, Norm::kL2, Norm::kInf}) {
    EXPECT_TRUE(std::isnan(JoinNorms(order, kInfinity, kNan)));
    EXPECT_TRUE(std::isnan(JoinNorms(order, kNan, 1.0)));
    EXPECT_EQ(JoinNorms(order, 1.0, kInfinity), kInfinity);
  }
}

}  // namespace
}  // namespace gradwatch::clip
