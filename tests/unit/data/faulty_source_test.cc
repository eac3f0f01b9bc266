#include "server/data/faulty_source.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

constexpr int64_t kFirst = 2;
constexpr int64_t kBatches = 3;

v1::Job SpoiltJob() {
  v1::Job job = AddingJob(4, 6, 3);
  job.mutable_fault_injection()->set_first_batch(kFirst);
  job.mutable_fault_injection()->set_batches(kBatches);
  return job;
}

bool IsSpoilt(int64_t n) { return n >= kFirst && n < kFirst + kBatches; }

TEST(FaultySourceTest, ScalesInputsAndTargetsOfTheBatchesThatAreMeant) {
  v1::Job job = SpoiltJob();
  job.mutable_fault_injection()->set_factor(100);
  const auto sound = SourceOf(AddingJob(4, 6, 3)), faulty = SourceOf(job);

  Batch expected, batch;
  for (int64_t n = 0; n < 8; ++n) {
    sound->NextBatch(&expected);
    faulty->NextBatch(&batch);
    const double factor = IsSpoilt(n) ? 100 : 1;
    for (size_t i = 0; i < batch.inputs.size(); ++i) {
      ASSERT_EQ(batch.inputs[i], factor * expected.inputs[i]) << n;
    }
    for (size_t i = 0; i < batch.target_values.size(); ++i) {
      ASSERT_EQ(batch.target_values[i], factor * expected.target_values[i]) << n;
    }
    EXPECT_EQ(batch.origins, expected.origins);
  }
}

TEST(FaultySourceTest, MakesOneHoleInEachRow) {
  v1::Job job = SpoiltJob();
  job.mutable_fault_injection()->set_not_a_number(true);
  const auto faulty = SourceOf(job);

  Batch batch;
  for (int64_t n = 0; n < 8; ++n) {
    faulty->NextBatch(&batch);
    int holes = 0;
    for (const double value : batch.inputs) holes += std::isnan(value) ? 1 : 0;
    EXPECT_EQ(holes, IsSpoilt(n) ? 4 : 0) << n;
    EXPECT_EQ(std::isnan(batch.inputs[0]), IsSpoilt(n));
  }
}

TEST(FaultySourceTest, GoesOnWhereItStood) {
  v1::Job job = SpoiltJob();
  job.mutable_fault_injection()->set_factor(100);
  const auto straight = SourceOf(job), before = SourceOf(job), after = SourceOf(job);
  Batch expected, batch;
  for (int64_t n = 0; n < 3; ++n) {
    straight->NextBatch(&expected);
    before->NextBatch(&batch);
  }

  ASSERT_TRUE(after->LoadState(before->SaveState()).ok());

  for (int64_t n = 3; n < 8; ++n) {
    straight->NextBatch(&expected);
    after->NextBatch(&batch);
    EXPECT_EQ(batch.inputs, expected.inputs) << n;
  }
  EXPECT_EQ(after->LoadState("").code(), absl::StatusCode::kInvalidArgument);
}

TEST(FaultySourceTest, LeavesEvaluationAlone) {
  v1::Job job = SpoiltJob();
  job.mutable_fault_injection()->set_first_batch(0);
  job.mutable_fault_injection()->set_batches(1000);
  job.mutable_fault_injection()->set_factor(100);
  const auto sound = SourceOf(AddingJob(4, 6, 3)), faulty = SourceOf(job);
  ASSERT_EQ(faulty->evaluation_batches(), sound->evaluation_batches());

  Batch expected, batch;
  sound->EvaluationBatch(0, &expected);
  faulty->EvaluationBatch(0, &batch);

  EXPECT_EQ(batch.inputs, expected.inputs);
}

}  // namespace
}  // namespace gradwatch::data
