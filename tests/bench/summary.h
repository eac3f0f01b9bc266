#ifndef GRADWATCH_TESTS_BENCH_SUMMARY_H_
#define GRADWATCH_TESTS_BENCH_SUMMARY_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
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

// An interval that holds the median of what `values` were drawn from with a chance of 95 % or more,
// whatever the distribution: from the k-th smallest to the k-th largest, where fewer than k of n
// tosses of a coin show heads with a chance of 2.5 % at most. None below 6 values.
inline std::optional<std::pair<double, double>> MedianIntervalOf(std::vector<double> values) {
  const size_t n = values.size();
  double chance = std::pow(0.5, static_cast<double>(n));  // Of exactly `k` heads.
  double below = chance;
  size_t k = 0;
  while (k < n && below <= 0.025) {
    chance *= static_cast<double>(n - k) / static_cast<double>(k + 1);
    ++k;
    below += chance;
  }
  if (k == 0) return std::nullopt;
  std::sort(values.begin(), values.end());
  return std::pair(values[k - 1], values[n - k]);
}

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_SUMMARY_H_
