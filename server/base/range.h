#ifndef GRADWATCH_SERVER_BASE_RANGE_H_
#define GRADWATCH_SERVER_BASE_RANGE_H_

#include <algorithm>
#include <cstdint>

namespace gradwatch {

// The indices begin <= i < end.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  bool empty() const { return end <= begin; }
};

// The share of [0, n) that `part` of `parts` has to do: `parts` ranges without gaps, as equal as
// boundaries at multiples of `step` allow, in order.
inline Range PartOf(int64_t n, int part, int parts, int64_t step = 1) {
  const int64_t steps = (n + step - 1) / step;
  const auto boundary = [&](int64_t i) { return std::min(n, steps * i / parts * step); };
  return {boundary(part), boundary(part + 1)};
}

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_RANGE_H_
