#ifndef GRADWATCH_SERVER_BASE_PHILOX_H_
#define GRADWATCH_SERVER_BASE_PHILOX_H_

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace gradwatch {

// Philox4x32-10, a counter-based random generator: block n of stream (key) is a pure function of
// both, so any example, tensor or step can be regenerated on its own, in any order.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A reader of one stream. Streams differ by (seed, stream, substream): for data `stream` is the
// purpose (training, evaluation) and `substream` the example; for weights `stream` is
// StreamOf(tensor name).
//
// Same arguments, same numbers, on every machine and compiler (NextNormal up to libm).
// Threads: one at a time.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint32_t stream, uint64_t substream);

  uint32_t NextU32();
  uint64_t NextU64();
  // Uniform on [0, 1) with 53 random bits.
  double NextUniform();
  // Uniform on {0, …, bound - 1}, without bias. Requires bound > 0.
  uint32_t NextBelow(uint32_t bound);
  // Standard normal (Box-Muller; two uniforms make two values).
  double NextNormal();

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
  bool has_spare_ = false;
  double spare_ = 0.0;
};

// A stream number for a name: FNV-1a over its bytes.
uint32_t StreamOf(absl::string_view name);

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_PHILOX_H_
