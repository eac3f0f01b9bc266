#include "server/stats/gradient_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

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

// The highest 16 bits of a number hold its sign, its exponent and what tells its bin.
using Tops = int16_t __attribute__((vector_size(kVectorBytes)));
constexpr int kTops = static_cast<int>(kVectorBytes) / 2;

// Those of the way-th vector of numbers, in every ways-th lane from lane `way` on; in the others is
// something else.
template <int way, typename S>
Tops LoadTops(const S* values) {
  constexpr size_t kFromEnd = (way + 1) * sizeof(int16_t);
  const S* const vector = values + way * kVectorSize<S>;
  Tops tops;
  std::memcpy(&tops, reinterpret_cast<const char*>(vector) + sizeof(S) - kFromEnd, sizeof(tops));
  return tops;
}

// `tops` with the lanes of the way-th vector filled in.
template <int way, typename S, int... lane>
Tops WithWay(const Tops& tops, const S* values, std::integer_sequence<int, lane...>) {
  constexpr int kWays = sizeof(S) / sizeof(int16_t);
  return __builtin_shufflevector(tops, LoadTops<way>(values),
                                 (lane % kWays == way ? kTops + lane : lane)...);
}

// Those of kTops numbers, in no order that matters.
template <typename S>
Tops TopsOf(const S* values) {
  constexpr auto kEach = std::make_integer_sequence<int, kTops>();
  const Tops tops = WithWay<1>(LoadTops<0>(values), values, kEach);
  if constexpr (sizeof(S) == sizeof(float)) {
    return tops;
  } else {
    return WithWay<3>(WithWay<2>(tops, values, kEach), values, kEach);
  }
}

// A number's sign and the rest of its mantissa taken away, its highest bits are its bin plus
// kFirst.
template <typename S>
struct Places {
  static constexpr int kDropped =
      Format<S>::kMantissaBits - 2 - 8 * static_cast<int>(sizeof(S) - sizeof(int16_t));
  static constexpr int16_t kFirst = kBinsPerOctave * Format<S>::kBias - kHistogramBinOfOne;
  static constexpr int16_t kLast = kFirst + kHistogramBins - 1;

  static Tops Of(const S* values) {
    const Tops places = (TopsOf(values) & std::numeric_limits<int16_t>::max()) >> kDropped;
    const Tops first = Tops{} + kFirst;
    const Tops last = Tops{} + kLast;
    const Tops from_first = places > first ? places : first;
    return from_first > last ? last : from_first;
  }
};

// Spelled out: of a plain loop compilers make an instruction that is slow to start.
template <typename S>
void ClearBins(ChunkSummary<S>* summary) {
  constexpr int64_t kAtOnce = 8 * kVectorBytes;
  static_assert(sizeof(summary->bins) % kAtOnce == 0);
  const Tops zeros = {};
  auto* to = reinterpret_cast<char*>(summary->bins);
  for (const char* end = to + sizeof(summary->bins); to < end; to += kAtOnce) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) std::memcpy(to + i * kVectorBytes, &zeros, sizeof(zeros));
  }
}

// Counts zeros into bin 0 and what is not finite into the last; the caller takes them out.
template <typename S>
void CountBlock(const S* values, int64_t n, ChunkSummary<S>* summary) {
  constexpr size_t kFirst = Places<S>::kFirst;
  // In memory, where a lane costs one instruction.
  int16_t places[kBlock];
  const int64_t end = n / kTops * kTops;
#pragma GCC unroll 4
  for (int64_t i = 0; i < end; i += kTops) {
    const Tops of_some = Places<S>::Of(values + i);
    std::memcpy(places + i, &of_some, sizeof(of_some));
  }
  for (int64_t i = 0; i < end; i += kTops) {
#pragma GCC unroll 32
    for (int lane = 0; lane < kTops; ++lane) {
      ++summary->bins[lane % 2][static_cast<size_t>(places[i + lane]) - kFirst];
    }
  }
  for (int64_t i = end; i < n; ++i) ++summary->bins[i % 2][BinOf(values[i])];
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

// Adds the chunks of a tensor, in order.
template <typename S>
class Tally {
 public:
  // `histogram` may be null.
  explicit Tally(Log2Histogram* histogram) : histogram_(histogram) {}

  void Add(const ChunkSummary<S>& chunk) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes_[lane] += chunk.squares[lane];
    summary_.max_abs = std::max(summary_.max_abs, static_cast<double>(chunk.largest));
    summary_.zeros += chunk.zeros;
    summary_.nonfinite += chunk.nonfinite;
    if (histogram_ != nullptr) AddBins(chunk);
    empty_ = false;
  }

  TensorSummary Finish(absl::Span<const S> values) {
    if (empty_ && histogram_ != nullptr) histogram_->fill(0);
    summary_.norm = NormOf(SumOf(lanes_), summary_, values);
    return summary_;
  }

 private:
  void AddBins(const ChunkSummary<S>& chunk) {
    uint32_t* const bins = histogram_->data();
    if (empty_) {
#pragma GCC unroll 4
      for (int bin = 0; bin < kHistogramBins; ++bin) {
        bins[bin] = chunk.bins[0][bin] + chunk.bins[1][bin];
      }
    } else {
      for (int bin = 0; bin < kHistogramBins; ++bin) {
        bins[bin] += chunk.bins[0][bin] + chunk.bins[1][bin];
      }
    }
    bins[0] -= static_cast<uint32_t>(chunk.zeros);
    bins[kHistogramBins - 1] -= static_cast<uint32_t>(chunk.nonfinite);
  }

  Log2Histogram* const histogram_;
  bool empty_ = true;
  double lanes_[kLanes] = {};
  TensorSummary summary_;
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
  if (with_histogram) ClearBins(summary);
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
  Tally<S> tally(histogram);
  for (const ChunkSummary<S>& chunk : chunks) tally.Add(chunk);
  return tally.Finish(values);
}

template <typename S>
TensorSummary Summarize(absl::Span<const S> values, Log2Histogram* histogram) {
  Tally<S> tally(histogram);
  ChunkSummary<S> chunk;
  for (size_t begin = 0; begin < values.size(); begin += kChunk) {
    SummarizeChunk(values.subspan(begin, kChunk), histogram != nullptr, &chunk);
    tally.Add(chunk);
  }
  return tally.Finish(values);
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
    gates[gate] += QuickSumOfSquares(part.data() + at, n);
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
