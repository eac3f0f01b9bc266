#include "server/nn/gate_sums.h"

#include <algorithm>
#include <cstring>

#include "server/base/check.h"
#include "server/base/vector.h"
#include "server/nn/counter_vector.h"
#include "server/nn/packet.h"

namespace gradwatch::nn {
namespace {

constexpr int64_t kLanesMax = 16;

template <typename S>
using Counters = typename CountersOf<S>::Type;

// In multiples of 2^-fraction_bits, rounded.
template <typename S, int fraction_bits>
inline Counters<S> Whole(const Vector<S>& magnitudes) {
  // The order of the two keeps NaN out.
  const Vector<S> inside = packet::pmin(Constant<S>(1.0), Packet<S>(magnitudes));
  return __builtin_convertvector(inside * S(1 << fraction_bits) + S(0.5), Counters<S>);
}

}  // namespace

GateSums::GateSums(int gates, int64_t units, int members)
    : gates_(gates),
      units_(units),
      member_size_(gates * StrideOf(units)),
      members_(members),
      narrow_(member_size_ * members),
      wide_(member_size_ * members),
      counts_(members) {
  GRADWATCH_CHECK(gates <= kGatesMax);
}

int64_t GateSums::StrideOf(int64_t units) {
  return (units + kLanesMax - 1) / kLanesMax * kLanesMax;
}

void GateSums::Clear() {
  std::fill_n(narrow_.data(), narrow_.size(), 0);
  for (int member = 0; member < members_; ++member) {
    Counts* const counts = &counts_[member];
    if (counts->has_wide) std::fill_n(wide_.data() + member * member_size_, member_size_, 0);
    *counts = Counts();
  }
}

template <typename S>
void GateSums::AddGate(Counts* counts, int gate, int32_t* sums, const S* values, int64_t stride,
                       int64_t positions) const {
  constexpr int64_t kLanes = kVectorSize<S>;
  constexpr S kClosed = static_cast<S>(kGateClosed);
  constexpr S kOpen = static_cast<S>(kGateOpen);
  // Comparisons that hold are -1, in lanes as wide as S.
  decltype(Vector<S>{} < Vector<S>{}) closed = {};
  decltype(closed) open = {};
  const auto add = [&](const Vector<S>& of, int32_t* to) {
    const Vector<S> magnitudes = packet::pabs(Packet<S>(of));
    closed -= magnitudes < kClosed;
    open -= magnitudes > kOpen;
    Counters<S> sum;
    std::memcpy(&sum, to, sizeof(sum));
    sum += Whole<S, kFractionBits>(magnitudes);
    std::memcpy(to, &sum, sizeof(sum));
  };
  const int64_t whole = units_ / kLanes * kLanes;
  S rest[kLanes];
  std::fill_n(rest, kLanes, S(0.5));  // Neither closed nor open.
  for (int64_t p = 0; p < positions; ++p, values += stride) {
    for (int64_t i = 0; i < whole; i += kLanes) add(LoadVector(values + i), sums + i);
    if (whole == units_) continue;
    std::copy(values + whole, values + units_, rest);
    add(LoadVector(rest), sums + whole);
  }
  const auto at = static_cast<size_t>(gate);
  AddLanes(__builtin_convertvector(closed, Counters<S>), &counts->closed[at]);
  AddLanes(__builtin_convertvector(open, Counters<S>), &counts->open[at]);
}

template <typename S>
void GateSums::Add(int member, const S* values, int64_t stride, int64_t positions) {
  Counts* const counts = &counts_[member];
  while (positions > 0) {
    const int64_t some = std::min(positions, kNarrowMax - counts->narrow_positions);
    for (int gate = 0; gate < gates_; ++gate) {
      AddGate(counts, gate, narrow_.data() + member * member_size_ + gate * StrideOf(units_),
              values + gate * units_, stride, some);
    }
    counts->narrow_positions += some;
    if (counts->narrow_positions == kNarrowMax) Widen(member);
    values += some * stride;
    positions -= some;
  }
}

void GateSums::Widen(int member) {
  for (int64_t i = member * member_size_; i < (member + 1) * member_size_; ++i) {
    wide_[i] += narrow_[i];
    narrow_[i] = 0;
  }
  counts_[member].narrow_positions = 0;
  counts_[member].has_wide = true;
}

void GateSums::Means(int gate, int64_t positions, absl::Span<double> means) const {
  GRADWATCH_CHECK(static_cast<int64_t>(means.size()) == units_);
  double* const sums = means.data();
  std::fill_n(sums, units_, 0.0);
  for (int member = 0; member < members_; ++member) {
    const int64_t at = member * member_size_ + gate * StrideOf(units_);
    const int32_t* const narrow = narrow_.data() + at;
    for (int64_t i = 0; i < units_; ++i) sums[i] += narrow[i];
    if (!counts_[member].has_wide) continue;
    // Whole numbers far below 2^53: no sum is rounded.
    const int64_t* const wide = wide_.data() + at;
    for (int64_t i = 0; i < units_; ++i) sums[i] += static_cast<double>(wide[i]);
  }
  constexpr double kUnit = 1.0 / (1 << kFractionBits);
  const auto count = static_cast<double>(positions);
  for (int64_t i = 0; i < units_; ++i) sums[i] = sums[i] * kUnit / count;
}

int64_t GateSums::CountAll(const std::array<Counts::Lanes, kGatesMax> Counts::*lanes,
                           int gate) const {
  int64_t count = 0;
  for (int member = 0; member < members_; ++member) {
    count += SumOfLanes((counts_[member].*lanes)[static_cast<size_t>(gate)]);
  }
  return count;
}

int64_t GateSums::Closed(int gate) const { return CountAll(&Counts::closed, gate); }
int64_t GateSums::Open(int gate) const { return CountAll(&Counts::open, gate); }

int64_t GateSums::MemoryBytesOf(int gates, int64_t units, int members) {
  constexpr int64_t kSums = sizeof(int32_t) + sizeof(int64_t);
  const int64_t sums = SaturatingMultiply(SaturatingMultiply(gates, StrideOf(units)), kSums);
  return SaturatingMultiply(SaturatingAdd(sums, sizeof(Counts)), members);
}

template void GateSums::Add(int, const float*, int64_t, int64_t);
template void GateSums::Add(int, const double*, int64_t, int64_t);

}  // namespace gradwatch::nn
