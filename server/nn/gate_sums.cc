#include "server/nn/gate_sums.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

#include "server/base/check.h"
#include "server/base/vector.h"
#include "server/nn/counter_vector.h"
#include "server/nn/packet.h"

namespace gradwatch::nn {
namespace {

constexpr int64_t kLanesMax = 16;

// A magnitude of at most 1 plus this has, in its lowest bits, the magnitude in multiples of
// 2^-GateSums::kFractionBits.
template <typename S, int fraction_bits>
constexpr S kShift = S(uint64_t{1} << (std::numeric_limits<S>::digits - 1 - fraction_bits));

template <typename S>
using Bits = std::conditional_t<std::is_same_v<S, float>, uint32_t, uint64_t>;
template <typename S>
using BitVector __attribute__((vector_size(kVectorBytes))) = Bits<S>;

// As many sums of magnitudes as there are S in a vector. Without a sign: NaN may overflow them.
template <typename S>
using SumVector __attribute__((vector_size(kVectorSize<S> * sizeof(uint32_t)))) = uint32_t;

// How many magnitudes were closed and open, in lanes as wide as S.
template <typename S>
struct Ends {
  BitVector<S> closed = {};
  BitVector<S> open = {};
};

// Adds some columns of vectors, each over all positions: load(p, column) gives one of them. Adds
// each unit's magnitudes to `sums`.
template <typename S, int fraction_bits, int columns, typename Load>
inline void AddColumns(int64_t positions, Load load, Ends<S>* ends, uint32_t* sums) {
  constexpr S kClosed = static_cast<S>(kGateClosed);
  constexpr S kOpen = static_cast<S>(kGateOpen);
  constexpr S kTo = kShift<S, fraction_bits>;
  Ends<S> found = *ends;
  BitVector<S> bits[columns] = {};
#pragma GCC unroll 4
  for (int64_t p = 0; p < positions; ++p) {
#pragma GCC unroll 4
    for (int column = 0; column < columns; ++column) {
      const Vector<S> magnitudes = packet::pabs(Packet<S>(load(p, column)));
      // A comparison that holds is -1.
      found.closed -= std::bit_cast<BitVector<S>>(magnitudes < kClosed);
      found.open -= std::bit_cast<BitVector<S>>(magnitudes > kOpen);
      bits[column] += std::bit_cast<BitVector<S>>(magnitudes + kTo);
    }
  }
  *ends = found;
  const Bits<S> of_shift = static_cast<Bits<S>>(positions) * std::bit_cast<Bits<S>>(kTo);
  for (int column = 0; column < columns; ++column) {
    uint32_t* const to = sums + column * kVectorSize<S>;
    SumVector<S> sum;
    std::memcpy(&sum, to, sizeof(sum));
    sum += __builtin_convertvector(bits[column] - of_shift, SumVector<S>);
    std::memcpy(to, &sum, sizeof(sum));
  }
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
  std::fill_n(narrow_.data(), narrow_.size(), 0U);
  for (int member = 0; member < members_; ++member) {
    Counts* const counts = &counts_[member];
    if (counts->has_wide) std::fill_n(wide_.data() + member * member_size_, member_size_, 0);
    *counts = Counts();
  }
}

template <typename S>
void GateSums::AddGate(Counts* counts, int gate, uint32_t* sums, const S* values, int64_t stride,
                       int64_t positions) const {
  constexpr int64_t kLanes = kVectorSize<S>;
  constexpr int kColumns = static_cast<int>(64 / kVectorBytes);  // A cache line is read at once.
  const auto load = [&values, stride](int64_t p, int column) {
    return LoadVector(values + p * stride + column * kLanes);
  };
  Ends<S> ends;
  int64_t i = 0;
  for (; i + kColumns * kLanes <= units_; i += kColumns * kLanes) {
    AddColumns<S, kFractionBits, kColumns>(positions, load, &ends, sums + i);
    values += kColumns * kLanes;
  }
  for (; i + kLanes <= units_; i += kLanes, values += kLanes) {
    AddColumns<S, kFractionBits, 1>(positions, load, &ends, sums + i);
  }
  if (i < units_) {
    const auto load_rest = [values, stride, count = units_ - i](int64_t p, int) {
      S rest[kLanes];
      std::fill_n(rest, kLanes, S(0.5));  // Neither closed nor open.
      std::copy_n(values + p * stride, count, rest);
      return LoadVector(rest);
    };
    AddColumns<S, kFractionBits, 1>(positions, load_rest, &ends, sums + i);
  }
  const auto at = static_cast<size_t>(gate);
  using Counters = typename CountersOf<S>::Type;
  AddLanes(__builtin_convertvector(ends.closed, Counters), &counts->closed[at]);
  AddLanes(__builtin_convertvector(ends.open, Counters), &counts->open[at]);
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
    const uint32_t* const narrow = narrow_.data() + at;
    for (int64_t i = 0; i < units_; ++i) sums[i] += static_cast<int32_t>(narrow[i]);
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
