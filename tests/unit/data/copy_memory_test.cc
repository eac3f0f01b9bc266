#include <gtest/gtest.h>

#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

TEST(CopyMemoryTest, TheFirstTenSymbolsComeBackAfterTheSignal) {
  for (const int delay : {1, 2, 30}) {
    const auto source = SourceOf(CopyMemoryJob(8, delay));
    Batch batch;

    source->NextBatch(&batch);

    ExpectWellFormed(source->shape(), batch);
    ASSERT_EQ(batch.time_steps, delay + 20);
    for (int64_t row = 0; row < batch.rows; ++row) {
      const auto token = [&](int64_t t) {
        return batch.tokens[static_cast<size_t>(t * batch.rows + row)];
      };
      const auto target = [&](int64_t t) {
        return batch.target_classes[static_cast<size_t>(t * batch.rows + row)];
      };
      for (int64_t t = 0; t < delay + 20; ++t) {
        if (t < 10) {
          EXPECT_TRUE(token(t) >= 1 && token(t) <= 8);
        } else {
          EXPECT_EQ(token(t), t == delay + 9 ? 9 : 0) << t;
        }
        EXPECT_EQ(target(t), t < delay + 10 ? 0 : token(t - delay - 10)) << t;
        EXPECT_EQ(batch.weights[static_cast<size_t>(t * batch.rows + row)], 1.0);
      }
    }
  }
}

TEST(CopyMemoryTest, Shape) {
  const auto shape = ShapeOf(CopyMemoryJob(8, 100), nullptr);

  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->time_steps, 120);
  EXPECT_EQ(shape->vocabulary, 10);
  EXPECT_EQ(shape->outputs, 10);
  EXPECT_TRUE(shape->classification);
  EXPECT_FALSE(shape->loss_at_last);
  EXPECT_FALSE(shape->carries_state);
}

}  // namespace
}  // namespace gradwatch::data
