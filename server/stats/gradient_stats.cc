#include "server/stats/gradient_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>

#include "server/base/check.h"

namespace gradwatch::stats {
namespace {

constexpr int64_t kLanes = 16;
// A block of floats or doubles stays in the first-level cache between moments and histogram.
constexpr int64_t kBlock = 2048;

// Where the parts of a floating-point number are.
template <typename S>
struct Format;

template <>
struct Format<float> {
  using SignedBits = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr int kBias = 127;
};

template <>
struct Format<double> {
  using SignedBits = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr int kBias = 1023;
};

template <typename S>
constexpr typename Format<S>::SignedBits kMagnitudeMask =
    std::numeric_limits<typename Format<S>::SignedBits>::max();
template <typename S>
constexpr typename Format<S>::SignedBits kInfinityBits =
    static_cast<typename Format<S>::SignedBits>(2 * Format<S>::kBias + 1)
    << Format<S>::kMantissaBits;

// Running sums of one tensor.
template <typename S>
struct Moments {
  double squares[kLanes] = {};                 // Lane i sums the entries i, i + kLanes, ...
  typename Format<S>::SignedBits largest = 0;  // Bits of |x|: they order as the numbers do.
  int64_t zeros = 0;
  int64_t nonfinite = 0;
};

// Lanes in vectors of GCC and Clang, spelled out: compilers do not vectorise such a sum by
// themselves, because that would change its order.
template <typename S>
void AddSquares(const S* values, int64_t n, double* squares) {
  typedef S Four __attribute__((vector_size(4 * sizeof(S))));
  typedef double FourDoubles __attribute__((vector_size(4 * sizeof(double))));
  Four x0, x1, x2, x3;
  FourDoubles sums[4];
  std::memcpy(sums, squares, sizeof(sums));
  FourDoubles sum0 = sums[0], sum1 = sums[1], sum2 = sums[2], sum3 = sums[3];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    std::memcpy(&x0, values + i, sizeof(Four));
    std::memcpy(&x1, values + i + 4, sizeof(Four));
    std::memcpy(&x2, values + i + 8, sizeof(Four));
    std::memcpy(&x3, values + i + 12, sizeof(Four));
    const FourDoubles wide0 = __builtin_convertvector(x0, FourDoubles);
    const FourDoubles wide1 = __builtin_convertvector(x1, FourDoubles);
    const FourDoubles wide2 = __builtin_convertvector(x2, FourDoubles);
    const FourDoubles wide3 = __builtin_convertvector(x3, FourDoubles);
    sum0 += wide0 * wide0;
    sum1 += wide1 * wide1;
    sum2 += wide2 * wide2;
    sum3 += wide3 * wide3;
  }
  std::memcpy(squares, &sum0, sizeof(sum0));
  std::memcpy(squares + 4, &sum1, sizeof(sum1));
  std::memcpy(squares + 8, &sum2, sizeof(sum2));
  std::memcpy(squares + 12, &sum3, sizeof(sum3));
  for (int64_t lane = 0; i < n; ++i, ++lane) {
    const double wide = static_cast<double>(values[i]);
    squares[lane] += wide * wide;
  }
}

// Adds up to kBlock values. Never inlined: one instruction sequence whoever asks, so one result.
template <typename S>
__attribute__((noinline)) void AddBlock(const S* values, int64_t n, Moments<S>* moments) {
  using Signed = typename Format<S>::SignedBits;
  AddSquares(values, n, moments->squares);
  Signed largest = moments->largest;
  Signed zeros = 0;
  Signed nonfinite = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Signed magnitude = std::bit_cast<Signed>(values[i]) & kMagnitudeMask<S>;
    const Signed unless_nan = magnitude & -static_cast<Signed>(magnitude <= kInfinityBits<S>);
    largest = std::max(largest, unless_nan);
    zeros += static_cast<Signed>(magnitude == 0);
    nonfinite += static_cast<Signed>(magnitude >= kInfinityBits<S>);
  }
  moments->largest = largest;
  moments->zeros += zeros;
  moments->nonfinite += nonfinite;
}

template <typename S>
double SumOf(const Moments<S>& m) {
  double sum = 0.0;
  for (int64_t lane = 0; lane < kLanes / 2; ++lane) {
    sum += m.squares[lane] + m.squares[lane + kLanes / 2];
  }
  return sum;
}

// Four counters for each bin: successive entries often share a bin, and would wait for each
// other's store. The bin after the last one takes NaN and infinities.
struct SubHistograms {
  uint32_t counts[4][kHistogramBins + 1] = {};
};

template <typename S>
uint8_t BinOf(S value) {
  using Signed = typename Format<S>::SignedBits;
  constexpr Signed kToBin = kHistogramBinOfOne - Format<S>::kBias;
  const Signed magnitude = std::bit_cast<Signed>(value) & kMagnitudeMask<S>;
  const Signed bin = (magnitude >> Format<S>::kMantissaBits) + kToBin;
  const Signed inside = std::min<Signed>(std::max<Signed>(bin, 0), kHistogramBins - 1);
  const auto nonfinite = static_cast<Signed>(magnitude >= kInfinityBits<S>);
  return static_cast<uint8_t>(inside + nonfinite);
}

// Counts zeros into bin 0; the caller takes them out.
template <typename S>
void CountBlock(const S* values, int64_t n, SubHistograms* sub) {
  uint8_t bins[kBlock];
  for (int64_t i = 0; i < n; ++i) bins[i] = BinOf(values[i]);
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    ++sub->counts[0][bins[i]];
    ++sub->counts[1][bins[i + 1]];
    ++sub->counts[2][bins[i + 2]];
    ++sub->counts[3][bins[i + 3]];
  }
  for (; i < n; ++i) ++sub->counts[0][bins[i]];
}

void Merge(const SubHistograms& sub, int64_t zeros, Log2Histogram* histogram) {
  for (size_t bin = 0; bin < kHistogramBins; ++bin) {
    (*histogram)[bin] =
        sub.counts[0][bin] + sub.counts[1][bin] + sub.counts[2][bin] + sub.counts[3][bin];
  }
  (*histogram)[0] -= static_cast<uint32_t>(zeros);
}

template <typename S>
double Largest(const Moments<S>& m) {
  return static_cast<double>(std::bit_cast<S>(m.largest));
}

// The norm of finite doubles whose squares leave the range of a double.
double ScaledNorm(absl::Span<const double> values, double largest) {
  double sum = 0.0;
  for (const double value : values) {
    const double scaled = value / largest;
    sum += scaled * scaled;
  }
  return largest * std::sqrt(sum);
}

bool SquaresAreExact(double sum_of_squares) {
  return std::isfinite(sum_of_squares) && sum_of_squares > 1e-280;
}

template <typename S>
double NormOf(const Moments<S>& m, absl::Span<const S> values) {
  const double sum = SumOf(m);
  if constexpr (std::is_same_v<S, double>) {
    const double largest = Largest(m);
    if (m.nonfinite == 0 && largest > 0.0 && !SquaresAreExact(sum)) {
      return ScaledNorm(values, largest);
    }
  }
  return std::sqrt(sum);
}

}  // namespace

template <typename S>
TensorSummary Summarize(absl::Span<const S> values, Log2Histogram* histogram) {
  Moments<S> moments;
  SubHistograms sub;
  const int64_t size = static_cast<int64_t>(values.size());
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t n = std::min(kBlock, size - begin);
    AddBlock(values.data() + begin, n, &moments);
    if (histogram != nullptr) CountBlock(values.data() + begin, n, &sub);
  }
  if (histogram != nullptr) Merge(sub, moments.zeros, histogram);
  return {.norm = NormOf(moments, values),
          .max_abs = Largest(moments),
          .zeros = moments.zeros,
          .nonfinite = moments.nonfinite};
}

template <typename S>
double Norm(absl::Span<const S> values) {
  return Summarize(values).norm;
}

template <typename S>
double DifferenceNorm(absl::Span<const S> after, absl::Span<const S> before) {
  GRADWATCH_CHECK(after.size() == before.size());
  double block[kBlock];
  Moments<double> moments;
  const int64_t size = static_cast<int64_t>(after.size());
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t n = std::min(kBlock, size - begin);
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(begin + i);
      block[i] = static_cast<double>(after[at]) - static_cast<double>(before[at]);
    }
    AddBlock(block, n, &moments);
  }
  return std::sqrt(SumOf(moments));
}

double CombineNorms(absl::Span<const double> norms) {
  double sum = 0.0;
  double largest = 0.0;
  bool finite = true;
  for (const double norm : norms) {
    sum += norm * norm;
    largest = std::max(largest, norm);
    finite = finite && std::isfinite(norm);
  }
  if (finite && largest > 0.0 && !SquaresAreExact(sum)) return ScaledNorm(norms, largest);
  return std::sqrt(sum);
}

template GRADWATCH_ENGINE_API TensorSummary Summarize(absl::Span<const float>, Log2Histogram*);
template GRADWATCH_ENGINE_API TensorSummary Summarize(absl::Span<const double>, Log2Histogram*);
template GRADWATCH_ENGINE_API double Norm(absl::Span<const float>);
template GRADWATCH_ENGINE_API double Norm(absl::Span<const double>);
template GRADWATCH_ENGINE_API double DifferenceNorm(absl::Span<const float>,
                                                    absl::Span<const float>);
template GRADWATCH_ENGINE_API double DifferenceNorm(absl::Span<const double>,
                                                    absl::Span<const double>);

}  // namespace gradwatch::stats
