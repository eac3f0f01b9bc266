#include "server/nn/unit_means.h"

#include <algorithm>
#include <cmath>

namespace gradwatch::nn {
namespace {

constexpr int64_t kCountsStride = 8;  // Members write at the same time: not to the same cache line.

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
  constexpr S kScale = S(1 << kFractionBits);
  int32_t* const sums = narrow_.data() + member * units_;
  for (int64_t i = 0; i < units_; ++i) {
    const S magnitude = std::abs(values[i]);
    const S inside = magnitude < S(1) ? magnitude : S(1);
    sums[i] += static_cast<int32_t>(inside * kScale + S(0.5));
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
