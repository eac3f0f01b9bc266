#ifndef GRADWATCH_SERVER_NN_SPECTRUM_H_
#define GRADWATCH_SERVER_NN_SPECTRUM_H_

#include <cstdint>

#include "absl/types/span.h"

// Two numbers about a square matrix [n, n], row-major without gaps. All arithmetic is in double;
// nothing is allocated. NaN when the matrix is not finite. Any thread, each with a workspace of its
// own of SpectrumWorkspace(n) doubles.
namespace gradwatch::nn {

// Vectors in the Krylov subspace of SpectralRadius.
constexpr int kKrylovVectors = 24;

// Doubles of work memory that the functions below need.
inline int64_t SpectrumWorkspace(int64_t n) { return (kKrylovVectors + 1) * n; }

// Largest singular value by power iteration on W^T W, from below. `vector` [n] is where it starts
// and where it stopped: all zero to begin with, and kept between calls for a matrix that changes
// little, so that few iterations bring it up to date.
template <typename S>
double LargestSingularValue(const S* matrix, int64_t n, int iterations, absl::Span<double> vector,
                            absl::Span<double> workspace);

// Magnitude of the largest eigenvalue, from the eigenvalues of the matrix restricted to a Krylov
// subspace (Arnoldi's method, always from the same start). Exact up to rounding for n <=
// kKrylovVectors; above, eigenvalues on the rim of the spectrum converge first.
template <typename S>
double SpectralRadius(const S* matrix, int64_t n, absl::Span<double> workspace);

extern template double LargestSingularValue(const float*, int64_t, int, absl::Span<double>,
                                            absl::Span<double>);
extern template double LargestSingularValue(const double*, int64_t, int, absl::Span<double>,
                                            absl::Span<double>);
extern template double SpectralRadius(const float*, int64_t, absl::Span<double>);
extern template double SpectralRadius(const double*, int64_t, absl::Span<double>);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_SPECTRUM_H_
