#ifndef GRADWATCH_SERVER_NN_GATE_SUMS_H_
#define GRADWATCH_SERVER_NN_GATE_SUMS_H_

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "server/nn/buffer.h"
#include "server/nn/network.h"

namespace gradwatch::nn {

// The magnitude below which a gate's value counts as closed, and above which as open.
constexpr double kGateClosed = 0.05;
constexpr double kGateOpen = 0.95;

// How far the gates of a layer are open, over many positions, which several threads bring in any
// order: how many values are near the ends of their range, and each unit's mean magnitude. Sums are
// of whole numbers, of magnitudes in multiples of 2^-18, so neither order nor threads change a bit;
// a mean is off by 2e-6 at most. Magnitudes are at most 1, as those of gates are; a NaN makes its
// unit's mean meaningless and is neither closed nor open. Allocates only in its constructor.
class GateSums {
 public:
  // For positions of `gates` (at most kGatesMax) x `units` values.
  GateSums(int gates, int64_t units, int members);

  void Clear();
  // Adds `positions` positions, the first value of each `stride` after that of the one before. Each
  // member by one thread at a time.
  template <typename S>
  void Add(int member, const S* values, int64_t stride, int64_t positions);

  // By one thread, after the others. The means of a gate's units over `positions`, which is how
  // many were added; how many values of a gate were closed and open.
  void Means(int gate, int64_t positions, absl::Span<double> means) const;
  int64_t Closed(int gate) const;
  int64_t Open(int gate) const;

  // What an object holds, in bytes; saturates.
  static int64_t MemoryBytesOf(int gates, int64_t units, int members);

 private:
  static constexpr int kFractionBits = 18;
  // Positions that fit in a narrow sum.
  static constexpr int64_t kNarrowMax = (1 << (31 - kFractionBits)) - 1;

  // Lanes that are summed at the end, as many as the widest vector has. A member writes to cache
  // lines of its own. Lanes do not overflow: a batch with 2^31 values of a gate takes over 8 GB.
  struct Counts {
    using Lanes = std::array<int32_t, 16>;
    alignas(64) std::array<Lanes, kGatesMax> closed{};
    std::array<Lanes, kGatesMax> open{};
    int64_t narrow_positions = 0;
    bool has_wide = false;
  };

  // A gate's sums, whole vectors long.
  static int64_t StrideOf(int64_t units);
  template <typename S>
  void AddGate(Counts* counts, int gate, uint32_t* sums, const S* values, int64_t stride,
               int64_t positions) const;
  void Widen(int member);
  int64_t CountAll(const std::array<Counts::Lanes, kGatesMax> Counts::*lanes, int gate) const;

  const int gates_;
  const int64_t units_;
  const int64_t member_size_;  // gates, each of whole vectors of units.
  const int members_;
  Buffer<uint32_t> narrow_;  // [members, member_size]: of the last positions, quick to add to.
  Buffer<int64_t> wide_;     // [members, member_size]: of those before.
  Buffer<Counts> counts_;    // [members]
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_GATE_SUMS_H_
