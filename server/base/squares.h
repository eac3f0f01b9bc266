#ifndef GRADWATCH_SERVER_BASE_SQUARES_H_
#define GRADWATCH_SERVER_BASE_SQUARES_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "server/base/vector.h"

namespace gradwatch {

// Values whose squares are summed together before they are added to what was there: who sums whole
// blocks, each on its own, and adds them in order gets the same bits as who sums all at once.
constexpr int64_t kSquaresBlock = 64;

namespace internal {

constexpr int64_t kSquaresLanes = 16;  // Interleaved sums of a block.

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

// The sum of the squares of what value(i), a vector of Ts from index i on, gives for i below
// `size`, a multiple of kSquaresLanes.
template <typename T, typename Value>
inline T SquaresOfBlock(int64_t size, Value value) {
  constexpr int kStep = static_cast<int>(kVectorSize<T>);
  constexpr int kVectors = static_cast<int>(kSquaresLanes) / kStep;
  Vector<T> sums[kVectors] = {};
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

// A sum of floats that came nowhere near the ends of their range.
inline bool Moderate(float sum) { return sum > 1e-29F && sum < 1e30F; }

// Adds up block(begin, size) for the blocks of [0, n) that are multiples of kSquaresLanes long, and
// returns where they end.
template <typename Block>
inline int64_t AddBlocks(int64_t n, double* sum, Block block) {
  const int64_t end = n / kSquaresLanes * kSquaresLanes;
  for (int64_t i = 0; i < end; i += kSquaresBlock) {
    *sum += block(i, std::min(kSquaresBlock, end - i));
  }
  return end;
}

// [from, from + count), and zeros.
template <typename S>
struct LastLanes {
  LastLanes(const S* from, int64_t count) { std::copy_n(from, count, values); }
  S values[kSquaresLanes] = {};
};

}  // namespace internal

// The sum of squares, each and their sum in double, in an order that depends on n alone. The first
// value is the first of a block.
template <typename S>
inline double SumOfSquares(const S* values, int64_t n) {
  double sum = 0.0;
  const int64_t rest = internal::AddBlocks(n, &sum, [values](int64_t begin, int64_t size) {
    return internal::BlockOfSquares<double>(values + begin, size);
  });
  if (rest == n) return sum;
  const internal::LastLanes<S> last(values + rest, n - rest);
  return sum + internal::BlockOfSquares<double>(last.values, internal::kSquaresLanes);
}

// The sum of the squares of scale * (a - b), as SumOfSquares.
template <typename S>
inline double SumOfSquaredDifferences(const S* a, const S* b, int64_t n, double scale) {
  const auto block = [scale](const S* from_a, const S* from_b, int64_t size) {
    return internal::SquaresOfBlock<double>(
        size, [=](int64_t k) { return scale * (LoadWide(from_a + k) - LoadWide(from_b + k)); });
  };
  double sum = 0.0;
  const int64_t rest = internal::AddBlocks(
      n, &sum, [&](int64_t begin, int64_t size) { return block(a + begin, b + begin, size); });
  if (rest == n) return sum;
  const internal::LastLanes<S> last_a(a + rest, n - rest);
  const internal::LastLanes<S> last_b(b + rest, n - rest);
  return sum + block(last_a.values, last_b.values, internal::kSquaresLanes);
}

// As SumOfSquares at half the cost for floats, and then within 4e-7 of it: blocks are summed as
// floats where nothing comes near the ends of their range. For what is only shown.
template <typename S>
inline double QuickSumOfSquares(const S* values, int64_t n) {
  if constexpr (std::is_same_v<S, double>) {
    return SumOfSquares(values, n);
  } else {
    const auto block = [](const float* from, int64_t size) {
      const float sum = internal::BlockOfSquares<float>(from, size);
      if (internal::Moderate(sum)) return static_cast<double>(sum);
      return internal::BlockOfSquares<double>(from, size);
    };
    double sum = 0.0;
    const int64_t rest = internal::AddBlocks(
        n, &sum, [&](int64_t begin, int64_t size) { return block(values + begin, size); });
    if (rest == n) return sum;
    const internal::LastLanes<float> last(values + rest, n - rest);
    return sum + block(last.values, internal::kSquaresLanes);
  }
}

// Sum of a[i] * b[i], products and sum in double, in an order that only depends on n.
template <typename A, typename B>
inline double DotProduct(const A* a, const B* b, int64_t n) {
  constexpr int kStep = static_cast<int>(kVectorSize<double>);
  constexpr int64_t kLanes = internal::kSquaresLanes;
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
