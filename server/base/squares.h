#ifndef GRADWATCH_SERVER_BASE_SQUARES_H_
#define GRADWATCH_SERVER_BASE_SQUARES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "server/base/vector.h"

namespace gradwatch {

// Values whose squares are summed together before they are added to what was there: who sums whole
// blocks, each on its own, and adds them in order gets the same bits as who sums all at once.
constexpr int64_t kSquaresBlock = 64;

constexpr int64_t kSquaresLanes = 16;  // Interleaved sums of a block.

namespace internal {

template <int by, typename V, int... index>
inline V Rotated(const V& vector, std::integer_sequence<int, index...>) {
  return __builtin_shufflevector(vector, vector,
                                 ((index + by) % static_cast<int>(sizeof...(index)))...);
}

// The sum of a vector's lanes, by halves.
template <typename T, int half = static_cast<int>(kVectorSize<T>) / 2>
inline T SumOfLanes(const Vector<T>& vector) {
  if constexpr (half == 0) {
    return vector[0];
  } else {
    using Indices = std::make_integer_sequence<int, static_cast<int>(kVectorSize<T>)>;
    return SumOfLanes<T, half / 2>(vector + Rotated<half>(vector, Indices()));
  }
}

// Joined takes its vectors pair by pair, then the pairs' results, and so on. The lane in which the
// one that it takes as number `slot` ends up.
template <typename T>
constexpr int LaneOfSlot(int slot) {
  constexpr int kSize = static_cast<int>(kVectorSize<T>);
  int lane = 0;
  for (int bit = 1; bit < kSize; bit *= 2) lane = 2 * lane + ((slot & bit) != 0 ? 1 : 0);
  const bool swapped = sizeof(T) == 4 && kSize >= 4;  // See HalfLane.
  return swapped ? (lane & ~3) | ((lane & 1) << 1) | ((lane & 2) >> 1) : lane;
}

// Two vectors have groups of 2 * `half` lanes each. Where lane `lane` of all the lower halves, or
// upper ones, comes from, in an order for which there are instructions.
template <typename T>
constexpr int HalfLane(int lane, int half, bool upper) {
  constexpr int kSize = static_cast<int>(kVectorSize<T>);
  const bool pairs = sizeof(T) == 4 && half == 1 && kSize >= 4;
  const int group = pairs ? lane / 4 * 2 + lane % 2 : lane / half / 2;
  const bool second = pairs ? lane % 4 >= 2 : lane / half % 2 != 0;
  const int within = pairs ? 0 : lane % half;
  return group * 2 * half + within + (upper ? half : 0) + (second ? kSize : 0);
}

template <typename T, int half, typename Op, int... lane>
inline Vector<T> JoinHalves(const Vector<T>& x, const Vector<T>& y, Op op,
                            std::integer_sequence<int, lane...>) {
  return op(__builtin_shufflevector(x, y, HalfLane<T>(lane, half, false)...),
            __builtin_shufflevector(x, y, HalfLane<T>(lane, half, true)...));
}

template <typename T, int count, int slot, typename Op>
inline Vector<T> Joined(const Vector<T>* rows, Op op) {
  if constexpr (count == 1) {
    return rows[LaneOfSlot<T>(slot)];
  } else {
    constexpr int kSize = static_cast<int>(kVectorSize<T>);
    return JoinHalves<T, kSize / count>(Joined<T, count / 2, slot>(rows, op),
                                        Joined<T, count / 2, slot + count / 2>(rows, op), op,
                                        std::make_integer_sequence<int, kSize>());
  }
}

// The sum of the squares of what value(i), a vector of Ts from index i on, gives for i below
// `size`, a multiple of kSquaresLanes and at most kSquaresBlock.
template <typename T, typename Value>
inline T SquaresOfBlock(int64_t size, Value value) {
  constexpr int kStep = static_cast<int>(kVectorSize<T>);
  constexpr int kVectors = static_cast<int>(kSquaresLanes) / kStep;
  Vector<T> sums[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) sums[v] = Vector<T>{};  // In registers, one by one.
  for (int64_t k = 0; k < size; k += kSquaresLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> one = value(k + v * kStep);
      sums[v] += one * one;
    }
  }
#pragma GCC unroll 3
  for (int half = kVectors / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
    for (int v = 0; v < half; ++v) sums[v] += sums[v + half];
  }
  return SumOfLanes<T>(sums[0]);
}

// In T, which is S or double.
template <typename T, typename S>
inline T BlockOfSquares(const S* values, int64_t size) {
  return SquaresOfBlock<T>(size, [values](int64_t k) {
    if constexpr (std::is_same_v<T, S>) {
      return LoadVector(values + k);
    } else {
      return LoadWide(values + k);
    }
  });
}

// A sum of floats that came nowhere near the ends of their range lies between these.
constexpr float kModerateMin = 1e-29F;
constexpr float kModerateMax = 1e30F;

}  // namespace internal

// Whether a sum of squares came nowhere near the ends of a float's range; every lane.
inline bool Moderate(float sum) {
  return sum > internal::kModerateMin && sum < internal::kModerateMax;
}
inline bool Moderate(const Vector<float>& sums) {
#if defined(__AVX512F__)
  const __mmask16 above =
      _mm512_cmp_ps_mask(sums, _mm512_set1_ps(internal::kModerateMin), _CMP_GT_OQ);
  return _mm512_mask_cmp_ps_mask(above, sums, _mm512_set1_ps(internal::kModerateMax),
                                 _CMP_LT_OQ) == 0xffff;
#else
  // All bits of a lane, or none.
  const auto moderate = (sums > internal::kModerateMin) & (sums < internal::kModerateMax);
#if defined(__AVX__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(moderate)) == 0xff;
#else
  uint64_t parts[kVectorBytes / 8];
  std::memcpy(parts, &moderate, sizeof(parts));
  uint64_t all = ~uint64_t{0};
  for (const uint64_t part : parts) all &= part;
  return all == ~uint64_t{0};
#endif
#endif
}

namespace internal {

// Rare: not to be in the way of the others.
__attribute__((noinline, cold)) inline double ImmoderateBlock(const float* values, int64_t size) {
  return BlockOfSquares<double>(values, size);
}

// Calls body(begin, size) for the blocks of [0, n) that are multiples of kSquaresLanes long, in
// order, and returns where they end.
template <typename Body>
inline int64_t ForBlocks(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kSquaresBlock <= n; i += kSquaresBlock) body(i, kSquaresBlock);
  const auto size =
      static_cast<int64_t>(static_cast<uint64_t>(n - i) / kSquaresLanes) * kSquaresLanes;
  if (size > 0) body(i, size);
  return i + size;
}

// [from, from + count), and zeros.
template <typename S>
struct LastLanes {
  LastLanes(const S* from, int64_t count) { std::copy_n(from, count, values); }
  S values[kSquaresLanes] = {};
};

// Of fewer than kSquaresLanes values.
template <typename S>
__attribute__((noinline)) double SquaresOfLast(const S* from, int64_t count) {
  return BlockOfSquares<double>(LastLanes<S>(from, count).values, kSquaresLanes);
}

// The sums of rows of which some are not moderate. Rare: not to be in the way of the others.
__attribute__((noinline, cold)) inline void AddImmoderate(const Vector<float>& sums,
                                                          const float* blocks, int64_t stride,
                                                          int64_t rows, int64_t size,
                                                          double* totals) {
  float of_rows[kVectorSize<float>];
  StoreVector<float>(sums, of_rows);
  for (int64_t row = 0; row < rows; ++row) {
    totals[row] += Moderate(of_rows[row]) ? static_cast<double>(of_rows[row])
                                          : BlockOfSquares<double>(blocks + row * stride, size);
  }
}

// totals[lane] += lane of `values`, in double.
template <typename S>
inline void AddWide(const Vector<S>& values, double* totals) {
  S lanes[kVectorSize<S>];
  StoreVector<S>(values, lanes);
  for (int64_t i = 0; i < kVectorSize<S>; i += kVectorSize<double>) {
    StoreVector<double>(LoadVector(totals + i) + LoadWide(lanes + i), totals + i);
  }
}

}  // namespace internal

// As many vectors as each has lanes: lane k of the result is what `op`, on vectors of lanes, makes
// of the lanes of rows[k], by halves.
template <typename T, typename Op>
inline Vector<T> AcrossLanes(const Vector<T>* rows, Op op) {
  return internal::Joined<T, static_cast<int>(kVectorSize<T>), 0>(rows, op);
}

// The sum of squares, each and their sum in double, in an order that depends on n alone. The first
// value is the first of a block.
template <typename S>
inline double SumOfSquares(const S* values, int64_t n) {
  double sum = 0.0;
  const int64_t rest = internal::ForBlocks(n, [&](int64_t begin, int64_t size) {
    sum += internal::BlockOfSquares<double>(values + begin, size);
  });
  return rest == n ? sum : sum + internal::SquaresOfLast(values + rest, n - rest);
}

// The sum of the squares of scale * (a - b), as SumOfSquares.
template <typename S>
inline double SumOfSquaredDifferences(const S* a, const S* b, int64_t n, double scale) {
  const auto block = [scale](const S* from_a, const S* from_b, int64_t size) {
    return internal::SquaresOfBlock<double>(
        size, [=](int64_t k) { return scale * (LoadWide(from_a + k) - LoadWide(from_b + k)); });
  };
  double sum = 0.0;
  const int64_t rest = internal::ForBlocks(
      n, [&](int64_t begin, int64_t size) { sum += block(a + begin, b + begin, size); });
  if (rest == n) return sum;
  const internal::LastLanes<S> last_a(a + rest, n - rest);
  const internal::LastLanes<S> last_b(b + rest, n - rest);
  return sum + block(last_a.values, last_b.values, kSquaresLanes);
}

namespace internal {

__attribute__((noinline)) inline double QuickSumOfMany(const float* values, int64_t n) {
  const auto block = [](const float* from, int64_t size) {
    const float sum = BlockOfSquares<float>(from, size);
    return Moderate(sum) ? static_cast<double>(sum) : ImmoderateBlock(from, size);
  };
  double sum = 0.0;
  const int64_t rest =
      ForBlocks(n, [&](int64_t begin, int64_t size) { sum += block(values + begin, size); });
  return rest == n ? sum : sum + SquaresOfLast(values + rest, n - rest);
}

}  // namespace internal

// As SumOfSquares at half the cost for many floats, and then within 4e-7 of it: blocks are summed
// as floats where nothing comes near the ends of their range. For what is only shown.
template <typename S>
inline double QuickSumOfSquares(const S* values, int64_t n) {
  constexpr int64_t kFew = 2 * kSquaresLanes;  // To look at the sum would cost more than it saves.
  if constexpr (std::is_same_v<S, float>) {
    if (n > kFew) return internal::QuickSumOfMany(values, n);
    if (n % kSquaresLanes == 0) return internal::BlockOfSquares<double>(values, n);
  }
  return SumOfSquares(values, n);
}

// Sums the squares of `count` rows of `size` values lane by lane, each row `stride` values after
// the one before; `size` is whole vectors. Calls observe(row, vector) for each vector, with the
// row's number as a type, so that what is kept for each row stays in registers.
template <typename S, int count, typename Observe>
inline void LanesOfRows(const S* from, int64_t stride, int64_t size, Vector<S>* lanes,
                        Observe observe) {
  const auto sum = [&]<int... row>(std::integer_sequence<int, row...>) {
    Vector<S> sums[count] = {};
    const auto add = [&](auto of, const Vector<S>& vector) {
      sums[of.value] += vector * vector;
      observe(of, vector);
    };
    for (int64_t k = 0; k < size; k += kVectorSize<S>) {
      (add(std::integral_constant<int, row>(), LoadVector(from + row * stride + k)), ...);
    }
    ((lanes[row] = sums[row]), ...);
  };
  sum(std::make_integer_sequence<int, count>());
}

// The sums of squares of `rows` rows of n values, at most as many rows as a vector has lanes, each
// `stride` values after the one before: cheaper than one by one where they are short. Within 1e-6
// of SumOfSquares; a row's sum does not depend on the others. For what is only shown.
// lanes_of(count, row, from, stride, size, lanes) does LanesOfRows for a block of as many rows as
// the type of `count` says, from `row` on; what fills up a last block is zero. `rows` is an int or
// a std::integral_constant, see ForRowGroups.
template <typename S, typename Rows, typename LanesOf>
inline void QuickSumsOfSquares(const S* values, int64_t stride, Rows rows, int64_t n, double* sums,
                               LanesOf lanes_of) {
  constexpr int kRowsMax = static_cast<int>(kVectorSize<S>);
  constexpr int kTogether = std::min(kRowsMax, 4);
  Vector<S> lanes[kRowsMax];
  std::fill_n(lanes + rows, kRowsMax - rows, Vector<S>{} + S(1));  // Moderate.
  double totals[kRowsMax] = {};
  const auto add = [&](const S* blocks, int64_t block_stride, int64_t size) {
    const auto add_rows = [&](auto count, int row) {
      lanes_of(count, row, blocks + row * block_stride, block_stride, size, lanes + row);
    };
    int row = 0;
    for (; row + kTogether <= rows; row += kTogether) {
      add_rows(std::integral_constant<int, kTogether>(), row);
    }
    for (; row < rows; ++row) add_rows(std::integral_constant<int, 1>(), row);
    const auto across = AcrossLanes<S>(lanes, [](const auto& x, const auto& y) { return x + y; });
    if constexpr (std::is_same_v<S, float>) {
      if (!Moderate(across)) {
        return internal::AddImmoderate(across, blocks, block_stride, rows, size, totals);
      }
    }
    internal::AddWide<S>(across, totals);
  };
  const int64_t rest = internal::ForBlocks(
      n, [&](int64_t begin, int64_t size) { add(values + begin, stride, size); });
  if (rest < n) {
    S last[kRowsMax * kSquaresLanes] = {};
    for (int row = 0; row < rows; ++row) {
      std::copy_n(values + row * stride + rest, n - rest, last + row * kSquaresLanes);
    }
    add(last, kSquaresLanes, kSquaresLanes);
  }
  if (rows == kRowsMax) {
    std::memcpy(sums, totals, sizeof(totals));
  } else {
    std::copy_n(totals, rows, sums);
  }
}

// Calls body(begin, count) for `rows` rows in groups that fit QuickSumsOfSquares, each from row
// `begin` on. The count of whole groups is a std::integral_constant, which QuickSumsOfSquares is
// quicker with; that of a rest is an int.
template <typename S, typename Body>
inline void ForRowGroups(int64_t rows, Body body) {
  constexpr auto kWhole = static_cast<int>(kVectorSize<S>);
  int64_t begin = 0;
  for (; begin + kWhole <= rows; begin += kWhole) {
    body(begin, std::integral_constant<int, kWhole>());
  }
  if (begin < rows) body(begin, static_cast<int>(rows - begin));
}

// Sum of a[i] * b[i], products and sum in double, in an order that only depends on n.
template <typename A, typename B>
inline double DotProduct(const A* a, const B* b, int64_t n) {
  constexpr int kStep = static_cast<int>(kVectorSize<double>);
  constexpr int64_t kLanes = kSquaresLanes;
  constexpr int kVectors = static_cast<int>(kLanes) / kStep;
  Vector<double> sums[kVectors] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[v] += LoadWide(a + i + v * kStep) * LoadWide(b + i + v * kStep);
    }
  }
  double lanes[kLanes];
  for (int v = 0; v < kVectors; ++v) StoreVector<double>(sums[v], lanes + v * kStep);
  for (int64_t lane = 0; i < n; ++i, ++lane) {
    lanes[lane] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// sum[i] += factor * values[i], in double.
template <typename S>
inline void AddMultiple(double factor, const S* values, int64_t n, double* sum) {
  constexpr int64_t kStep = kVectorSize<double>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    StoreVector<double>(LoadVector(sum + i) + factor * LoadWide(values + i), sum + i);
  }
  for (; i < n; ++i) sum[i] += factor * static_cast<double>(values[i]);
}

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_SQUARES_H_
