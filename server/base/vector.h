#ifndef GRADWATCH_SERVER_BASE_VECTOR_H_
#define GRADWATCH_SERVER_BASE_VECTOR_H_

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

// Vectors of the width that the engine is compiled for, by the extension that GCC and Clang share.
// For the arithmetic rooms: loops whose order of operations is written down.

namespace gradwatch {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
#else
constexpr int64_t kVectorBytes = 16;
#endif

template <typename S>
struct VectorOf;
template <>
struct VectorOf<float> {
  using Type = float __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  using Type = double __attribute__((vector_size(kVectorBytes)));
};
template <typename S>
using Vector = typename VectorOf<S>::Type;

template <typename S>
constexpr int64_t kVectorSize = kVectorBytes / static_cast<int64_t>(sizeof(S));

template <typename S>
inline Vector<S> LoadVector(const S* from) {
  Vector<S> vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}
template <typename S>
inline void StoreVector(const Vector<S>& vector, S* to) {
  std::memcpy(to, &vector, sizeof(vector));
}

// As many values from `from` on as there are doubles in a vector.
inline Vector<double> LoadWide(const double* from) { return LoadVector(from); }
inline Vector<double> LoadWide(const float* from) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(_mm256_loadu_ps(from));
#elif defined(__AVX__)
  return _mm256_cvtps_pd(_mm_loadu_ps(from));  // GCC 12 would convert each half on its own.
#else
  float __attribute__((vector_size(kVectorBytes / 2))) narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  return __builtin_convertvector(narrow, Vector<double>);
#endif
}

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_VECTOR_H_
