#include "server/base/squares.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
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

// What a quick sum may be off by, of the sum.
template <typename S>
constexpr double kQuickError = std::is_same_v<S, float> ? 4e-7 : 1e-13;

// And one of several rows.
template <typename S>
constexpr double kRowsError = std::is_same_v<S, float> ? 1e-6 : 1e-13;

template <typename S>
double SlowSumOfSquares(const std::vector<S>& values) {
  double sum = 0.0;
  for (const S value : values) sum += static_cast<double>(value) * static_cast<double>(value);
  return sum;
}

TYPED_TEST(SquaresTest, SumsTheSquares) {
  for (const size_t n : kSizes) {
    const std::vector<TypeParam> values = Random<TypeParam>(n, 1);
    const double expected = SlowSumOfSquares(values);

    const double sum = SumOfSquares(values.data(), static_cast<int64_t>(n));
    const double quick = QuickSumOfSquares(values.data(), static_cast<int64_t>(n));

    EXPECT_NEAR(sum, expected, 1e-15 * static_cast<double>(n + 1) * expected) << n;
    EXPECT_NEAR(quick, expected, kQuickError<TypeParam> * expected) << n;
  }
}

TYPED_TEST(SquaresTest, SumsTheSquaresOfDifferences) {
  for (const size_t n : kSizes) {
    const std::vector<TypeParam> a = Random<TypeParam>(n, 1);
    const std::vector<TypeParam> b = Random<TypeParam>(n, 2);
    double expected = 0.0;
    for (size_t i = 0; i < n; ++i) {
      const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
      expected += 0.25 * difference * difference;
    }

    const double sum = SumOfSquaredDifferences(a.data(), b.data(), static_cast<int64_t>(n), 0.5);

    EXPECT_NEAR(sum, expected, 1e-15 * static_cast<double>(n + 1) * expected) << n;
  }
}

// Floats whose squares leave a float's range, or would lose digits at its lower end.
TEST(QuickSumOfSquares, HoldsOverTheWholeRangeOfFloats) {
  for (const float scale :
       {1e-37F, 1e-30F, 1e-19F, 1e-17F, 1e-15F, 1e-14F, 1e12F, 1e15F, 1e19F, 1e37F}) {
    for (const size_t n : kSizes) {
      std::vector<float> values = Random<float>(n, 3);
      for (float& value : values) value *= scale;
      const double expected = SlowSumOfSquares(values);
      const auto size = static_cast<int64_t>(n);

      EXPECT_NEAR(QuickSumOfSquares(values.data(), size), expected, 4e-7 * expected)
          << scale << " " << n;
    }
  }
}

TEST(QuickSumOfSquares, KeepsWhatIsNotFinite) {
  std::vector<float> values(100, 1.0F);
  values[70] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(QuickSumOfSquares(values.data(), 100)));
  values[70] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(QuickSumOfSquares(values.data(), 100)));
}

// The sums of rows [rows, stride] of n values. Not inlined: GCC 12 would warn of what three rows
// never do.
template <typename S>
__attribute__((noinline)) std::vector<double> SumsOfRows(const std::vector<S>& values,
                                                         int64_t stride, int rows, int64_t n) {
  std::vector<double> sums(static_cast<size_t>(rows), -1.0);
  const auto lanes_of = [](auto count, int, const S* from, int64_t row_stride, int64_t size,
                           Vector<S>* lanes) {
    LanesOfRows<S, count.value>(from, row_stride, size, lanes, [](auto, const Vector<S>&) {});
  };
  QuickSumsOfSquares(values.data(), stride, rows, n, sums.data(), lanes_of);
  return sums;
}

TYPED_TEST(SquaresTest, SumsTheSquaresOfSomeRows) {
  for (const size_t size : kSizes) {
    const auto n = static_cast<int64_t>(size);
    const int64_t stride = n + 3;
    for (int rows = 0; rows <= static_cast<int>(kVectorSize<TypeParam>); ++rows) {
      const auto values = Random<TypeParam>(static_cast<size_t>(rows * stride), 4);

      const std::vector<double> sums = SumsOfRows(values, stride, rows, n);

      for (int row = 0; row < rows; ++row) {
        const auto begin = values.begin() + row * stride;
        const double expected = SlowSumOfSquares(std::vector<TypeParam>(begin, begin + n));
        EXPECT_NEAR(sums[static_cast<size_t>(row)], expected, kRowsError<TypeParam> * expected)
            << n << " " << rows << " " << row;
      }
    }
  }
}

TYPED_TEST(SquaresTest, SumsGroupsOfRowsAsRowsOneByOne) {
  constexpr int64_t kN = 35;
  const auto most = 3 * static_cast<int>(kVectorSize<TypeParam>);
  const auto lanes_of = [](auto count, int, const TypeParam* from, int64_t stride, int64_t size,
                           Vector<TypeParam>* lanes) {
    LanesOfRows<TypeParam, count.value>(from, stride, size, lanes,
                                        [](auto, const Vector<TypeParam>&) {});
  };
  const auto values = Random<TypeParam>(static_cast<size_t>(most * kN), 5);
  for (int rows = 0; rows <= most; ++rows) {
    std::vector<double> sums(static_cast<size_t>(rows), -1.0);

    ForRowGroups<TypeParam>(rows, [&](int64_t begin, auto count) {
      QuickSumsOfSquares(values.data() + begin * kN, kN, count, kN, sums.data() + begin, lanes_of);
    });

    for (int row = 0; row < rows; ++row) {
      const auto from = values.begin() + row * kN;
      EXPECT_EQ(sums[static_cast<size_t>(row)],
                SumsOfRows(std::vector<TypeParam>(from, from + kN), kN, 1, kN).front())
          << rows << " " << row;
    }
  }
}

// One row near the ends of a float's range does not cost the others their digits, nor itself.
TEST(QuickSumsOfSquares, HoldsWhereOneRowIsNearTheEndsOfTheRange) {
  constexpr int kRows = static_cast<int>(kVectorSize<float>);
  for (const float scale : {0.0F, 1e-37F, 1e-19F, 1e-15F, 1e15F, 1e37F}) {
    for (const size_t size : {size_t{7}, size_t{32}, size_t{72}}) {
      const auto n = static_cast<int64_t>(size);
      for (int odd = 0; odd < kRows; ++odd) {
        std::vector<float> values = Random<float>(static_cast<size_t>(kRows) * size, 5);
        for (int64_t i = odd * n; i < (odd + 1) * n; ++i) values[static_cast<size_t>(i)] *= scale;

        const std::vector<double> sums = SumsOfRows(values, n, kRows, n);

        for (int row = 0; row < kRows; ++row) {
          const auto begin = values.begin() + row * n;
          const double expected = SlowSumOfSquares(std::vector<float>(begin, begin + n));
          EXPECT_NEAR(sums[static_cast<size_t>(row)], expected, 1e-6 * expected)
              << scale << " " << n << " " << odd << " " << row;
        }
      }
    }
  }
}

TEST(QuickSumsOfSquares, KeepsWhatIsNotFiniteInItsRow) {
  std::vector<float> values(3 * 40, 1.0F);
  values[45] = std::numeric_limits<float>::quiet_NaN();
  values[119] = -std::numeric_limits<float>::infinity();

  const std::vector<double> sums = SumsOfRows(values, 40, 3, 40);

  EXPECT_EQ(sums[0], 40.0);
  EXPECT_TRUE(std::isnan(sums[1]));
  EXPECT_TRUE(std::isinf(sums[2]));
}

// Each lane is made of its own vector's lanes alone, and of all of them.
TYPED_TEST(SquaresTest, JoinsLanes) {
  constexpr int64_t kSize = kVectorSize<TypeParam>;
  Vector<TypeParam> rows[kSize];
  for (int64_t row = 0; row < kSize; ++row) {
    for (int64_t lane = 0; lane < kSize; ++lane) {
      rows[row][lane] = static_cast<TypeParam>(lane == row ? 1000 * (row + 1) : lane);
    }
  }

  const Vector<TypeParam> joined =
      AcrossLanes<TypeParam>(rows, [](const auto& x, const auto& y) { return x + y; });

  for (int64_t row = 0; row < kSize; ++row) {
    const int64_t others = kSize * (kSize - 1) / 2 - row;
    EXPECT_EQ(joined[row], static_cast<TypeParam>(1000 * (row + 1) + others)) << row;
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
  double sum = 0.0;
  double quick = 0.0;

  for (int64_t i = 0; i < 200; i += kSquaresBlock) {
    const int64_t size = std::min<int64_t>(kSquaresBlock, 200 - i);
    sum += SumOfSquares(values.data() + i, size);
    quick += QuickSumOfSquares(values.data() + i, size);
  }

  EXPECT_EQ(sum, SumOfSquares(values.data(), 200));
  EXPECT_EQ(quick, QuickSumOfSquares(values.data(), 200));
}

}  // namespace
}  // namespace gradwatch
