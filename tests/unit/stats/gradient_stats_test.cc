#include "server/stats/gradient_stats.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace gradwatch::stats {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What Summarize must find, by the plainest means: long double sums, library functions.
struct Reference {
  long double squares = 0.0L;
  double max_abs = 0.0;
  int64_t zeros = 0;
  int64_t nonfinite = 0;
  Log2Histogram histogram{};
};

template <typename S>
Reference SlowSummary(const std::vector<S>& values) {
  Reference expected;
  for (const S value : values) {
    const double magnitude = std::abs(static_cast<double>(value));
    expected.squares += static_cast<long double>(magnitude) * magnitude;
    if (!std::isnan(magnitude)) expected.max_abs = std::max(expected.max_abs, magnitude);
    if (!std::isfinite(magnitude)) {
      ++expected.nonfinite;
    } else if (magnitude == 0.0) {
      ++expected.zeros;
    } else {
      size_t bin = 0;
      while (bin < 255 && magnitude >= BinEdge(static_cast<int>(bin) + 1)) ++bin;
      ++expected.histogram[bin];
    }
  }
  return expected;
}

// Magnitudes over many octaves, with signs and some exact zeros.
template <typename S>
std::vector<S> Values(int size) {
  std::vector<S> values;
  uint32_t state = 12345;
  const auto next = [&state] { return (state = state * 1664525U + 1013904223U) >> 8; };
  for (int i = 0; i < size; ++i) {
    const double fraction = static_cast<double>(next()) / (1 << 24) + 0.5;
    const double sign = next() % 2 == 0 ? -1.0 : 1.0;
    const int exponent = static_cast<int>(next() % 80) - 50;
    values.push_back(next() % 9 == 0 ? static_cast<S>(sign * 0.0)
                                     : static_cast<S>(sign * std::ldexp(fraction, exponent)));
  }
  return values;
}

template <typename S>
void ExpectAgreement(const std::vector<S>& values) {
  const Reference expected = SlowSummary(values);
  Log2Histogram histogram;
  histogram.fill(77);

  const TensorSummary summary = Summarize<S>(values, &histogram);

  const double norm = static_cast<double>(std::sqrt(expected.squares));
  // n roundings of non-negative terms: relative error at most about n times 2^-53.
  EXPECT_NEAR(summary.norm, norm, norm * 1e-16 * (static_cast<double>(values.size()) + 4.0));
  EXPECT_EQ(summary.max_abs, expected.max_abs);
  EXPECT_EQ(summary.zeros, expected.zeros);
  EXPECT_EQ(summary.nonfinite, expected.nonfinite);
  EXPECT_EQ(histogram, expected.histogram);
}

template <typename S>
class GradientStats : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(GradientStats, Precisions);

TYPED_TEST(GradientStats, AgreesWithSlowReferenceAtEverySize) {
  for (const int size : {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 1000, 2047, 2048, 2049, 6000, 40'000}) {
    SCOPED_TRACE(size);
    ExpectAgreement(Values<TypeParam>(size));
  }
}

TYPED_TEST(GradientStats, CountsNonFiniteEntriesWhereverTheyStand) {
  for (const int size : {1, 7, 8, 9, 1000}) {
    for (int at = 0; at < size; at += 1 + size / 10) {
      SCOPED_TRACE(testing::Message() << "size " << size << " at " << at);
      std::vector<TypeParam> values = Values<TypeParam>(size);
      Log2Histogram histogram;

      values[static_cast<size_t>(at)] = static_cast<TypeParam>(kNaN);
      const Reference with_nan = SlowSummary(values);
      const TensorSummary nan = Summarize<TypeParam>(values, &histogram);
      EXPECT_TRUE(std::isnan(nan.norm));
      EXPECT_EQ(nan.nonfinite, 1);
      EXPECT_EQ(nan.zeros, with_nan.zeros);
      EXPECT_EQ(nan.max_abs, with_nan.max_abs);
      EXPECT_EQ(histogram, with_nan.histogram);

      values[static_cast<size_t>(at)] = static_cast<TypeParam>(-kInfinity);
      const TensorSummary infinite = Summarize<TypeParam>(values, &histogram);
      EXPECT_EQ(infinite.norm, kInfinity);
      EXPECT_EQ(infinite.nonfinite, 1);
      EXPECT_EQ(infinite.max_abs, kInfinity);
      EXPECT_EQ(histogram, with_nan.histogram);
    }
  }
}

// Each edge of a bin and its neighbours, on every place of a vector.
TYPED_TEST(GradientStats, CountsWhatLiesAtTheEdgesOfBins) {
  std::vector<TypeParam> values;
  for (int bin = 0; bin <= kHistogramBins; ++bin) {
    const auto edge = static_cast<TypeParam>(BinEdge(bin));
    for (const TypeParam end : {TypeParam(0), std::numeric_limits<TypeParam>::max()}) {
      values.push_back(-std::nextafter(edge, end));
    }
    values.push_back(edge);
  }
  for (const TypeParam extreme :
       {std::numeric_limits<TypeParam>::denorm_min(), std::numeric_limits<TypeParam>::min(),
        std::numeric_limits<TypeParam>::max()}) {
    values.insert(values.end(), {extreme, -extreme});
  }
  for (int turn = 0; turn < 64; ++turn) {
    SCOPED_TRACE(turn);
    std::rotate(values.begin(), values.begin() + 1, values.end());
    Log2Histogram histogram;

    Summarize<TypeParam>(values, &histogram);

    EXPECT_EQ(histogram, SlowSummary(values).histogram);
  }
}

TYPED_TEST(GradientStats, ChunksThatSeveralThreadsReadAddUpToTheWhole) {
  const std::vector<TypeParam> values = Values<TypeParam>(40'000);
  const absl::Span<const TypeParam> span = values;
  std::vector<ChunkSummary<TypeParam>> chunks(3);
  Log2Histogram whole_histogram;
  const TensorSummary whole = Summarize<TypeParam>(values, &whole_histogram);
  Log2Histogram histogram;

  for (size_t i = 0; i < chunks.size(); ++i) {
    SummarizeChunk<TypeParam>(span.subspan(i * kChunk, kChunk), true, &chunks[i]);
  }
  const TensorSummary summary = Combine<TypeParam>(chunks, values, &histogram);

  EXPECT_EQ(histogram, whole_histogram);
  EXPECT_EQ(summary.norm, whole.norm);
  EXPECT_EQ(summary.zeros, whole.zeros);
}

TYPED_TEST(GradientStats, GateSquaresAreThoseOfEachGatesPart) {
  const std::vector<TypeParam> values = Values<TypeParam>(4 * 131);
  const absl::Span<const TypeParam> span = values;
  double gates[4] = {};

  for (const auto& [begin, size] : {std::pair{0, 200}, {200, 300}, {500, 24}}) {
    AddGateSquares<TypeParam>(span.subspan(static_cast<size_t>(begin), static_cast<size_t>(size)),
                              begin, 131, gates);
  }

  const double error = sizeof(TypeParam) == sizeof(float) ? 4e-7 : 1e-13;
  for (size_t gate = 0; gate < 4; ++gate) {
    const absl::Span<const TypeParam> part = span.subspan(gate * 131, 131);
    const auto expected =
        static_cast<double>(SlowSummary(std::vector<TypeParam>(part.begin(), part.end())).squares);
    EXPECT_NEAR(gates[gate], expected, error * expected) << gate;
  }
}

TYPED_TEST(GradientStats, NormIsTheSameBitsWithAndWithoutHistogram) {
  const std::vector<TypeParam> values = Values<TypeParam>(5003);
  Log2Histogram histogram;

  const double fused = Summarize<TypeParam>(values, &histogram).norm;

  EXPECT_EQ(Summarize<TypeParam>(values).norm, fused);
  EXPECT_EQ(Norm<TypeParam>(values), fused);
}

TYPED_TEST(GradientStats, DifferenceNormSubtractsInDouble) {
  const std::vector<TypeParam> before = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<TypeParam> after = before;
  after[0] += 3;
  after[8] -= 4;

  EXPECT_EQ(DifferenceNorm<TypeParam>(after, before), 5.0);
  EXPECT_EQ(DifferenceNorm<TypeParam>(before, before), 0.0);
  EXPECT_EQ(DifferenceNorm<TypeParam>({}, {}), 0.0);
}

TEST(GradientStatsFloat, SquaresThatOverflowAFloatAreSummedInDouble) {
  EXPECT_NEAR(Norm<float>(std::vector<float>{3e30F, 4e30F}), 5e30, 1e24);
  EXPECT_NEAR(Norm<float>(std::vector<float>{3e-30F, 4e-30F}), 5e-30, 1e-36);
}

TEST(GradientStatsDouble, SquaresThatLeaveTheRangeOfADoubleAreScaled) {
  EXPECT_DOUBLE_EQ(Norm<double>(std::vector<double>{3e200, 4e200}), 5e200);
  EXPECT_DOUBLE_EQ(Norm<double>(std::vector<double>{3e-200, 0.0, 4e-200}), 5e-200);
  EXPECT_EQ(Norm<double>(std::vector<double>{0.0, -0.0}), 0.0);
}

TEST(GradientStatsDouble, HistogramCountsSubnormalsInTheFirstBin) {
  const std::vector<double> values = {std::numeric_limits<double>::denorm_min(), 0.0, 1e300, 1.0};
  Log2Histogram histogram;

  Summarize<double>(values, &histogram);

  EXPECT_EQ(histogram[0], 1U);
  EXPECT_EQ(histogram[255], 1U);
  EXPECT_EQ(histogram[kHistogramBinOfOne], 1U);
}

TEST(BinEdge, DividesEachPowerOfTwoEvenly) {
  EXPECT_EQ(BinEdge(kHistogramBinOfOne), 1.0);
  EXPECT_EQ(BinEdge(kHistogramBinOfOne + 3), 1.75);
  EXPECT_EQ(BinEdge(kHistogramBinOfOne - 1), 0.875);
  EXPECT_EQ(BinEdge(0), std::ldexp(1.0, -40));
  EXPECT_EQ(BinEdge(kHistogramBins), std::ldexp(1.0, 24));
}

TEST(CombineNorms, IsTheRootOfTheSumOfSquares) {
  EXPECT_EQ(CombineNorms({}), 0.0);
  EXPECT_EQ(CombineNorms({3.0, 4.0}), 5.0);
  EXPECT_DOUBLE_EQ(CombineNorms({3e200, 4e200}), 5e200);
  EXPECT_EQ(CombineNorms({1.0, kInfinity}), kInfinity);
  EXPECT_TRUE(std::isnan(CombineNorms({1.0, kNaN})));
}

}  // namespace
}  // namespace gradwatch::stats
