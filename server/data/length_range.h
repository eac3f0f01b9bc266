#ifndef GRADWATCH_SERVER_DATA_LENGTH_RANGE_H_
#define GRADWATCH_SERVER_DATA_LENGTH_RANGE_H_

#include <cstdint>

#include "server/base/philox.h"

namespace gradwatch::data {

// Lengths drawn evenly from minimum to maximum, both included.
struct LengthRange {
  int64_t minimum = 1;
  int64_t maximum = 1;

  int64_t Draw(RandomStream* random) const {
    return minimum + random->NextBelow(static_cast<uint32_t>(maximum - minimum + 1));
  }
};

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_LENGTH_RANGE_H_
