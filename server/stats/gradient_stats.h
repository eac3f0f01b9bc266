#ifndef GRADWATCH_SERVER_STATS_GRADIENT_STATS_H_
#define GRADWATCH_SERVER_STATS_GRADIENT_STATS_H_

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "server/base/export.h"

// What one pass over a tensor tells. Everything here reads its input once (in blocks that stay in
// the first-level cache), allocates nothing, sums in double in an order that only depends on the
// size, and gives the same bits of a norm whichever function asks.
namespace gradwatch::stats {

// Entries are counted by magnitude, in four bins of equal width for each power of two: bin b begins
// at BinEdge(b) = (1 + (b mod 4) / 4) * 2^(b div 4 - 40), so that a quantile is at most a quarter
// off. What is below the first bin or above the last is counted in those. Zeros, NaN and infinities
// are not.
constexpr int kBinsPerOctave = 4;
constexpr int kHistogramBins = 64 * kBinsPerOctave;
constexpr int kHistogramBinOfOne = 40 * kBinsPerOctave;
using Log2Histogram = std::array<uint32_t, kHistogramBins>;

// Where a bin, 0 to kHistogramBins, begins; that of the last plus one is where the last one ends.
GRADWATCH_ENGINE_API double BinEdge(int bin);

struct TensorSummary {
  double norm = 0.0;      // L2. NaN or infinite exactly when an entry is.
  double max_abs = 0.0;   // NaN entries left out; infinite when an entry is.
  int64_t zeros = 0;      // Entries that are +0 or -0.
  int64_t nonfinite = 0;  // NaN or infinite entries.
};

// A tensor is read in chunks of so many entries, each on its own, so that several threads may share
// it: what they find is put together in order and has the same bits as if one had read it all.
constexpr int64_t kChunk = int64_t{1} << 14;

// What is known of one chunk.
template <typename S>
struct ChunkSummary {
  static constexpr int kLanes = 16;
  double squares[kLanes] = {};  // Lane i sums the entries i, i + kLanes, …
  S largest = S(0);             // Of the magnitudes; NaN left out.
  int64_t zeros = 0;
  int64_t nonfinite = 0;
  // Two counters for each bin: successive entries often share a bin, and would wait for each
  // other's store. The last one takes NaN and infinities, too, bin 0 the zeros.
  uint32_t bins[2][kHistogramBins];
};

// Reads one chunk; its bins only when `with_histogram`.
template <typename S>
GRADWATCH_ENGINE_API void SummarizeChunk(absl::Span<const S> chunk, bool with_histogram,
                                         ChunkSummary<S>* summary);

// Puts the chunks of a tensor, in order, together. `values` is the tensor, which is read again only
// when its squares left the range of a double. `histogram` as for Summarize; null without one.
template <typename S>
GRADWATCH_ENGINE_API TensorSummary Combine(absl::Span<const ChunkSummary<S>> chunks,
                                           absl::Span<const S> values, Log2Histogram* histogram);

// Of one tensor; all zero for an empty one. `histogram`, when not null, is overwritten.
template <typename S>
GRADWATCH_ENGINE_API TensorSummary Summarize(absl::Span<const S> values,
                                             Log2Histogram* histogram = nullptr);

// L2 norm, the same bits as Summarize. A finite tensor has a finite norm, also where its squares
// overflow or underflow a double (as long as the norm itself does not).
template <typename S>
GRADWATCH_ENGINE_API double Norm(absl::Span<const S> values);

// L2 norm of after - before, the difference taken in double. Requires equal sizes.
template <typename S>
GRADWATCH_ENGINE_API double DifferenceNorm(absl::Span<const S> after, absl::Span<const S> before);

// L2 norm over tensors whose own norms are given: the root of the sum of squares, in their order.
GRADWATCH_ENGINE_API double CombineNorms(absl::Span<const double> norms);

// A gated layer's tensor is made of one block of `gate_size` entries for each gate. Adds the sum of
// squares of a part of it, which begins at entry `begin` of the tensor, to those of the gates it
// lies in. Within 4e-7 for floats (QuickSumOfSquares): for what is only shown.
template <typename S>
GRADWATCH_ENGINE_API void AddGateSquares(absl::Span<const S> part, int64_t begin, int64_t gate_size,
                                         double* gates);

}  // namespace gradwatch::stats

#endif  // GRADWATCH_SERVER_STATS_GRADIENT_STATS_H_
