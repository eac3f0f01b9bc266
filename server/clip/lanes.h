#ifndef GRADWATCH_SERVER_CLIP_LANES_H_
#define GRADWATCH_SERVER_CLIP_LANES_H_

#include <cstdint>
#include <cstring>

// Four doubles at a time, by the vector extension that GCC and Clang share. The order of every sum
// is written down here rather than left to the optimizer, so it is the same in every build.
namespace gradwatch::clip {

constexpr int64_t kLanes = 4;

using Lanes = double __attribute__((vector_size(32)));
using LaneBits = int64_t __attribute__((vector_size(32)));
using FloatLanes = float __attribute__((vector_size(16)));

inline Lanes AllLanes(double value) { return Lanes{value, value, value, value}; }

inline Lanes Load(const double* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

inline Lanes Load(const float* from) {
  FloatLanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return __builtin_convertvector(lanes, Lanes);
}

inline void Store(Lanes lanes, double* to) { std::memcpy(to, &lanes, sizeof(lanes)); }

inline void Store(Lanes lanes, float* to) {
  const FloatLanes rounded = __builtin_convertvector(lanes, FloatLanes);
  std::memcpy(to, &rounded, sizeof(rounded));
}

inline Lanes Abs(Lanes x) {
  return reinterpret_cast<Lanes>(reinterpret_cast<LaneBits>(x) & INT64_MAX);
}

inline double Sum(Lanes x) { return (x[0] + x[1]) + (x[2] + x[3]); }

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_LANES_H_
