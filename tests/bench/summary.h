#ifndef GRADWATCH_TESTS_BENCH_SUMMARY_H_
#define GRADWATCH_TESTS_BENCH_SUMMARY_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace gradwatch::bench {

// The value that a share of `q` of all `values` does not exceed; NaN of none.
inline double QuantileOf(std::vector<double> values, double q) {
  if (values.empty()) return std::nan("");
  const auto last = static_cast<double>(values.size() - 1);
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(std::lround(q * last));
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

inline double MedianOf(const std::vector<double>& values) { return QuantileOf(values, 0.5); }

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_SUMMARY_H_
