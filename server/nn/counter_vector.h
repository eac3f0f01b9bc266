#ifndef GRADWATCH_SERVER_NN_COUNTER_VECTOR_H_
#define GRADWATCH_SERVER_NN_COUNTER_VECTOR_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "server/base/vector.h"

namespace gradwatch::nn {

// As many whole numbers as there are S in a vector.
template <typename S>
struct CountersOf {
  using Type = int32_t __attribute__((vector_size(kVectorBytes)));
};
template <>
struct CountersOf<double> {
  using Type = int32_t __attribute__((vector_size(kVectorBytes / 2)));
};

// Adds counters to the first of some lanes, as many as they are.
template <typename Counters>
inline void AddLanes(const Counters& counters, std::array<int32_t, 16>* lanes) {
  Counters sum;
  std::memcpy(&sum, lanes->data(), sizeof(sum));
  sum += counters;
  std::memcpy(lanes->data(), &sum, sizeof(sum));
}

inline int64_t SumOfLanes(const std::array<int32_t, 16>& lanes) {
  return std::accumulate(lanes.begin(), lanes.end(), int64_t{0});
}

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_COUNTER_VECTOR_H_
