#include "server/data/generated_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "server/data/batch_buffers.h"
#include "tests/testing/allocation_counter.h"
#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

// One example, taken out of its batch.
struct Example {
  int32_t length;
  std::vector<double> numbers;
  bool operator==(const Example&) const = default;
};

Example ExampleOf(const Batch& batch, int64_t row) {
  Example example{batch.lengths[static_cast<size_t>(row)], {}};
  const auto take = [&](const auto& buffer, int64_t time_steps, int64_t width) {
    for (int64_t t = 0; t < time_steps; ++t) {
      for (int64_t i = 0; i < width && !buffer.empty(); ++i) {
        example.numbers.push_back(buffer[static_cast<size_t>((t * batch.rows + row) * width + i)]);
      }
    }
  };
  const bool at_last = static_cast<int64_t>(batch.weights.size()) == batch.rows;
  take(batch.inputs, example.length, batch.features);
  take(batch.tokens, example.length, 1);
  take(batch.target_values, at_last ? 1 : example.length, batch.outputs);
  take(batch.target_classes, at_last ? 1 : example.length, 1);
  take(batch.weights, at_last ? 1 : example.length, 1);
  return example;
}

// The first `count` training examples by number.
std::map<int64_t, Example> FirstExamples(const v1::Job& job, size_t count) {
  const auto source = SourceOf(job);
  std::map<int64_t, Example> examples;
  Batch batch;
  while (examples.size() < count) {
    source->NextBatch(&batch);
    for (int64_t row = 0; row < batch.rows; ++row) {
      examples.emplace(batch.origins[static_cast<size_t>(row)], ExampleOf(batch, row));
    }
  }
  return examples;
}

struct NamedJob {
  const char* name;
  v1::Job job;
};

void PrintTo(const NamedJob& job, std::ostream* out) { *out << job.name; }

class GeneratedSourceTest : public ::testing::TestWithParam<NamedJob> {
 protected:
  v1::Job job(int batch_size) const {
    v1::Job result = GetParam().job;
    result.mutable_training()->set_batch_size(batch_size);
    return result;
  }
};

TEST_P(GeneratedSourceTest, ExamplesDoNotDependOnTheBatchSize) {
  const auto by_six = FirstExamples(job(6), 30), by_fifteen = FirstExamples(job(15), 30);

  EXPECT_EQ(by_six.size(), 30u);
  EXPECT_EQ(by_six.rbegin()->first, 29);
  EXPECT_EQ(by_six, by_fifteen);
}

TEST_P(GeneratedSourceTest, ASecondSourceGivesTheSameBatches) {
  const auto first = SourceOf(job(8)), second = SourceOf(job(8));
  Batch a, b;
  for (int i = 0; i < 5; ++i) {
    first->NextBatch(&a);
    second->NextBatch(&b);

    ExpectWellFormed(first->shape(), a);
    ExpectSame(a, b);
  }
}

TEST_P(GeneratedSourceTest, AnotherSeedGivesOtherExamples) {
  v1::Job other = job(8);
  other.set_seed(43);

  EXPECT_NE(FirstExamples(job(8), 8), FirstExamples(other, 8));
}

TEST_P(GeneratedSourceTest, ResumesExactlyFromItsState) {
  const auto first = SourceOf(job(8)), second = SourceOf(job(8));
  Batch a, b;
  for (int i = 0; i < 7; ++i) first->NextBatch(&a);
  second->NextBatch(&b);

  ASSERT_TRUE(second->LoadState(first->SaveState()).ok());

  for (int i = 0; i < 3; ++i) {
    first->NextBatch(&a);
    second->NextBatch(&b);
    ExpectSame(a, b);
  }
  EXPECT_EQ(first->SaveState(), second->SaveState());
}

TEST_P(GeneratedSourceTest, EvaluationIsFixedAndLeavesTrainingAlone) {
  v1::Job with_twenty = job(8);
  with_twenty.mutable_evaluation()->set_examples(20);
  const auto source = SourceOf(with_twenty), untouched = SourceOf(with_twenty);
  Batch first, again, training, expected;
  source->EvaluationBatch(2, &first);
  source->NextBatch(&training);

  source->EvaluationBatch(2, &again);

  ExpectWellFormed(source->shape(), first);
  ExpectSame(first, again);
  untouched->NextBatch(&expected);
  ExpectSame(training, expected);
}

TEST_P(GeneratedSourceTest, EvaluationHasEveryExampleOnceAndNoTrainingExample) {
  v1::Job with_twenty = job(8);
  with_twenty.mutable_evaluation()->set_examples(20);
  const auto source = SourceOf(with_twenty);
  const auto training = FirstExamples(with_twenty, 24);
  Batch batch;
  std::set<int64_t> numbers;

  ASSERT_EQ(source->evaluation_batches(), 3);
  for (int64_t i = 0; i < 3; ++i) {
    source->EvaluationBatch(i, &batch);
    EXPECT_EQ(batch.rows, i < 2 ? 8 : 4);
    for (int64_t row = 0; row < batch.rows; ++row) {
      const int64_t number = batch.origins[static_cast<size_t>(row)];
      EXPECT_TRUE(numbers.insert(number).second);
      EXPECT_NE(ExampleOf(batch, row), training.at(number));
    }
  }
  EXPECT_EQ(numbers.size(), 20u);
  EXPECT_EQ(*numbers.rbegin(), 19);
}

TEST_P(GeneratedSourceTest, EveryRowStartsAnew) {
  const auto source = SourceOf(job(8));
  Batch batch;

  source->NextBatch(&batch);

  EXPECT_EQ(batch.restart, std::vector<uint8_t>(8, 1));
}

TEST_P(GeneratedSourceTest, OnlyTheFirstBatchAllocates) {
  const auto source = SourceOf(job(8));
  Batch training, evaluation;
  source->NextBatch(&training);
  source->EvaluationBatch(0, &evaluation);

  const int64_t before = testing::Allocations();
  for (int i = 0; i < 20; ++i) source->NextBatch(&training);
  for (int64_t i = 0; i < source->evaluation_batches(); ++i) {
    source->EvaluationBatch(i, &evaluation);
  }
  const int64_t after = testing::Allocations();

  EXPECT_EQ(after, before);
}

INSTANTIATE_TEST_SUITE_P(Tasks, GeneratedSourceTest,
                         ::testing::Values(NamedJob{"Adding", AddingJob(8, 20, 20)},
                                           NamedJob{"AddingRagged", AddingJob(8, 20, 3)},
                                           NamedJob{"TemporalOrder", TemporalOrderJob(8, 30, 30)},
                                           NamedJob{"TemporalOrderRagged",
                                                    TemporalOrderJob(8, 30, 10)},
                                           NamedJob{"CopyMemory", CopyMemoryJob(8, 5)},
                                           NamedJob{"MackeyGlass", MackeyGlassJob(8, 30, 6, 20)}),
                         [](const auto& named) { return std::string(named.param.name); });

TEST(GeneratedSourceLengthTest, RowsAreOrderedByLengthThenNumber) {
  const auto source = SourceOf(AddingJob(50, 12, 8));
  Batch batch;
  std::set<int32_t> lengths;
  for (int i = 0; i < 4; ++i) {
    source->NextBatch(&batch);
    for (size_t row = 1; row < 50; ++row) {
      EXPECT_GE(batch.lengths[row - 1], batch.lengths[row]);
      if (batch.lengths[row - 1] == batch.lengths[row]) {
        EXPECT_LT(batch.origins[row - 1], batch.origins[row]);
      }
    }
    lengths.insert(batch.lengths.begin(), batch.lengths.end());
  }

  EXPECT_EQ(lengths, (std::set<int32_t>{8, 9, 10, 11, 12})) << "each with the chance 1/5";
}

TEST(GeneratedSourceLengthTest, TheBatchIsAsLongAsItsLongestRow) {
  const auto source = SourceOf(AddingJob(1, 12, 2));
  Batch batch;
  std::set<int64_t> time_steps;
  for (int i = 0; i < 200; ++i) {
    source->NextBatch(&batch);
    ASSERT_EQ(batch.time_steps, batch.lengths[0]);
    time_steps.insert(batch.time_steps);
  }

  EXPECT_EQ(time_steps.size(), 11u);
}

TEST(TakeRowsTest, TakesEverythingOfSomeRows) {
  for (const v1::Job& job : {AddingJob(6, 12, 3), CopyMemoryJob(6, 4)}) {
    const auto source = SourceOf(job);
    TaskShape shape = source->shape();
    shape.rows_max = 3;
    Batch batch, taken;
    for (const std::vector<int64_t>& rows :
         {std::vector<int64_t>{0, 2, 5}, std::vector<int64_t>{3, 4}}) {
      source->NextBatch(&batch);

      TakeRows(shape, batch, rows, &taken);

      ExpectWellFormed(shape, taken);
      ASSERT_EQ(taken.rows, std::ssize(rows));
      for (int64_t i = 0; i < taken.rows; ++i) {
        const auto from = static_cast<size_t>(rows[static_cast<size_t>(i)]);
        EXPECT_EQ(ExampleOf(taken, i), ExampleOf(batch, rows[static_cast<size_t>(i)]));
        EXPECT_EQ(taken.origins[static_cast<size_t>(i)], batch.origins[from]);
        EXPECT_EQ(taken.restart[static_cast<size_t>(i)], batch.restart[from]);
      }
    }
  }
}

// Pins the bytes of one example: a checkpoint or a report may be looked at again years later.
TEST(GeneratedSourceBytesTest, ExampleThreeOfSeed42) {
  const auto source = SourceOf(TemporalOrderJob(4, 20, 10));
  Batch batch;

  source->NextBatch(&batch);

  const auto row = static_cast<int64_t>(std::find(batch.origins.begin(), batch.origins.end(), 3) -
                                        batch.origins.begin());
  ASSERT_LT(row, 4);
  // Fourteen tokens, of which the second (B) and the eighth (A) matter; the class BA; its weight.
  EXPECT_EQ(ExampleOf(batch, row).numbers,
            (std::vector<double>{4, 1, 5, 4, 2, 5, 5, 0, 5, 3, 2, 3, 4, 3, 2, 1}));
}

TEST(GeneratedSourceStateTest, RefusesForeignBytesAndKeepsItsPlace) {
  const auto source = SourceOf(AddingJob(2, 5, 5)), untouched = SourceOf(AddingJob(2, 5, 5));
  Batch batch, expected;
  source->NextBatch(&batch);
  untouched->NextBatch(&expected);

  for (const char* state : {"", "7", "batch", "batch -1", "batch x", "batch 1 2",
                            "batch 99999999999999999999", "batch 70368744177665"}) {
    EXPECT_EQ(source->LoadState(state).code(), absl::StatusCode::kInvalidArgument) << state;
  }

  source->NextBatch(&batch);
  untouched->NextBatch(&expected);
  ExpectSame(batch, expected);
}

}  // namespace
}  // namespace gradwatch::data
