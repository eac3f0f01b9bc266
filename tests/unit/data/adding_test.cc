#include <gtest/gtest.h>

#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

TEST(AddingTest, TargetIsTheSumOfOneMarkedNumberInEachHalf) {
  const auto source = SourceOf(AddingJob(64, 21, 2));
  Batch batch;
  for (int step = 0; step < 20; ++step) {
    source->NextBatch(&batch);

    ExpectWellFormed(source->shape(), batch);
    for (int64_t row = 0; row < batch.rows; ++row) {
      const int64_t length = batch.lengths[static_cast<size_t>(row)];
      double sum = 0.0;
      int marks_first = 0, marks_second = 0;
      for (int64_t t = 0; t < length; ++t) {
        const double* input = &batch.inputs[static_cast<size_t>((t * batch.rows + row) * 2)];
        ASSERT_TRUE(input[0] >= 0.0 && input[0] < 1.0);
        if (input[1] == 0.0) continue;
        ASSERT_EQ(input[1], 1.0);
        sum += input[0];
        ++(t < length / 2 ? marks_first : marks_second);
      }
      EXPECT_EQ(marks_first, 1);
      EXPECT_EQ(marks_second, 1);
      EXPECT_EQ(batch.target_values[static_cast<size_t>(row)], sum);
      EXPECT_EQ(batch.weights[static_cast<size_t>(row)], 1.0);
    }
  }
}

TEST(AddingTest, AlwaysAnsweringOneGivesASixth) {
  const auto source = SourceOf(AddingJob(1000, 10, 10));
  Batch batch;
  double error = 0.0;
  for (int i = 0; i < 100; ++i) {
    source->NextBatch(&batch);
    for (const double target : batch.target_values) error += (target - 1.0) * (target - 1.0);
  }

  // The squared error of one example has a deviation of 0.18: five of 100,000 are 0.003.
  EXPECT_NEAR(error / 1e5, 1.0 / 6.0, 0.003);
}

TEST(AddingTest, Shape) {
  const auto shape = ShapeOf(AddingJob(32, 50, 20), nullptr);

  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->time_steps, 50);
  EXPECT_EQ(shape->rows_max, 32);
  EXPECT_EQ(shape->features, 2);
  EXPECT_EQ(shape->vocabulary, 0);
  EXPECT_EQ(shape->outputs, 1);
  EXPECT_FALSE(shape->classification);
  EXPECT_TRUE(shape->loss_at_last);
  EXPECT_FALSE(shape->carries_state);
  EXPECT_EQ(shape->target_names, std::vector<std::string>{"sum"});
}

TEST(AddingTest, TargetsAreInOriginalUnits) {
  const auto source = SourceOf(AddingJob(4, 10, 10));

  ASSERT_EQ(source->target_scales().size(), 1u);
  EXPECT_EQ(source->target_scales()[0].mean, 0.0);
  EXPECT_EQ(source->target_scales()[0].deviation, 1.0);
}

}  // namespace
}  // namespace gradwatch::data
