#include "server/nn/gemm.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "absl/types/span.h"
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

// 0, 1, odd sizes, sizes around vectors, panels and tiles of every CPU level, and sizes beyond each
// block.
const Shape kShapes[] = {
    {1, 1, 1},      {1, 7, 3},     {2, 24, 8},   {5, 25, 9},      {7, 48, 33},
    {3, 241, 17},   {4, 31, 289},  {513, 20, 5}, {520, 260, 300}, {2, 500, 700},
    {1, 128, 32},   {1, 65, 64},   {8, 32, 16},  {9, 33, 17},     {12, 64, 256},
    {13, 63, 257},  {6, 16, 1},    {0, 5, 5},    {3, 96, 513},    {15, 15, 15},
    {13, 600, 257}, {5, 300, 513}, {1, 112, 64}, {1, 43, 31},     {700, 190, 3}};

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

// Memory of a packed matrix.
template <typename S>
struct Packed {
  Packed(int64_t outputs, int64_t depth)
      : data(PackedMatrix<S>::Size(outputs, depth)), matrix(data.data(), outputs, depth) {}
  Buffer<S> data;
  PackedMatrix<S> matrix;
};

// A product and what it must be.
template <typename S>
struct Product {
  static constexpr int64_t kGap = 3;  // Leading dimensions beyond the width.

  explicit Product(const Shape& s)
      : shape(s),
        ldx(s.depth + kGap),
        ldc(s.outputs + kGap),
        w(Random<S>(s.outputs * s.depth, 1)),
        x(Random<S>(s.rows * ldx, 2)),
        start(Random<S>(s.outputs, 4)),
        before(Random<S>(s.rows * ldc, 3)),
        packed(s.outputs, s.depth) {
    packed.matrix.Pack(w.data(), s.depth, {0, s.outputs});
  }

  double Sum(int64_t r, int64_t o) const {
    double sum = 0.0;
    for (int64_t k = 0; k < shape.depth; ++k) {
      sum += static_cast<double>(x[static_cast<size_t>(r * ldx + k)]) *
             w[static_cast<size_t>(o * shape.depth + k)];
    }
    return sum;
  }

  std::vector<S> Multiply(Range outputs, Range rows, Into into, const S* begin,
                          absl::Span<const S> soon = {}) const {
    std::vector<S> c = before;
    packed.matrix.Multiply(outputs, rows.size(), x.data() + rows.begin * ldx, ldx, into,
                           begin == nullptr ? nullptr : begin + outputs.begin,
                           c.data() + rows.begin * ldc + outputs.begin, ldc, soon);
    return c;
  }

  Shape shape;
  int64_t ldx, ldc;
  std::vector<S> w, x, start, before;
  Packed<S> packed;
};

template <typename S>
void ExpectProduct(const Shape& shape, Into into, bool with_start) {
  const Product<S> product(shape);

  const std::vector<S> c = product.Multiply({0, shape.outputs}, {0, shape.rows}, into,
                                            with_start ? product.start.data() : nullptr);

  for (int64_t r = 0; r < shape.rows; ++r) {
    for (int64_t o = 0; o < product.ldc; ++o) {
      const auto index = static_cast<size_t>(r * product.ldc + o);
      double expected = product.before[index];
      if (o < shape.outputs) {
        if (into == Into::kOverwrite) {
          expected = with_start ? product.start[static_cast<size_t>(o)] : 0.0;
        }
        expected += product.Sum(r, o);
      }
      ASSERT_NEAR(c[index], expected, o < shape.outputs ? Tolerance<S>(shape.depth) : 0.0)
          << shape.rows << " x " << shape.outputs << " x " << shape.depth << " at " << r << ", "
          << o;
    }
  }
}

TYPED_TEST(Gemm, AddsTheProductWithPackedWeights) {
  for (const Shape& shape : kShapes) ExpectProduct<TypeParam>(shape, Into::kAdd, false);
}

TYPED_TEST(Gemm, OverwritesWithTheProduct) {
  for (const Shape& shape : kShapes) ExpectProduct<TypeParam>(shape, Into::kOverwrite, false);
}

TYPED_TEST(Gemm, StartsEveryRowFromAGivenOne) {
  for (const Shape& shape : kShapes) ExpectProduct<TypeParam>(shape, Into::kOverwrite, true);
}

TYPED_TEST(Gemm, PacksTheTransposeAsTheMatrixItself) {
  using S = TypeParam;
  for (const auto& [rows, outputs, depth] : kShapes) {
    const std::vector<S> w = Random<S>(outputs * depth, 1);
    std::vector<S> transposed(w.size());
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t k = 0; k < depth; ++k) {
        transposed[static_cast<size_t>(k * outputs + o)] = w[static_cast<size_t>(o * depth + k)];
      }
    }
    const Packed<S> one(outputs, depth);
    const Packed<S> other(outputs, depth);

    one.matrix.Pack(w.data(), depth, {0, outputs});
    other.matrix.PackTransposed(transposed.data(), outputs, {0, outputs});

    for (int64_t i = 0; i < one.data.size(); ++i) ASSERT_EQ(one.data[i], other.data[i]);
  }
}

// What makes results independent of the number of threads.
TYPED_TEST(Gemm, GivesTheSameBitsForAnyPartOfRowsAndOutputs) {
  using S = TypeParam;
  for (const Shape& shape : kShapes) {
    const Product<S> product(shape);
    const std::vector<S> whole =
        product.Multiply({0, shape.outputs}, {0, shape.rows}, Into::kAdd, nullptr);
    for (int64_t first = 0; first < shape.rows; first += std::max<int64_t>(1, shape.rows / 3)) {
      for (int64_t o = 0; o < shape.outputs; o += kPanel<S>) {
        const Range outputs = {o, std::min(shape.outputs, o + 2 * kPanel<S>)};
        const Range rows = {first, std::min(shape.rows, first + 5)};

        const std::vector<S> part = product.Multiply(outputs, rows, Into::kAdd, nullptr);

        for (int64_t r = rows.begin; r < rows.end; ++r) {
          for (int64_t j = outputs.begin; j < outputs.end; ++j) {
            const auto index = static_cast<size_t>(r * product.ldc + j);
            ASSERT_EQ(part[index], whole[index]) << r << ", " << j;
          }
        }
      }
    }
  }
}

TYPED_TEST(Gemm, GivesTheSameBitsWhateverMemoryItCallsFor) {
  using S = TypeParam;
  const std::vector<S> memory = Random<S>(70'000, 5);
  for (const Shape& shape : kShapes) {
    const Product<S> product(shape);
    const Range outputs = {0, shape.outputs};
    const Range rows = {0, shape.rows};
    const std::vector<S> expected = product.Multiply(outputs, rows, Into::kAdd, nullptr);
    for (const size_t size : {size_t{1}, size_t{15}, size_t{1000}, memory.size()}) {
      const absl::Span<const S> soon(memory.data(), size);

      EXPECT_EQ(product.Multiply(outputs, rows, Into::kAdd, nullptr, soon), expected)
          << shape.rows << " x " << shape.outputs << " x " << shape.depth << ", " << size;
    }
  }
}

TYPED_TEST(Gemm, PacksInPartsAsInOnePiece) {
  using S = TypeParam;
  constexpr int64_t kOutputs = 301;
  constexpr int64_t kDepth = 300;
  const std::vector<S> w = Random<S>(kOutputs * kDepth, 1);
  const Packed<S> one(kOutputs, kDepth);
  const Packed<S> parts(kOutputs, kDepth);

  one.matrix.Pack(w.data(), kDepth, {0, kOutputs});
  for (int part = 0; part < 3; ++part) {
    parts.matrix.Pack(w.data(), kDepth, PartOf(kOutputs, part, 3, kPanel<S>));
  }

  for (int64_t i = 0; i < one.data.size(); ++i) ASSERT_EQ(one.data[i], parts.data[i]);
}

TYPED_TEST(Gemm, AddsTheOuterProductAndTheColumnSumsOverRows) {
  using S = TypeParam;
  Buffer<S> workspace(OuterProductWorkspace<S>());
  for (const auto& [depth, m, k] : kShapes) {
    const int64_t ldg = m + 2;
    const int64_t ldx = k + 1;
    const std::vector<S> g = Random<S>(depth * ldg, 1);
    const std::vector<S> x = Random<S>(depth * ldx, 2);
    const std::vector<S> start = Random<S>(m * k, 3);
    std::vector<S> c = start;
    std::vector<S> sums(static_cast<size_t>(m), S(1));

    for (int part = 0; part < 2; ++part) {
      const OuterTerm<S> term = {k, x.data(), ldx, c.data(), k};
      OuterProducts<S>(PartOf(m, part, 2), depth, g.data(), ldg, {&term, 1}, Into::kAdd,
                       {.all = sums.data()}, workspace.data());
    }

    for (int64_t i = 0; i < m; ++i) {
      double column = 1.0;
      for (int64_t r = 0; r < depth; ++r) column += g[static_cast<size_t>(r * ldg + i)];
      ASSERT_NEAR(sums[static_cast<size_t>(i)], column, Tolerance<S>(depth + 1));
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

// More columns than are packed at a time, more rows than one block of the depth, rows in no order.
TYPED_TEST(Gemm, SumsTheRowsOfEachSlotBesideAnOuterProduct) {
  using S = TypeParam;
  constexpr int64_t kRows = internal::kDepthMax + 45;
  constexpr int64_t kOutputs = internal::kLeftTiles * internal::kOuterTileRows + 21;
  constexpr int64_t kLd = kOutputs + 3;
  constexpr int64_t kSlots = 5;
  constexpr int64_t kWidth = internal::kColumnsMax + 40;  // Twice through the packing memory.
  Buffer<S> workspace(OuterProductWorkspace<S>());
  const std::vector<S> g = Random<S>(kRows * kOutputs, 1);
  const std::vector<S> x = Random<S>(kRows * kWidth, 2);
  std::vector<int32_t> slots;
  for (int64_t r = 0; r < kRows; ++r) slots.push_back(static_cast<int32_t>(r * r % 7 % kSlots));
  std::vector<S> c(kOutputs * kWidth);
  std::vector<S> sums(kSlots * kLd, S(2));
  std::vector<S> expected = sums;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t i = 0; i < kOutputs; ++i) {
      expected[static_cast<size_t>(slots[static_cast<size_t>(r)] * kLd + i)] +=
          g[static_cast<size_t>(r * kOutputs + i)];
    }
  }

  for (int part = 0; part < 3; ++part) {
    const OuterTerm<S> term = {kWidth, x.data(), kWidth, c.data(), kWidth};
    OuterProducts<S>(
        PartOf(kOutputs, part, 3), kRows, g.data(), kOutputs, {&term, 1}, Into::kAdd,
        {.all = nullptr, .by_slot = sums.data(), .ld = kLd, .slot_of_row = slots.data()},
        workspace.data());
  }

  EXPECT_EQ(sums, expected);
}

TYPED_TEST(Gemm, OverwritesWithTheOuterProductAndTheColumnSums) {
  using S = TypeParam;
  constexpr int64_t kRows = 700;  // More than one block of the depth.
  constexpr int64_t kOutputs = 21;
  constexpr int64_t kWidth = 70;
  Buffer<S> workspace(OuterProductWorkspace<S>());
  const std::vector<S> g = Random<S>(kRows * kOutputs, 1);
  const std::vector<S> x = Random<S>(kRows * kWidth, 2);
  const auto product = [&](Into into, S before) {
    std::vector<S> c(kOutputs * kWidth + kOutputs, before);
    const OuterTerm<S> term = {kWidth, x.data(), kWidth, c.data(), kWidth};
    OuterProducts<S>({0, kOutputs}, kRows, g.data(), kOutputs, {&term, 1}, into,
                     {.all = c.data() + kOutputs * kWidth}, workspace.data());
    return c;
  };

  EXPECT_EQ(product(Into::kOverwrite, S(7)), product(Into::kAdd, S(0)));
}

// Widths that fill the packing memory, ride along in it or need it twice.
TYPED_TEST(Gemm, GivesTheSameBitsForSeveralTermsAsForEachAlone) {
  using S = TypeParam;
  constexpr int64_t kRows = 300;
  constexpr int64_t kOutputs = 21;
  Buffer<S> workspace(OuterProductWorkspace<S>());
  const std::vector<S> g = Random<S>(kRows * kOutputs, 1);
  constexpr int64_t kRoom = internal::kColumnsMax;
  for (const auto& [one, two] : {std::pair{kRoom, int64_t{2}},
                                 {kRoom, 64},
                                 {kRoom / 2 + 44, kRoom / 2 + 44},
                                 {5, 7},
                                 {1, kRoom},
                                 {kRoom - 32, kPanel<S>},
                                 {kRoom + 344, 1},
                                 {3, 4},
                                 {kRoom, kPanel<S> + 1}}) {
    const std::vector<S> x1 = Random<S>(kRows * one, 2);
    const std::vector<S> x2 = Random<S>(kRows * two, 3);
    std::vector<S> together(static_cast<size_t>(kOutputs * (one + two)));
    std::vector<S> alone = together;
    const auto terms = [&](std::vector<S>& c) {
      return std::array<OuterTerm<S>, 2>{{{one, x1.data(), one, c.data(), one},
                                          {two, x2.data(), two, c.data() + kOutputs * one, two}}};
    };

    OuterProducts<S>({0, kOutputs}, kRows, g.data(), kOutputs, terms(together), Into::kAdd, {},
                     workspace.data());
    for (const OuterTerm<S>& term : terms(alone)) {
      OuterProducts<S>({0, kOutputs}, kRows, g.data(), kOutputs, {&term, 1}, Into::kAdd, {},
                       workspace.data());
    }

    EXPECT_EQ(together, alone) << one << ", " << two;
  }
}

TYPED_TEST(Gemm, GivesNarrowTermsTheBitsThatTheyHaveInWideOnes) {
  using S = TypeParam;
  constexpr int64_t kRows = 2 * internal::kDepthMax + 45;
  constexpr int64_t kOutputs = internal::kLeftTiles * internal::kOuterTileRows + 21;
  constexpr int64_t kWidth = 20;
  Buffer<S> workspace(OuterProductWorkspace<S>());
  const std::vector<S> g = Random<S>(kRows * kOutputs, 1);
  const std::vector<S> x = Random<S>(kRows * kWidth, 2);
  for (const Into into : {Into::kAdd, Into::kOverwrite}) {
    std::vector<S> wide = Random<S>(kOutputs * kWidth, 3);
    std::vector<S> narrow = wide;
    const OuterTerm<S> whole = {kWidth, x.data(), kWidth, wide.data(), kWidth};
    OuterProducts<S>({0, kOutputs}, kRows, g.data(), kOutputs, {&whole, 1}, into, {},
                     workspace.data());
    for (int64_t j = 0, width = 1; j < kWidth; j += width, width = width % 4 + 1) {
      width = std::min(width, kWidth - j);
      const OuterTerm<S> term = {width, x.data() + j, kWidth, narrow.data() + j, kWidth};
      OuterProducts<S>({0, kOutputs}, kRows, g.data(), kOutputs, {&term, 1}, into, {},
                       workspace.data());
    }

    EXPECT_EQ(narrow, wide);
  }
}

TYPED_TEST(Gemm, GivesTheSameBitsForAnyPartOfAnOuterProduct) {
  using S = TypeParam;
  constexpr int64_t kRows = 700;
  constexpr int64_t kOutputs = 150;
  constexpr int64_t kWidth = 300;
  Buffer<S> workspace(OuterProductWorkspace<S>());
  const std::vector<S> g = Random<S>(kRows * kOutputs, 1);
  const std::vector<S> x = Random<S>(kRows * kWidth, 2);
  const auto product = [&](int parts) {
    std::vector<S> c(kOutputs * kWidth + kOutputs);
    for (int part = 0; part < parts; ++part) {
      const OuterTerm<S> term = {kWidth, x.data(), kWidth, c.data(), kWidth};
      OuterProducts<S>(PartOf(kOutputs, part, parts), kRows, g.data(), kOutputs, {&term, 1},
                       Into::kAdd, {.all = c.data() + kOutputs * kWidth}, workspace.data());
    }
    return c;
  };

  EXPECT_EQ(product(2), product(1));
  EXPECT_EQ(product(7), product(1));
}

}  // namespace
}  // namespace gradwatch::nn
