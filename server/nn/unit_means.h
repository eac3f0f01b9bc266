#ifndef GRADWATCH_SERVER_NN_UNIT_MEANS_H_
#define GRADWATCH_SERVER_NN_UNIT_MEANS_H_

#include <cstdint>

#include "server/nn/buffer.h"

namespace gradwatch::nn {

// Means of the magnitudes of many units over many positions, which several threads bring in any
// order. Sums are of whole numbers, multiples of 2^-18, so neither order nor threads change a bit;
// a mean is off by 2e-6 at most. Magnitudes above 1 and NaN count as 1. Allocates only in its
// constructor.
class UnitMeans {
 public:
  UnitMeans(int64_t units, int members);

  void Clear();
  // Adds one position. Each member by one thread at a time.
  template <typename S>
  void Add(int member, const S* values);
  // Of unit `unit`, over `positions` that were added. By one thread, after the others.
  double Mean(int64_t unit, int64_t positions) const;

  // What an object holds, in bytes; saturates.
  static int64_t MemoryBytesOf(int64_t units, int members);

 private:
  static constexpr int kFractionBits = 18;
  // Positions that fit in a narrow sum.
  static constexpr int kNarrowMax = (1 << (31 - kFractionBits)) - 1;

  void Widen(int member);

  const int64_t units_;
  const int members_;
  Buffer<int32_t> narrow_;  // [members, units]: of the last positions, quick to add to.
  Buffer<int64_t> wide_;    // [members, units]: of those before.
  Buffer<int64_t> counts_;  // [members, a cache line]: positions in `narrow_`.
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_UNIT_MEANS_H_
