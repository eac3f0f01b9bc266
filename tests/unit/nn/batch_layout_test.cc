#include "server/nn/batch_layout.h"

#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch::nn {
namespace {

using testing::ElementsAre;

Batch OfLengths(std::vector<int32_t> lengths) {
  Batch batch;
  batch.rows = static_cast<int64_t>(lengths.size());
  batch.time_steps = lengths.front();
  batch.restart.assign(lengths.size(), 1);
  batch.lengths = std::move(lengths);
  return batch;
}

TEST(BatchLayout, StoresValidPositionsWithoutGaps) {
  BatchLayout layout(4, 6, 0);

  layout.Read(OfLengths({4, 2, 1}));

  EXPECT_EQ(layout.positions(), 7);
  EXPECT_THAT((std::vector{layout.first(0), layout.first(1), layout.first(2), layout.first(3)}),
              ElementsAre(0, 3, 5, 6));
  EXPECT_THAT((std::vector{layout.valid(0), layout.valid(1), layout.valid(3), layout.valid(4)}),
              ElementsAre(3, 2, 1, 0));
  EXPECT_THAT((std::vector{layout.before(0), layout.before(1), layout.before(2)}),
              ElementsAre(0, 3, 6));
}

TEST(BatchLayout, IsOneRunWhenRowsAreEquallyLong) {
  BatchLayout layout(3, 5, 0);

  layout.Read(OfLengths({5, 5, 5}));

  ASSERT_EQ(layout.runs().size(), 1u);
  EXPECT_EQ(layout.runs()[0].position, 0);
  EXPECT_EQ(layout.runs()[0].before, 0);
  EXPECT_EQ(layout.runs()[0].count, 15);
}

TEST(BatchLayout, RunsPairEachPositionWithItsPreviousState) {
  const std::vector<int32_t> lengths = {7, 7, 4, 3, 1};
  BatchLayout layout(5, 7, 0);

  layout.Read(OfLengths(lengths));

  std::vector<int64_t> before(static_cast<size_t>(layout.positions()), -1);
  for (const BatchLayout::Run& run : layout.runs()) {
    for (int64_t i = 0; i < run.count; ++i) {
      before[static_cast<size_t>(run.position + i)] = run.before + i;
    }
  }
  for (int64_t t = 0; t < 7; ++t) {
    for (int64_t b = 0; b < layout.valid(t); ++b) {
      const int64_t expected = t == 0 ? b : 5 + layout.first(t - 1) + b;
      EXPECT_EQ(before[static_cast<size_t>(layout.first(t) + b)], expected) << t << " " << b;
    }
  }
}

TEST(BatchLayout, ListsEachTokenOfTheBatchOnce) {
  BatchLayout layout(2, 3, 100);
  Batch batch = OfLengths({3, 1});
  batch.tokens = {7, 99, 99, 50, 7, 51};  // 50 and 51 are beyond the second row's length.

  layout.Read(batch);

  EXPECT_THAT(layout.tokens(), ElementsAre(7, 99));
  EXPECT_THAT(absl::MakeConstSpan(layout.token_slots(0), 4), ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(absl::MakeConstSpan(layout.token_slots(2), 2), ElementsAre(1, 0));

  batch.tokens = {1, 2, 3, 0, 7, 0};
  layout.Read(batch);
  EXPECT_THAT(layout.tokens(), ElementsAre(1, 2, 3, 7));
}

}  // namespace
}  // namespace gradwatch::nn
