#include "server/base/squares.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/philox.h"

namespace gradwatch {
namespace {

template <typename S>
std::vector<S> Random(size_t n, uint64_t seed) {
  RandomStream random(seed, StreamOf("squares test"), 0);
  std::vector<S> values(n);
  for (S& value : values) value = static_cast<S>(random.NextNormal());
  return values;
}

template <typename S>
class SquaresTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(SquaresTest, Scalars);

// Sizes around a step and around a block. Sums of n positive terms are off by n epsilon at most.
constexpr size_t kSizes[] = {0, 1, 15, 16, 17, 31, 63, 64, 65, 80, 127, 128, 200};

TYPED_TEST(SquaresTest, SumsTheSquares) {
  for (const size_t n : kSizes) {
    const std::vector<TypeParam> values = Random<TypeParam>(n, 1);
    double expected = 0.0;
    for (const TypeParam value : values) expected += static_cast<double>(value) * value;

    Squares sum;
    AddSquares(values.data(), static_cast<int64_t>(n), &sum);

    EXPECT_NEAR(sum.Total(), expected, 1e-15 * static_cast<double>(n + 1) * expected) << n;
  }
}

TYPED_TEST(SquaresTest, SumsTheSquaresOfScaledDifferences) {
  for (const size_t n : kSizes) {
    const std::vector<TypeParam> a = Random<TypeParam>(n, 1);
    const std::vector<TypeParam> b = Random<TypeParam>(n, 2);
    double expected = 0.0;
    for (size_t i = 0; i < n; ++i) {
      const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
      expected += 0.25 * difference * difference;
    }

    Squares sum;
    AddSquaresOfDifference(a.data(), b.data(), static_cast<int64_t>(n), 0.5, &sum);

    EXPECT_NEAR(sum.Total(), expected, 1e-15 * static_cast<double>(n + 1) * expected) << n;
  }
}

TYPED_TEST(SquaresTest, MultipliesVectors) {
  for (const size_t n : kSizes) {
    const std::vector<TypeParam> a = Random<TypeParam>(n, 1);
    const std::vector<double> b = Random<double>(n, 2);
    double expected = 0.0;
    double magnitudes = 0.0;
    std::vector<double> sum(n, 1.0);
    for (size_t i = 0; i < n; ++i) {
      expected += static_cast<double>(a[i]) * b[i];
      magnitudes += std::abs(static_cast<double>(a[i]) * b[i]);
    }

    const double product = DotProduct(a.data(), b.data(), static_cast<int64_t>(n));
    AddMultiple(-2.0, a.data(), static_cast<int64_t>(n), sum.data());

    EXPECT_NEAR(product, expected, 1e-15 * static_cast<double>(n + 1) * magnitudes) << n;
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(sum[i], 1.0 - 2.0 * static_cast<double>(a[i]), 1e-15) << n;
    }
  }
}

TYPED_TEST(SquaresTest, GivesTheSameBitsBlockByBlock) {
  const std::vector<TypeParam> values = Random<TypeParam>(200, 1);
  Squares whole;
  AddSquares(values.data(), 200, &whole);
  Squares together;

  for (int64_t i = 0; i < 200; i += kSquaresBlock) {
    Squares block;
    AddSquares(values.data() + i, std::min<int64_t>(kSquaresBlock, 200 - i), &block);
    together.Add(block);
  }

  EXPECT_EQ(together.Total(), whole.Total());
}

}  // namespace
}  // namespace gradwatch
