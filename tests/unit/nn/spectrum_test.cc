#include "server/nn/spectrum.h"

#include <cmath>
#include <limits>
#include <vector>

#include "Eigen/Eigenvalues"
#include "Eigen/QR"
#include "Eigen/SVD"
#include "gtest/gtest.h"
#include "server/base/philox.h"

namespace gradwatch::nn {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix Gaussian(int n, uint64_t seed) {
  RandomStream random(seed, StreamOf("spectrum test"), 0);
  Matrix matrix(n, n);
  for (int i = 0; i < n * n; ++i) {
    matrix.data()[i] = random.NextNormal() / std::sqrt(static_cast<double>(n));
  }
  return matrix;
}

Matrix Orthogonal(int n, uint64_t seed) {
  return Matrix(Eigen::HouseholderQR<Matrix>(Gaussian(n, seed)).householderQ());
}

double SlowSigma(const Matrix& matrix) {
  return Eigen::JacobiSVD<Eigen::MatrixXd>(matrix).singularValues().maxCoeff();
}

double SlowRadius(const Matrix& matrix) {
  return Eigen::EigenSolver<Eigen::MatrixXd>(matrix).eigenvalues().cwiseAbs().maxCoeff();
}

class Measurer {
 public:
  explicit Measurer(int n)
      : vector_(static_cast<size_t>(n)), work_(static_cast<size_t>(SpectrumWorkspace(n))) {}

  template <typename S>
  double Sigma(const S* matrix, int iterations) {
    return LargestSingularValue(matrix, static_cast<int64_t>(vector_.size()), iterations,
                                absl::MakeSpan(vector_), absl::MakeSpan(work_));
  }
  template <typename S>
  double Radius(const S* matrix) {
    return SpectralRadius(matrix, static_cast<int64_t>(vector_.size()), absl::MakeSpan(work_));
  }

 private:
  std::vector<double> vector_;
  std::vector<double> work_;
};

constexpr int kSizes[] = {1, 2, 3, 7, 16, 24, 25, 50, 97, 128};

TEST(LargestSingularValueTest, IsThatOfTheSlowDecomposition) {
  for (const int n : kSizes) {
    const Matrix matrix = Gaussian(n, 1);
    const double expected = SlowSigma(matrix);

    const double sigma = Measurer(n).Sigma(matrix.data(), 200);

    // From below; a gap of d between the two largest leaves an error of exp(-400 d) at most.
    EXPECT_LE(sigma, expected * (1 + 1e-12)) << n;
    EXPECT_NEAR(sigma, expected, 2e-3 * expected) << n;
  }
}

TEST(LargestSingularValueTest, FollowsAMatrixThatMovesInFewIterations) {
  constexpr int kSize = 64;
  Matrix matrix = Gaussian(kSize, 1);
  const Matrix drift = Gaussian(kSize, 2) * 0.01;
  Measurer measurer(kSize);
  measurer.Sigma(matrix.data(), 32);

  for (int i = 0; i < 20; ++i) {
    matrix += drift;
    EXPECT_NEAR(measurer.Sigma(matrix.data(), 4), SlowSigma(matrix), 0.01 * SlowSigma(matrix)) << i;
  }
}

TEST(LargestSingularValueTest, LeavesASubspaceThatIsNoLongerTheLargest) {
  Matrix matrix = Matrix::Identity(4, 4);
  matrix(0, 0) = 2.0;
  Measurer measurer(4);
  EXPECT_NEAR(measurer.Sigma(matrix.data(), 100), 2.0, 1e-6);
  matrix(3, 3) = 5.0;

  EXPECT_NEAR(measurer.Sigma(matrix.data(), 30), 5.0, 1e-6);
}

TEST(LargestSingularValueTest, ReadsFloats) {
  const Matrix matrix = Gaussian(33, 3);
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> narrow =
      matrix.cast<float>();

  EXPECT_NEAR(Measurer(33).Sigma(narrow.data(), 100), Measurer(33).Sigma(matrix.data(), 100), 1e-5);
}

TEST(SpectralRadiusTest, IsExactForSmallMatrices) {
  for (const int n : {1, 2, 3, 7, 16, 24}) {
    const Matrix matrix = Gaussian(n, 4);
    const double expected = SlowRadius(matrix);

    // Arnoldi keeps the eigenvalues up to rounding, which bad conditioning may enlarge.
    EXPECT_NEAR(Measurer(n).Radius(matrix.data()), expected, 1e-6 * expected) << n;
  }
}

TEST(SpectralRadiusTest, IsWithinSomePercentForLargeOnes) {
  for (const int n : {25, 50, 97, 128, 200}) {
    for (const uint64_t seed : {5, 6, 7}) {
      const Matrix matrix = Gaussian(n, seed);
      const double expected = SlowRadius(matrix);

      EXPECT_NEAR(Measurer(n).Radius(matrix.data()), expected, 0.07 * expected) << n << " " << seed;
    }
  }
}

TEST(SpectralRadiusTest, IsTheGainOfAnOrthogonalMatrix) {
  for (const int n : {5, 48, 130}) {
    const Matrix matrix = Orthogonal(n, 8) * 1.25;

    // A restriction of it is a contraction times the gain: from below, close on the rim.
    EXPECT_LE(Measurer(n).Radius(matrix.data()), 1.25 * (1 + 1e-9));
    EXPECT_NEAR(Measurer(n).Radius(matrix.data()), 1.25, 0.07 * 1.25);
    EXPECT_NEAR(Measurer(n).Sigma(matrix.data(), 3), 1.25, 1e-12);
  }
}

TEST(SpectralRadiusTest, StopsWhereTheSubspaceCloses) {
  const Matrix identity = Matrix::Identity(40, 40) * -0.5;
  const Matrix zero = Matrix::Zero(40, 40);

  EXPECT_NEAR(Measurer(40).Radius(identity.data()), 0.5, 1e-12);
  EXPECT_EQ(Measurer(40).Radius(zero.data()), 0.0);
  EXPECT_EQ(Measurer(40).Sigma(zero.data(), 4), 0.0);
}

TEST(SpectralRadiusTest, TellsTheRadiusFromTheNorm) {
  // Nilpotent: it stretches by 3, but nothing comes back.
  Matrix matrix = Matrix::Zero(6, 6);
  for (int i = 0; i + 1 < 6; ++i) matrix(i, i + 1) = 3.0;

  EXPECT_NEAR(Measurer(6).Sigma(matrix.data(), 50), 3.0, 1e-9);
  // The sixth root of rounding errors.
  EXPECT_LT(Measurer(6).Radius(matrix.data()), 0.05);
}

TEST(SpectrumTest, IsNanForAMatrixThatIsNotFiniteAndRecovers) {
  Matrix matrix = Gaussian(30, 9);
  const double expected = SlowSigma(matrix);
  Matrix broken = matrix;
  broken(3, 4) = std::numeric_limits<double>::quiet_NaN();
  Measurer measurer(30);

  EXPECT_TRUE(std::isnan(measurer.Sigma(broken.data(), 4)));
  EXPECT_TRUE(std::isnan(measurer.Radius(broken.data())));
  EXPECT_NEAR(measurer.Sigma(matrix.data(), 200), expected, 1e-3 * expected);
}

}  // namespace
}  // namespace gradwatch::nn
