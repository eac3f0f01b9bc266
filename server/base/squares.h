#ifndef GRADWATCH_SERVER_BASE_SQUARES_H_
#define GRADWATCH_SERVER_BASE_SQUARES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "server/base/vector.h"

namespace gradwatch {

// Sums of squares in double: eight interleaved ones, of which Total makes one. The order in which
// they are formed is the same at every CPU level.
struct Squares {
  static constexpr int kLanes = 8;
  double lanes[kLanes] = {};

  void Add(const Squares& other) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += other.lanes[i];
  }
  double Total() const {
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
           ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  }
};

// Values whose squares are summed together before they are added to what was there: who sums whole
// blocks, each on its own, and adds them in order gets the same bits as who sums all at once.
constexpr int64_t kSquaresBlock = 64;

namespace internal {

// As many S as there are doubles in a vector.
template <typename S>
struct Narrow {
  using Type = Vector<double>;
};
template <>
struct Narrow<float> {
  using Type = float __attribute__((vector_size(kVectorBytes / 2)));
};

template <typename S>
inline Vector<double> LoadWide(const S* from) {
  typename Narrow<S>::Type narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  return __builtin_convertvector(narrow, Vector<double>);
}

constexpr int64_t kSquaresStep = 2 * Squares::kLanes;

// Adds the first `size` entries of a block, a multiple of kSquaresStep, of what value(i), a vector
// of doubles from index i on, gives. The rest counts as zeros, which change nothing.
template <typename Value>
inline void AddSquaresOfBlock(Squares* sum, int64_t size, Value value) {
  constexpr int kStep = static_cast<int>(kVectorSize<double>);
  constexpr int kVectors = Squares::kLanes / kStep;
  Vector<double> even[kVectors] = {};
  Vector<double> odd[kVectors] = {};
  for (int64_t k = 0; k < size; k += kSquaresStep) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vector<double> first = value(k + v * kStep);
      const Vector<double> second = value(k + Squares::kLanes + v * kStep);
      even[v] += first * first;
      odd[v] += second * second;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    double* const lanes = sum->lanes + v * kStep;
    StoreVector<double>(LoadVector(lanes) + (even[v] + odd[v]), lanes);
  }
}

}  // namespace internal

// Adds the squares of `values`; the first is the first of a block.
template <typename S>
inline void AddSquares(const S* values, int64_t n, Squares* sum) {
  using internal::kSquaresStep;
  using internal::LoadWide;
  const int64_t whole = n / kSquaresStep * kSquaresStep;
  for (int64_t i = 0; i < whole; i += kSquaresBlock) {
    internal::AddSquaresOfBlock(sum, std::min(kSquaresBlock, whole - i),
                                [&](int64_t k) { return LoadWide(values + i + k); });
  }
  if (whole == n) return;
  S rest[kSquaresStep] = {};
  std::copy(values + whole, values + n, rest);
  internal::AddSquaresOfBlock(sum, kSquaresStep, [&](int64_t k) { return LoadWide(rest + k); });
}

// Adds the squares of scale * (a - b), the difference taken in double.
template <typename S>
inline void AddSquaresOfDifference(const S* a, const S* b, int64_t n, double scale, Squares* sum) {
  using internal::kSquaresStep;
  using internal::LoadWide;
  const int64_t whole = n / kSquaresStep * kSquaresStep;
  for (int64_t i = 0; i < whole; i += kSquaresBlock) {
    internal::AddSquaresOfBlock(sum, std::min(kSquaresBlock, whole - i), [&](int64_t k) {
      return scale * (LoadWide(a + i + k) - LoadWide(b + i + k));
    });
  }
  if (whole == n) return;
  S rest_a[kSquaresStep] = {};
  S rest_b[kSquaresStep] = {};
  std::copy(a + whole, a + n, rest_a);
  std::copy(b + whole, b + n, rest_b);
  internal::AddSquaresOfBlock(sum, kSquaresStep, [&](int64_t k) {
    return scale * (LoadWide(rest_a + k) - LoadWide(rest_b + k));
  });
}

// Sum of a[i] * b[i], products and sum in double, in an order that only depends on n.
template <typename A, typename B>
inline double DotProduct(const A* a, const B* b, int64_t n) {
  using internal::LoadWide;
  constexpr int kStep = static_cast<int>(kVectorSize<double>);
  constexpr int64_t kLanes = internal::kSquaresStep;
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
    StoreVector<double>(LoadVector(sum + i) + factor * internal::LoadWide(values + i), sum + i);
  }
  for (; i < n; ++i) sum[i] += factor * static_cast<double>(values[i]);
}

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_SQUARES_H_
