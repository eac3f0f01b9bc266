#ifndef GRADWATCH_TESTS_BENCH_SUMMARY_H_
#define GRADWATCH_TESTS_BENCH_SUMMARY_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
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

// The narrowest pair of order statistics, equally far from both ends, between which the median of
// the distribution lies with at least 95 %; the ends where there are fewer than six values.
inline std::pair<double, double> MedianInterval95(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  // The chance that the median lies outside is twice the lower tail of a binomial distribution.
  double term = std::pow(0.5, static_cast<double>(n));
  double tail = term;
  size_t cut = 0;
  for (; 2 * (cut + 1) < n; ++cut) {
    term *= static_cast<double>(n - cut) / static_cast<double>(cut + 1);
    tail += term;
    if (2.0 * tail > 0.05) break;
  }
  return {values[cut], values[n - 1 - cut]};
}

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_SUMMARY_H_
