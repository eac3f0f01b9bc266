#ifndef GRADWATCH_SERVER_NN_COUNTER_VECTOR_H_
#define GRADWATCH_SERVER_NN_COUNTER_VECTOR_H_

#include <cstdint>

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

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_COUNTER_VECTOR_H_
