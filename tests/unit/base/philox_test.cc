#include "server/base/philox.h"

#include <cmath>
#include <set>

#include "gtest/gtest.h"

namespace gradwatch {
namespace {

// Known answers of the reference implementation (Random123, kat_vectors, philox4x32-10).
TEST(PhiloxTest, MatchesReferenceVectors) {
  using Block = std::array<uint32_t, 4>;

  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreamTest, DependsOnEachOfSeedStreamAndSubstream) {
  std::set<uint64_t> first;
  for (const uint64_t seed : {1u, 2u}) {
    for (const uint32_t stream : {1u, 2u}) {
      for (const uint64_t substream : {1u, 2u}) {
        first.insert(RandomStream(seed, stream, substream).NextU64());
      }
    }
  }

  EXPECT_EQ(first.size(), 8u);
}

TEST(RandomStreamTest, RepeatsItself) {
  RandomStream a(7, 3, 11), b(7, 3, 11);

  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.NextU32(), b.NextU32());
}

TEST(RandomStreamTest, UniformHasTheRightMomentsAndRange) {
  RandomStream stream(1, 2, 3);
  constexpr int kCount = 100'000;
  double sum = 0, squares = 0;

  for (int i = 0; i < kCount; ++i) {
    const double u = stream.NextUniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }

  // Five standard errors: sd of the mean is sqrt(1/12/n), of the mean square sqrt(4/45/n).
  EXPECT_NEAR(sum / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kCount));
}

TEST(RandomStreamTest, NormalHasTheRightMoments) {
  RandomStream stream(4, 5, 6);
  constexpr int kCount = 100'000;
  double sum = 0, squares = 0, fourth = 0;

  for (int i = 0; i < kCount; ++i) {
    const double z = stream.NextNormal();
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }

  // Five standard errors: variances of z, z^2, z^4 are 1, 2, 96.
  EXPECT_NEAR(sum / kCount, 0.0, 5 * std::sqrt(1.0 / kCount));
  EXPECT_NEAR(squares / kCount, 1.0, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(fourth / kCount, 3.0, 5 * std::sqrt(96.0 / kCount));
}

TEST(RandomStreamTest, BelowCoversItsRangeEvenly) {
  RandomStream stream(9, 9, 9);
  constexpr int kBound = 6, kCount = 60'000;
  int counts[kBound] = {};

  for (int i = 0; i < kCount; ++i) ++counts[stream.NextBelow(kBound)];

  const double expected = kCount / kBound;
  for (const int count : counts) {
    EXPECT_NEAR(count, expected, 5 * std::sqrt(expected * (1 - 1.0 / kBound)));
  }
  EXPECT_EQ(stream.NextBelow(1), 0u);
}

TEST(StreamOfTest, TellsNamesApart) {
  EXPECT_NE(StreamOf("rnn.weight_ih_l0"), StreamOf("rnn.weight_hh_l0"));
  EXPECT_EQ(StreamOf(""), 2166136261u);  // FNV-1a's offset basis.
}

}  // namespace
}  // namespace gradwatch
