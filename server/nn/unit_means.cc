#include "server/nn/unit_means.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "server/base/vector.h"
#include "server/nn/counter_vector.h"

namespace gradwatch::nn {
namespace {

constexpr int64_t kCountsStride = 8;  // Members write at the same time: not to the same cache line.

// In multiples of 2^-fraction_bits, rounded. Spelled out: a comparison with NaN keeps compilers
// from making vectors of it by themselves.
template <typename S, int fraction_bits>
inline typename CountersOf<S>::Type WholeMagnitudes(const Vector<S>& values) {
  constexpr S kScale = S(1 << fraction_bits);
  const Vector<S> magnitudes = values < S(0) ? -values : values;
  const Vector<S> inside = magnitudes < S(1) ? magnitudes : Vector<S>{} + S(1);
  return __builtin_convertvector(inside * kScale + S(0.5), typename CountersOf<S>::Type);
}

}  // namespace

UnitMeans::UnitMeans(int64_t units, int members)
    : units_(units),
      members_(members),
      narrow_(units * members),
      wide_(units * members),
      counts_(kCountsStride * members) {}

void UnitMeans::Clear() {
  std::fill_n(narrow_.data(), narrow_.size(), 0);
  std::fill_n(wide_.data(), wide_.size(), int64_t{0});
  std::fill_n(counts_.data(), counts_.size(), int64_t{0});
}

template <typename S>
void UnitMeans::Add(int member, const S* values) {
  constexpr int64_t kLanes = kVectorSize<S>;
  int32_t* const sums = narrow_.data() + member * units_;
  int64_t i = 0;
  for (; i + kLanes <= units_; i += kLanes) {
    typename CountersOf<S>::Type sum;
    std::memcpy(&sum, sums + i, sizeof(sum));
    sum += WholeMagnitudes<S, kFractionBits>(LoadVector(values + i));
    std::memcpy(sums + i, &sum, sizeof(sum));
  }
  if (i < units_) {
    S rest[kLanes] = {};
    std::copy(values + i, values + units_, rest);
    const auto last = WholeMagnitudes<S, kFractionBits>(LoadVector(rest));
    for (int64_t k = 0; i + k < units_; ++k) sums[i + k] += last[k];
  }
  if (++counts_[member * kCountsStride] == kNarrowMax) Widen(member);
}

void UnitMeans::Widen(int member) {
  for (int64_t i = member * units_; i < (member + 1) * units_; ++i) {
    wide_[i] += narrow_[i];
    narrow_[i] = 0;
  }
  counts_[member * kCountsStride] = 0;
}

double UnitMeans::Mean(int64_t unit, int64_t positions) const {
  int64_t sum = 0;
  for (int member = 0; member < members_; ++member) {
    sum += wide_[member * units_ + unit] + narrow_[member * units_ + unit];
  }
  return std::ldexp(static_cast<double>(sum), -kFractionBits) / static_cast<double>(positions);
}

int64_t UnitMeans::MemoryBytesOf(int64_t units, int members) {
  const int64_t sums = SaturatingMultiply(units, sizeof(int32_t) + sizeof(int64_t));
  return SaturatingMultiply(SaturatingAdd(sums, kCountsStride * 8), members);
}

template void UnitMeans::Add(int, const float*);
template void UnitMeans::Add(int, const double*);

}  // namespace gradwatch::nn
