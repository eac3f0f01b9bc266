#include "server/nn/spectrum.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "Eigen/Eigenvalues"
#include "server/base/philox.h"
#include "server/base/squares.h"

namespace gradwatch::nn {
namespace {

// product = W x.
template <typename S>
void MultiplyVector(const S* matrix, int64_t n, const double* x, double* product) {
  for (int64_t i = 0; i < n; ++i) product[i] = DotProduct(matrix + i * n, x, n);
}

// product = W^T x.
template <typename S>
void MultiplyTransposed(const S* matrix, int64_t n, const double* x, double* product) {
  std::fill_n(product, n, 0.0);
  for (int64_t i = 0; i < n; ++i) AddMultiple(x[i], matrix + i * n, n, product);
}

// Returns the norm that `vector` had; one of zero stays.
double Normalize(int64_t n, double* vector) {
  const double norm = std::sqrt(DotProduct(vector, vector, n));
  if (norm > 0.0 && std::isfinite(norm)) {
    for (int64_t i = 0; i < n; ++i) vector[i] /= norm;
  }
  return norm;
}

// Adds a vector of about this norm that is the same every time, and on which hardly any matrix is
// blind.
void AddStartVector(double norm, int64_t n, double* vector) {
  RandomStream random(0, StreamOf("start of an iteration"), 0);
  const double factor = norm / std::sqrt(static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) vector[i] += factor * random.NextNormal();
}

using SmallMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor,
                                  kKrylovVectors, kKrylovVectors>;

double LargestEigenvalue(const SmallMatrix& matrix) {
  if (!matrix.allFinite()) return std::numeric_limits<double>::quiet_NaN();
  const Eigen::EigenSolver<SmallMatrix> solver(matrix, /*computeEigenvectors=*/false);
  return solver.eigenvalues().cwiseAbs().maxCoeff();
}

}  // namespace

template <typename S>
double LargestSingularValue(const S* matrix, int64_t n, int iterations, absl::Span<double> vector,
                            absl::Span<double> workspace) {
  constexpr double kKick = 1e-3;  // Out of a subspace that it may be caught in.
  double* const x = vector.data();
  double* const image = workspace.data();
  AddStartVector(kKick, n, x);
  Normalize(n, x);
  for (int i = 0; i < iterations; ++i) {
    MultiplyVector(matrix, n, x, image);
    MultiplyTransposed(matrix, n, image, x);
    const double norm = Normalize(n, x);
    if (!std::isfinite(norm)) break;
    if (norm == 0.0) return 0.0;
  }
  MultiplyVector(matrix, n, x, image);
  const double sigma = std::sqrt(DotProduct(image, image, n));
  if (std::isfinite(sigma)) return sigma;
  std::fill_n(x, n, 0.0);
  return std::numeric_limits<double>::quiet_NaN();
}

template <typename S>
double SpectralRadius(const S* matrix, int64_t n, absl::Span<double> workspace) {
  // The matrix in an orthonormal basis of the subspace, whose vectors lie one after the other.
  const auto size = static_cast<int>(std::min<int64_t>(n, kKrylovVectors));
  SmallMatrix restricted = SmallMatrix::Zero(size, size);
  double* const basis = workspace.data();
  std::fill_n(basis, n, 0.0);
  AddStartVector(1.0, n, basis);
  Normalize(n, basis);
  double scale = 0.0;
  for (int column = 0; column < size; ++column) {
    double* const next = basis + (column + 1) * n;
    MultiplyVector(matrix, n, basis + column * n, next);
    scale = std::max(scale, std::sqrt(DotProduct(next, next, n)));
    // Twice: once leaves rounding errors of nearly parallel vectors behind.
    for (int pass = 0; pass < 2; ++pass) {
      for (int row = 0; row <= column; ++row) {
        const double part = DotProduct(basis + row * n, next, n);
        restricted(row, column) += part;
        AddMultiple(-part, basis + row * n, n, next);
      }
    }
    const double rest = Normalize(n, next);
    if (!(rest > 1e-12 * scale)) {  // The subspace is closed: its eigenvalues are the matrix's own.
      return LargestEigenvalue(restricted.topLeftCorner(column + 1, column + 1));
    }
    if (column + 1 < size) restricted(column + 1, column) = rest;
  }
  return LargestEigenvalue(restricted);
}

template double LargestSingularValue(const float*, int64_t, int, absl::Span<double>,
                                     absl::Span<double>);
template double LargestSingularValue(const double*, int64_t, int, absl::Span<double>,
                                     absl::Span<double>);
template double SpectralRadius(const float*, int64_t, absl::Span<double>);
template double SpectralRadius(const double*, int64_t, absl::Span<double>);

}  // namespace gradwatch::nn
