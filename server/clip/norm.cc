#include "server/clip/norm.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "server/clip/lanes.h"

namespace gradwatch::clip {
namespace {

// Calls step(lanes, accumulator number) over all values, with four accumulators in turn so that
// the additions of one do not wait for those of another. The rest is filled up with zeros.
template <typename S, typename Step>
inline void ForEachLanes(absl::Span<const S> values, Step step) {
  constexpr int64_t kStride = 4 * kLanes;
  const auto stride = [&step](const S* from) {
    step(Load(from), 0);
    step(Load(from + kLanes), 1);
    step(Load(from + 2 * kLanes), 2);
    step(Load(from + 3 * kLanes), 3);
  };
  const int64_t size = static_cast<int64_t>(values.size());
  int64_t i = 0;
  for (; i + kStride <= size; i += kStride) stride(values.data() + i);
  if (i == size) return;
  S rest[kStride] = {};
  std::copy(values.begin() + i, values.end(), rest);
  stride(rest);
}

double Total(const Lanes (&sums)[4]) { return Sum((sums[0] + sums[1]) + (sums[2] + sums[3])); }

template <typename S>
double SumOfAbs(absl::Span<const S> values) {
  Lanes sums[4] = {};
  ForEachLanes(values, [&sums](Lanes x, int i) { sums[i] += Abs(x); });
  return Total(sums);
}

template <typename S>
double SumOfSquares(absl::Span<const S> values, double scale) {
  Lanes sums[4] = {};
  ForEachLanes(values, [&sums, scale](Lanes x, int i) {
    const Lanes scaled = x * scale;
    sums[i] += scaled * scaled;
  });
  return Total(sums);
}

template <typename S>
double LargestAbs(absl::Span<const S> values) {
  Lanes largest[4] = {};
  // x * 0 is NaN for what is not finite: comparisons alone would lose a NaN.
  Lanes poison[4] = {};
  ForEachLanes(values, [&](Lanes x, int i) {
    const Lanes magnitude = Abs(x);
    largest[i] = magnitude > largest[i] ? magnitude : largest[i];
    poison[i] += x * 0.0;
  });
  double result = 0.0;
  for (const Lanes& lanes : largest) {
    for (int i = 0; i < kLanes; ++i) result = std::max(result, lanes[i]);
  }
  if (!std::isnan(Total(poison))) return result;
  const bool has_nan =
      std::any_of(values.begin(), values.end(), [](S value) { return std::isnan(value); });
  return has_nan ? std::numeric_limits<double>::quiet_NaN() : result;
}

// The root of a sum of squares that left the comfortable range of double: again, with the largest
// entry scaled to about 1. A power of two scales without rounding.
template <typename S>
double ScaledL2(absl::Span<const S> values) {
  const double largest = LargestAbs(values);
  if (largest == 0.0 || !std::isfinite(largest)) return largest;
  const int exponent = std::clamp(std::ilogb(largest), -1000, 1000);
  return std::ldexp(std::sqrt(SumOfSquares(values, std::ldexp(1.0, -exponent))), exponent);
}

template <typename S>
double L2(absl::Span<const S> values) {
  // Below this, squares of entries that matter may have lost digits to gradual underflow.
  constexpr double kTiny = DBL_MIN / DBL_EPSILON;
  const double sum = SumOfSquares(values, 1.0);
  if (sum > kTiny && sum <= DBL_MAX) return std::sqrt(sum);
  return ScaledL2(values);
}

}  // namespace

template <typename S>
double NormOf(Norm order, absl::Span<const S> values) {
  switch (order) {
    case Norm::kL1:
      return SumOfAbs(values);
    case Norm::kL2:
      return L2(values);
    case Norm::kInf:
      return LargestAbs(values);
  }
  return 0.0;
}

double JoinNorms(Norm order, double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::quiet_NaN();
  switch (order) {
    case Norm::kL1:
      return a + b;
    case Norm::kL2:
      return std::hypot(a, b);
    case Norm::kInf:
      return std::max(a, b);
  }
  return 0.0;
}

template <typename S>
double NormOf(Norm order, absl::Span<const Block<S>> blocks) {
  double norm = 0.0;
  for (const Block<S>& block : blocks) {
    norm = JoinNorms(order, norm, NormOf(order, absl::Span<const S>(block.gradient)));
  }
  return norm;
}

template double NormOf(Norm, absl::Span<const float>);
template double NormOf(Norm, absl::Span<const double>);
template double NormOf(Norm, absl::Span<const Block<float>>);
template double NormOf(Norm, absl::Span<const Block<double>>);

}  // namespace gradwatch::clip
