#include "server/nn/gemm.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/philox.h"

namespace gradwatch::nn {
namespace {

template <typename S>
std::vector<S> Random(int64_t n, uint64_t seed) {
  RandomStream random(seed, StreamOf("gemm test"), 0);
  std::vector<S> values(static_cast<size_t>(n));
  for (S& value : values) value = static_cast<S>(random.NextNormal());
  return values;
}

struct Shape {
  int64_t rows;
  int64_t outputs;
  int64_t depth;
};

// Odd sizes, sizes around the kernel's 24 x 4 tile, and sizes beyond each block.
const Shape kShapes[] = {{1, 1, 1},    {1, 7, 3},    {2, 24, 8},   {5, 25, 9},      {7, 48, 33},
                         {3, 241, 17}, {4, 31, 289}, {513, 20, 5}, {520, 260, 300}, {2, 500, 700}};

// The sum of `depth` products of standard normals is off by about depth * epsilon at most; in a
// short one a single product of 20 may stand, rounded up to three times where nothing is fused.
template <typename S>
double Tolerance(int64_t depth) {
  return 4.0 * static_cast<double>(depth + 8) *
         static_cast<double>(std::numeric_limits<S>::epsilon());
}

template <typename S>
class Gemm : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Gemm, Scalars);

template <typename S>
void ExpectProduct(const Shape& shape, bool transposed) {
  constexpr int64_t kGap = 3;  // Leading dimensions beyond the width.
  const auto [rows, outputs, depth] = shape;
  const int64_t ldw = (transposed ? outputs : depth) + kGap;
  const int64_t ldx = depth + kGap;
  const int64_t ldc = outputs + kGap;
  const std::vector<S> w = Random<S>((transposed ? depth : outputs) * ldw, 1);
  const std::vector<S> x = Random<S>(rows * ldx, 2);
  const std::vector<S> start = Random<S>(rows * ldc, 3);
  std::vector<S> c = start;
  GemmWorkspace<S> workspace;
  PackedMatrix<S> packed(PackedMatrix<S>::Size(outputs, depth));

  if (transposed) {
    packed.PackTransposed(w.data(), ldw, outputs, depth);
  } else {
    packed.Pack(w.data(), ldw, outputs, depth);
  }
  packed.AddProduct(rows, x.data(), ldx, c.data(), ldc, workspace);

  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < ldc; ++o) {
      const auto index = static_cast<size_t>(r * ldc + o);
      double sum = start[index];
      for (int64_t k = 0; o < outputs && k < depth; ++k) {
        const S weight = w[static_cast<size_t>(transposed ? k * ldw + o : o * ldw + k)];
        sum += static_cast<double>(x[static_cast<size_t>(r * ldx + k)]) * weight;
      }
      ASSERT_NEAR(c[index], sum, o < outputs ? Tolerance<S>(depth) : 0.0)
          << rows << " x " << outputs << " x " << depth << " at " << r << ", " << o;
    }
  }
}

TYPED_TEST(Gemm, AddsTheProductWithPackedWeights) {
  for (const Shape& shape : kShapes) ExpectProduct<TypeParam>(shape, /*transposed=*/false);
}

TYPED_TEST(Gemm, AddsTheProductWithTransposedWeights) {
  for (const Shape& shape : kShapes) ExpectProduct<TypeParam>(shape, /*transposed=*/true);
}

TYPED_TEST(Gemm, AddsTheOuterProductOverRows) {
  using S = TypeParam;
  for (const auto& [depth, m, k] : kShapes) {
    const int64_t ldg = m + 2;
    const int64_t ldx = k + 1;
    const std::vector<S> g = Random<S>(depth * ldg, 1);
    const std::vector<S> x = Random<S>(depth * ldx, 2);
    const std::vector<S> start = Random<S>(m * k, 3);
    std::vector<S> c = start;
    GemmWorkspace<S> workspace;

    AddOuterProduct<S>(depth, m, k, g.data(), ldg, x.data(), ldx, c.data(), k, workspace);

    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        double sum = start[static_cast<size_t>(i * k + j)];
        for (int64_t r = 0; r < depth; ++r) {
          sum += static_cast<double>(g[static_cast<size_t>(r * ldg + i)]) *
                 x[static_cast<size_t>(r * ldx + j)];
        }
        ASSERT_NEAR(c[static_cast<size_t>(i * k + j)], sum, Tolerance<S>(depth));
      }
    }
  }
}

TYPED_TEST(Gemm, PacksAnotherShapeIntoTheSameMemory) {
  using S = TypeParam;
  GemmWorkspace<S> workspace;
  PackedMatrix<S> packed(PackedMatrix<S>::Size(9, 9));
  const std::vector<S> ones(81, S(1));
  packed.Pack(ones.data(), 9, 9, 9);
  packed.Pack(ones.data(), 2, 1, 2);
  S sum = 0;

  packed.AddProduct(1, ones.data(), 2, &sum, 1, workspace);

  EXPECT_EQ(sum, S(2));
}

}  // namespace
}  // namespace gradwatch::nn
