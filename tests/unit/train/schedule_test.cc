#include "server/train/schedule.h"

#include <cmath>

#include "gtest/gtest.h"

namespace gradwatch::train {
namespace {

v1::Optimizer WarmupCosine(int64_t warmup_steps, double minimum) {
  v1::Optimizer spec;
  spec.set_learning_rate(0.8);
  spec.mutable_warmup_cosine()->set_warmup_steps(warmup_steps);
  spec.mutable_warmup_cosine()->set_learning_rate_min(minimum);
  return spec;
}

TEST(LearningRateAtTest, IsConstantWithoutASchedule) {
  v1::Optimizer spec;
  spec.set_learning_rate(0.3);

  EXPECT_EQ(LearningRateAt(spec, 100, 0), 0.3);
  EXPECT_EQ(LearningRateAt(spec, 100, 99), 0.3);
}

TEST(LearningRateAtTest, WarmsUpLinearlyFromTheFirstStep) {
  const v1::Optimizer spec = WarmupCosine(4, 0.0);

  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 0), 0.2);
  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 1), 0.4);
  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 2), 0.6);
  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 3), 0.8);
}

TEST(LearningRateAtTest, FollowsHalfACosineDownToTheMinimum) {
  const v1::Optimizer spec = WarmupCosine(4, 0.2);

  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 4), 0.8);
  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 9), 0.5);
  EXPECT_DOUBLE_EQ(LearningRateAt(spec, 14, 12), 0.2 + 0.3 * (1.0 + std::cos(0.8 * M_PI)));
  EXPECT_EQ(LearningRateAt(spec, 14, 14), 0.2);
}

TEST(LearningRateAtTest, StaysAtTheMinimumBeyondTheStepLimit) {
  EXPECT_EQ(LearningRateAt(WarmupCosine(4, 0.2), 14, 1000), 0.2);
}

TEST(LearningRateAtTest, TakesAWarmUpOfNothingOrOfEverything) {
  EXPECT_DOUBLE_EQ(LearningRateAt(WarmupCosine(0, 0.0), 10, 0), 0.8);
  EXPECT_DOUBLE_EQ(LearningRateAt(WarmupCosine(10, 0.0), 10, 9), 0.8);
  EXPECT_EQ(LearningRateAt(WarmupCosine(10, 0.0), 10, 10), 0.0);
}

}  // namespace
}  // namespace gradwatch::train
