#include <gtest/gtest.h>

#include <array>

#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

TEST(TemporalOrderTest, TwoSymbolsStandInTheirPlacesAndNameTheClass) {
  for (const int time_steps : {10, 11, 19, 50, 100}) {
    const auto source = SourceOf(TemporalOrderJob(50, time_steps, 10));
    Batch batch;
    for (int step = 0; step < 10; ++step) {
      source->NextBatch(&batch);

      ExpectWellFormed(source->shape(), batch);
      for (int64_t row = 0; row < batch.rows; ++row) {
        const int64_t length = batch.lengths[static_cast<size_t>(row)];
        std::vector<std::pair<int64_t, int32_t>> relevant;
        for (int64_t t = 0; t < length; ++t) {
          const int32_t symbol = batch.tokens[static_cast<size_t>(t * batch.rows + row)];
          if (symbol < 2) relevant.emplace_back(t, symbol);
        }
        ASSERT_EQ(relevant.size(), 2u);
        EXPECT_TRUE(relevant[0].first >= length / 10 && relevant[0].first < 2 * length / 10);
        EXPECT_TRUE(relevant[1].first >= 5 * length / 10 && relevant[1].first < 6 * length / 10);
        EXPECT_EQ(batch.target_classes[static_cast<size_t>(row)],
                  2 * relevant[0].second + relevant[1].second);
      }
    }
  }
}

TEST(TemporalOrderTest, ClassesAndDistractorsAreEven) {
  const auto source = SourceOf(TemporalOrderJob(1000, 50, 50));
  Batch batch;
  std::array<int, 4> classes{};
  std::array<int, 6> symbols{};
  for (int i = 0; i < 20; ++i) {
    source->NextBatch(&batch);
    for (const int32_t target : batch.target_classes) ++classes[static_cast<size_t>(target)];
    for (const int32_t token : batch.tokens) ++symbols[static_cast<size_t>(token)];
  }

  // Of 20,000 examples a class has 5000 with a deviation of 61; of 960,000 distractors a symbol
  // has 240,000 with one of 424. Five deviations.
  for (const int count : classes) EXPECT_NEAR(count, 5000, 306);
  for (size_t i = 2; i < 6; ++i) EXPECT_NEAR(symbols[i], 240000, 2121);
}

TEST(TemporalOrderTest, Shape) {
  const auto shape = ShapeOf(TemporalOrderJob(20, 50, 50), nullptr);

  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->time_steps, 50);
  EXPECT_EQ(shape->features, 0);
  EXPECT_EQ(shape->vocabulary, 6);
  EXPECT_EQ(shape->outputs, 4);
  EXPECT_TRUE(shape->classification);
  EXPECT_TRUE(shape->loss_at_last);
  EXPECT_FALSE(shape->carries_state);
  EXPECT_TRUE(shape->target_names.empty());
}

}  // namespace
}  // namespace gradwatch::data
