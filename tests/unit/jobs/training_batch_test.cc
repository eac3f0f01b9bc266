#include "server/jobs/training_batch.h"

#include "gtest/gtest.h"

namespace gradwatch::jobs {
namespace {

// Six rows of 100 numbers, about 400 bytes each.
v1::TrainingBatch Shown(int64_t bytes_max) {
  data::TaskShape shape;
  shape.features = 1;
  shape.outputs = 1;
  shape.loss_at_last = true;
  Batch batch;
  batch.time_steps = 100;
  batch.rows = 6;
  batch.features = batch.outputs = 1;
  batch.inputs.assign(600, 1.0);
  batch.target_values.assign(6, 1.0);
  batch.weights.assign(6, 1.0);
  batch.lengths.assign(6, 100);
  batch.origins.assign(6, 0);
  v1::TrainingBatch shown;
  ShowBatch(batch, shape, nullptr, 5, bytes_max, &shown);
  return shown;
}

TEST(ShowBatchTest, StopsBeforeTheAnswerGrowsTooLarge) {
  EXPECT_EQ(Shown(1 << 20).examples_size(), 5);
  EXPECT_EQ(Shown(1000).examples_size(), 2);
  EXPECT_EQ(Shown(1000).rows(), 6);
}

TEST(ShowBatchTest, ShowsOneExampleHoweverLarge) { EXPECT_EQ(Shown(10).examples_size(), 1); }

}  // namespace
}  // namespace gradwatch::jobs
