#include "server/stats/gradient_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>

#include "server/base/check.h"
#include "server/base/squares.h"
#include "server/base/vector.h"

namespace gradwatch::stats {
namespace {

constexpr int64_t kLanes = ChunkSummary<float>::kLanes;
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

// Lanes in vectors of GCC and Clang, spelled out: compilers do not vectorise such a sum by
// themselves, because that would change its order.
template <typename S>
void AddSquares(const S* values, int64_t n, double* squares) {
  constexpr int kStep = static_cast<int>(kVectorSize<double>);
  constexpr int kVectors = kLanes / kStep;
  Vector<double> sums[kVectors];
  for (int v = 0; v < kVectors; ++v) sums[v] = LoadVector(squares + v * kStep);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector<double> wide = LoadWide(values + i + v * kStep);
      sums[v] += wide * wide;
    }
  }
  for (int v = 0; v < kVectors; ++v) StoreVector<double>(sums[v], squares + v * kStep);
  for (int64_t lane = 0; i < n; ++i, ++lane) {
    const double wide = static_cast<double>(values[i]);
    squares[lane] += wide * wide;
  }
}

// Adds up to kBlock values. Never inlined: one instruction sequence whoever asks, so one result.
template <typename S>
__attribute__((noinline)) void AddBlock(const S* values, int64_t n, ChunkSummary<S>* summary) {
  using Signed = typename Format<S>::SignedBits;
  AddSquares(values, n, summary->squares);
  // Bits of magnitudes order as the numbers do.
  auto largest = std::bit_cast<Signed>(summary->largest);
  Signed zeros = 0;
  Signed nonfinite = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Signed magnitude = std::bit_cast<Signed>(values[i]) & kMagnitudeMask<S>;
    const Signed unless_nan = magnitude & -static_cast<Signed>(magnitude <= kInfinityBits<S>);
    largest = std::max(largest, unless_nan);
    zeros += static_cast<Signed>(magnitude == 0);
    nonfinite += static_cast<Signed>(magnitude >= kInfinityBits<S>);
  }
  summary->largest = std::bit_cast<S>(largest);
  summary->zeros += zeros;
  summary->nonfinite += nonfinite;
}

double SumOf(const double* lanes) {
  double sum = 0.0;
  for (int64_t lane = 0; lane < kLanes / 2; ++lane) sum += lanes[lane] + lanes[lane + kLanes / 2];
  return sum;
}

template <typename S>
uint8_t BinOf(S value) {
  using Signed = typename Format<S>::SignedBits;
  // The exponent, and the two highest bits of the mantissa behind it.
  constexpr int kDropped = Format<S>::kMantissaBits - 2;
  constexpr Signed kToBin = kHistogramBinOfOne - kBinsPerOctave * Format<S>::kBias;
  const Signed magnitude = std::bit_cast<Signed>(value) & kMagnitudeMask<S>;
  const Signed bin = (magnitude >> kDropped) + kToBin;
  return static_cast<uint8_t>(std::min<Signed>(std::max<Signed>(bin, 0), kHistogramBins - 1));
}

// Counts zeros into bin 0 and what is not finite into the last; the caller takes them out.
template <typename S>
void CountBlock(const S* values, int64_t n, ChunkSummary<S>* summary) {
  uint8_t bins[kBlock];
  for (int64_t i = 0; i < n; ++i) bins[i] = BinOf(values[i]);
  int64_t i = 0;
  for (; i + 2 <= n; i += 2) {
    ++summary->bins[0][bins[i]];
    ++summary->bins[1][bins[i + 1]];
  }
  for (; i < n; ++i) ++summary->bins[0][bins[i]];
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
double NormOf(double sum, const TensorSummary& summary, absl::Span<const S> values) {
  if constexpr (std::is_same_v<S, double>) {
    if (summary.nonfinite == 0 && summary.max_abs > 0.0 && !SquaresAreExact(sum)) {
      return ScaledNorm(values, summary.max_abs);
    }
  }
  return std::sqrt(sum);
}

// Adds the chunks, in order, to what is known of a tensor so far.
template <typename S>
struct Tally {
  double lanes[kLanes] = {};
  TensorSummary summary;

  void Add(const ChunkSummary<S>& chunk, Log2Histogram* histogram) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += chunk.squares[lane];
    summary.max_abs = std::max(summary.max_abs, static_cast<double>(chunk.largest));
    summary.zeros += chunk.zeros;
    summary.nonfinite += chunk.nonfinite;
    if (histogram == nullptr) return;
    for (size_t bin = 0; bin < kHistogramBins; ++bin) {
      (*histogram)[bin] += chunk.bins[0][bin] + chunk.bins[1][bin];
    }
    (*histogram)[0] -= static_cast<uint32_t>(chunk.zeros);
    (*histogram)[kHistogramBins - 1] -= static_cast<uint32_t>(chunk.nonfinite);
  }
};

}  // namespace

double BinEdge(int bin) {
  constexpr int kOctaveOfOne = kHistogramBinOfOne / kBinsPerOctave;
  return std::ldexp(1.0 + static_cast<double>(bin % kBinsPerOctave) / kBinsPerOctave,
                    bin / kBinsPerOctave - kOctaveOfOne);
}

template <typename S>
void SummarizeChunk(absl::Span<const S> chunk, bool with_histogram, ChunkSummary<S>* summary) {
  std::fill_n(summary->squares, kLanes, 0.0);
  summary->largest = S(0);
  summary->zeros = summary->nonfinite = 0;
  if (with_histogram) std::memset(summary->bins, 0, sizeof(summary->bins));
  const auto size = static_cast<int64_t>(chunk.size());
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t n = std::min(kBlock, size - begin);
    AddBlock(chunk.data() + begin, n, summary);
    if (with_histogram) CountBlock(chunk.data() + begin, n, summary);
  }
}

template <typename S>
TensorSummary Combine(absl::Span<const ChunkSummary<S>> chunks, absl::Span<const S> values,
                      Log2Histogram* histogram) {
  Tally<S> tally;
  if (histogram != nullptr) histogram->fill(0);
  for (const ChunkSummary<S>& chunk : chunks) tally.Add(chunk, histogram);
  tally.summary.norm = NormOf(SumOf(tally.lanes), tally.summary, values);
  return tally.summary;
}

template <typename S>
TensorSummary Summarize(absl::Span<const S> values, Log2Histogram* histogram) {
  Tally<S> tally;
  if (histogram != nullptr) histogram->fill(0);
  ChunkSummary<S> chunk;
  for (size_t begin = 0; begin < values.size(); begin += kChunk) {
    SummarizeChunk(values.subspan(begin, kChunk), histogram != nullptr, &chunk);
    tally.Add(chunk, histogram);
  }
  tally.summary.norm = NormOf(SumOf(tally.lanes), tally.summary, values);
  return tally.summary;
}

template <typename S>
double Norm(absl::Span<const S> values) {
  return Summarize(values).norm;
}

template <typename S>
double DifferenceNorm(absl::Span<const S> after, absl::Span<const S> before) {
  GRADWATCH_CHECK(after.size() == before.size());
  double block[kBlock];
  ChunkSummary<double> summary;
  const int64_t size = static_cast<int64_t>(after.size());
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t n = std::min(kBlock, size - begin);
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(begin + i);
      block[i] = static_cast<double>(after[at]) - static_cast<double>(before[at]);
    }
    AddBlock(block, n, &summary);
  }
  return std::sqrt(SumOf(summary.squares));
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

template <typename S>
void AddGateSquares(absl::Span<const S> part, int64_t begin, int64_t gate_size, double* gates) {
  const auto size = static_cast<int64_t>(part.size());
  for (int64_t at = 0; at < size;) {
    const int64_t gate = (begin + at) / gate_size;
    const int64_t n = std::min(size - at, (gate + 1) * gate_size - (begin + at));
    gates[gate] += SumOfSquares(part.data() + at, n);
    at += n;
  }
}

template GRADWATCH_ENGINE_API void AddGateSquares(absl::Span<const float>, int64_t, int64_t,
                                                  double*);
template GRADWATCH_ENGINE_API void AddGateSquares(absl::Span<const double>, int64_t, int64_t,
                                                  double*);
template GRADWATCH_ENGINE_API void SummarizeChunk(absl::Span<const float>, bool,
                                                  ChunkSummary<float>*);
template GRADWATCH_ENGINE_API void SummarizeChunk(absl::Span<const double>, bool,
                                                  ChunkSummary<double>*);
template GRADWATCH_ENGINE_API TensorSummary Combine(absl::Span<const ChunkSummary<float>>,
                                                    absl::Span<const float>, Log2Histogram*);
template GRADWATCH_ENGINE_API TensorSummary Combine(absl::Span<const ChunkSummary<double>>,
                                                    absl::Span<const double>, Log2Histogram*);
template GRADWATCH_ENGINE_API TensorSummary Summarize(absl::Span<const float>, Log2Histogram*);
template GRADWATCH_ENGINE_API TensorSummary Summarize(absl::Span<const double>, Log2Histogram*);
template GRADWATCH_ENGINE_API double Norm(absl::Span<const float>);
template GRADWATCH_ENGINE_API double Norm(absl::Span<const double>);
template GRADWATCH_ENGINE_API double DifferenceNorm(absl::Span<const float>,
                                                    absl::Span<const float>);
template GRADWATCH_ENGINE_API double DifferenceNorm(absl::Span<const double>,
                                                    absl::Span<const double>);

}  // namespace gradwatch::stats
