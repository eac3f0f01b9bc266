#include "server/data/series_source.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/testing/allocation_counter.h"
#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

// "abc…zabc…" of that length.
Content Alphabet(int length) {
  std::string text;
  for (int i = 0; i < length; ++i) text += static_cast<char>('a' + i % 26);
  return *ParseText(text);
}

// Columns t (the row), s = 2 t + 5, flat (always 3), hole (nothing in row 4).
Content Counting(int rows) {
  std::string table = "t,s,flat,hole\n";
  for (int i = 0; i < rows; ++i) {
    absl::StrAppend(&table, i, ",", 2 * i + 5, ",3,", i == 3 ? "" : "1", "\n");
  }
  return *ParseTable(table);
}

std::string RefusalOf(const v1::Job& job, const Content& content) {
  const auto shape = ShapeOf(job, content.get());
  EXPECT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(NewSource(job, content).status(), shape.status());
  return std::string(shape.status().message());
}

TEST(LanguageTest, Shape) {
  const auto shape = ShapeOf(LanguageJob(4, 10, 0.1), Alphabet(1000).get());

  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->time_steps, 10);
  EXPECT_EQ(shape->rows_max, 4);
  EXPECT_EQ(shape->features, 0);
  EXPECT_EQ(shape->vocabulary, 26);
  EXPECT_EQ(shape->outputs, 26);
  EXPECT_TRUE(shape->classification);
  EXPECT_FALSE(shape->loss_at_last);
  EXPECT_TRUE(shape->carries_state);
}

TEST(LanguageTest, WindowsFollowEachOtherAndTargetsAreTheNextCharacters) {
  const auto source = SourceOf(LanguageJob(4, 10, 0.1), Alphabet(1000));
  Batch batch;
  // 899 characters of the training part have a successor: streams of 224, each of 22 windows.
  for (int64_t i = 0; i < 50; ++i) {
    source->NextBatch(&batch);

    ExpectWellFormed(source->shape(), batch);
    for (size_t row = 0; row < 4; ++row) {
      const int64_t start = static_cast<int64_t>(row) * 224 + i % 22 * 10;
      EXPECT_EQ(batch.origins[row], start);
      EXPECT_EQ(batch.restart[row], i % 22 == 0 ? 1 : 0) << i;
      for (size_t t = 0; t < 10; ++t) {
        const int64_t position = start + static_cast<int64_t>(t);
        EXPECT_EQ(batch.tokens[t * 4 + row], position % 26);
        EXPECT_EQ(batch.target_classes[t * 4 + row], (position + 1) % 26);
        EXPECT_EQ(batch.weights[t * 4 + row], 1.0);
      }
    }
  }
}

TEST(LanguageTest, EvaluationCarriesTheStateThroughTheHeldOutPart) {
  const auto source = SourceOf(LanguageJob(4, 10, 0.1), Alphabet(1000));
  Batch batch;

  ASSERT_EQ(source->evaluation_batches(), 2);
  for (int64_t i = 0; i < 2; ++i) {
    source->EvaluationBatch(i, &batch);

    ExpectWellFormed(source->shape(), batch);
    ASSERT_EQ(batch.rows, 4);
    EXPECT_EQ(batch.restart, std::vector<uint8_t>(4, i == 0 ? 1 : 0));
    for (size_t row = 0; row < 4; ++row) {
      EXPECT_EQ(batch.origins[row], 899 + static_cast<int64_t>(row) * 25 + i * 10);
      EXPECT_EQ(batch.target_classes[row], (batch.origins[row] + 1) % 26);
    }
  }
}

TEST(LanguageTest, AHeldOutPartShorterThanAWindowIsStillEvaluated) {
  const auto source = SourceOf(LanguageJob(1, 50, 0.03), Alphabet(100));
  Batch batch;

  ASSERT_EQ(source->evaluation_batches(), 1);
  source->EvaluationBatch(0, &batch);

  EXPECT_EQ(batch.origins[0], 49);
  for (size_t t = 0; t < 50; ++t) EXPECT_EQ(batch.weights[t], t < 47 ? 0.0 : 1.0);
}

TEST(LanguageTest, NothingHeldOutNothingEvaluated) {
  EXPECT_EQ(SourceOf(LanguageJob(4, 10, 0.0), Alphabet(1000))->evaluation_batches(), 0);
}

TEST(LanguageTest, HasNoTargetScales) {
  EXPECT_TRUE(SourceOf(LanguageJob(4, 10, 0.0), Alphabet(1000))->target_scales().empty());
}

TEST(LanguageTest, RefusesWithFieldValueAndWhatIsAllowed) {
  const Content text = Alphabet(100);
  EXPECT_EQ(RefusalOf(LanguageJob(4, 10, 0.1), nullptr),
            "task.language.dataset: got 'datasets/text', must name an uploaded text");
  EXPECT_EQ(RefusalOf(LanguageJob(4, 10, 0.1), Counting(9)),
            "task.language.dataset: 'datasets/text' is a table, must be a text");
  EXPECT_EQ(RefusalOf(LanguageJob(4, 0, 0.1), text),
            "task.language.time_steps: got 0, must be 1 to 10000");
  EXPECT_EQ(RefusalOf(LanguageJob(4, 10001, 0.1), text),
            "task.language.time_steps: got 10001, must be 1 to 10000");
  EXPECT_EQ(RefusalOf(LanguageJob(4, 10, 0.95), text),
            "task.language.held_out_share: got 0.95, must be 0 to 0.9");
  EXPECT_EQ(RefusalOf(LanguageJob(4, 10, std::nan("")), text),
            "task.language.held_out_share: got nan, must be 0 to 0.9");
  EXPECT_EQ(RefusalOf(LanguageJob(9, 10, 0.1), text),
            "task.language.dataset: the training part has 90 characters, but batch_size 9 x "
            "time_steps 10 with targets 1 ahead needs at least 91");
}

TEST(ForecastTest, Shape) {
  v1::Job job = ForecastJob(4, 10, {"s"});
  job.mutable_task()->mutable_forecast()->clear_input_columns();
  job.mutable_task()->mutable_forecast()->add_input_columns("t");
  job.mutable_task()->mutable_forecast()->add_input_columns("s");

  const auto shape = ShapeOf(job, Counting(100).get());

  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->features, 2);
  EXPECT_EQ(shape->vocabulary, 0);
  EXPECT_EQ(shape->outputs, 1);
  EXPECT_FALSE(shape->classification);
  EXPECT_FALSE(shape->loss_at_last);
  EXPECT_TRUE(shape->carries_state);
  EXPECT_EQ(shape->target_names, std::vector<std::string>{"s"});
}

TEST(ForecastTest, ScalesByTheTrainingPart) {
  const auto source = SourceOf(ForecastJob(2, 5, {"t", "s"}), Counting(100));

  // t counts 0 to 79 there: mean 39.5, variance (80^2 - 1) / 12.
  const double deviation = std::sqrt((80.0 * 80.0 - 1.0) / 12.0);
  ASSERT_EQ(source->target_scales().size(), 2u);
  EXPECT_DOUBLE_EQ(source->target_scales()[0].mean, 39.5);
  EXPECT_DOUBLE_EQ(source->target_scales()[0].deviation, deviation);
  EXPECT_DOUBLE_EQ(source->target_scales()[1].mean, 84.0);
  EXPECT_DOUBLE_EQ(source->target_scales()[1].deviation, 2.0 * deviation);
}

TEST(ForecastTest, TargetsAreTheRowsAheadAndWarmupDoesNotCount) {
  v1::Job job = ForecastJob(2, 5, {"t", "s"});
  job.mutable_task()->mutable_forecast()->set_horizon(7);
  job.mutable_task()->mutable_forecast()->set_warmup_time_steps(2);
  const auto source = SourceOf(job, Counting(100));
  const absl::Span<const TargetScale> scales = source->target_scales();
  Batch batch;
  // 73 rows of the training part have a target: streams of 36, each of 7 windows.
  for (int64_t i = 0; i < 10; ++i) {
    source->NextBatch(&batch);

    ExpectWellFormed(source->shape(), batch);
    for (size_t row = 0; row < 2; ++row) {
      const int64_t start = static_cast<int64_t>(row) * 36 + i % 7 * 5;
      EXPECT_EQ(batch.origins[row], start);
      EXPECT_EQ(batch.restart[row], i % 7 == 0 ? 1 : 0);
      for (size_t t = 0; t < 5; ++t) {
        const double now = static_cast<double>(start) + static_cast<double>(t);
        const size_t at = t * 2 + row;
        const auto original = [&](const std::vector<double>& values, size_t column) {
          return scales[column].mean + scales[column].deviation * values[at * 2 + column];
        };
        EXPECT_NEAR(original(batch.inputs, 0), now, 1e-12);
        EXPECT_NEAR(original(batch.inputs, 1), 2.0 * now + 5.0, 1e-12);
        EXPECT_NEAR(original(batch.target_values, 0), now + 7.0, 1e-12);
        EXPECT_NEAR(original(batch.target_values, 1), 2.0 * (now + 7.0) + 5.0, 1e-12);
        EXPECT_EQ(batch.weights[at], t < 2 ? 0.0 : 1.0);
      }
    }
  }
}

TEST(ForecastTest, EvaluationTargetsAreHeldOutAndInputsReachBack) {
  v1::Job job = ForecastJob(2, 5, {"t"});
  job.mutable_task()->mutable_forecast()->set_horizon(3);
  const auto source = SourceOf(job, Counting(100));
  Batch batch;

  source->EvaluationBatch(0, &batch);

  ExpectWellFormed(source->shape(), batch);
  EXPECT_EQ(batch.origins, (std::vector<int64_t>{77, 87}));
  const TargetScale scale = source->target_scales()[0];
  EXPECT_NEAR(scale.mean + scale.deviation * batch.inputs[0], 77.0, 1e-12);
  EXPECT_NEAR(scale.mean + scale.deviation * batch.target_values[0], 80.0, 1e-12);
}

TEST(ForecastTest, WithoutCarriedStateWindowsLieAnywhereAndStartAnew) {
  v1::Job job = ForecastJob(64, 5, {"t"});
  job.mutable_task()->mutable_forecast()->set_carry_state(false);
  const auto source = SourceOf(job, Counting(100));
  EXPECT_FALSE(source->shape().carries_state);
  Batch batch;
  std::vector<int> starts(100);
  for (int i = 0; i < 20; ++i) {
    source->NextBatch(&batch);
    EXPECT_EQ(batch.restart, std::vector<uint8_t>(64, 1));
    for (const int64_t origin : batch.origins) ++starts[static_cast<size_t>(origin)];
  }

  // 1280 draws from the 75 places 0 to 74: each is missed with a chance of 4e-8.
  for (size_t start = 0; start < 100; ++start) EXPECT_EQ(starts[start] > 0, start < 75) << start;
}

TEST(ForecastTest, AnInputThatNeverChangesIsZero) {
  v1::Job job = ForecastJob(2, 5, {"t"});
  job.mutable_task()->mutable_forecast()->add_input_columns("flat");
  const auto source = SourceOf(job, Counting(100));
  Batch batch;

  source->NextBatch(&batch);

  for (size_t at = 0; at < 10; ++at) EXPECT_EQ(batch.inputs[at * 2 + 1], 0.0);
}

TEST(ForecastTest, RefusesColumnsWithTheirProblem) {
  const Content table = Counting(100);
  const auto with_inputs = [](const std::vector<std::string>& columns) {
    v1::Job job = ForecastJob(2, 5, {"t"});
    job.mutable_task()->mutable_forecast()->clear_input_columns();
    for (const std::string& column : columns) {
      job.mutable_task()->mutable_forecast()->add_input_columns(column);
    }
    return job;
  };
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {}), table),
            "task.forecast.target_columns: names no column, must name at least one of 't', 's', "
            "'flat'");
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {"t", "nope"}), table),
            "task.forecast.target_columns[1]: 'nope' is no column of the table, which has 't', "
            "'s', 'flat'");
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {"hole"}), table),
            "task.forecast.target_columns[0]: 'hole' is not numeric (row 4: '')");
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {"t", "t"}), table),
            "task.forecast.target_columns[1]: 't' is named twice");
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {"flat"}), table),
            "task.forecast.target_columns: column 'flat' has one value only in the training part");
  EXPECT_EQ(RefusalOf(with_inputs({"t", "hole"}), table),
            "task.forecast.input_columns[1]: 'hole' is not numeric (row 4: '')");
}

TEST(ForecastTest, RefusesNumbersWithFieldValueAndWhatIsAllowed) {
  const Content table = Counting(100);
  const auto refusal = [&table](auto change) {
    v1::Job job = ForecastJob(2, 5, {"t"});
    change(job.mutable_task()->mutable_forecast());
    return RefusalOf(job, table);
  };
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {"t"}), nullptr),
            "task.forecast.dataset: got 'datasets/table', must name an uploaded table");
  EXPECT_EQ(RefusalOf(ForecastJob(2, 5, {"t"}), Alphabet(100)),
            "task.forecast.dataset: 'datasets/table' is a text, must be a table");
  EXPECT_EQ(refusal([](auto* task) { task->set_time_steps(-1); }),
            "task.forecast.time_steps: got -1, must be 1 to 10000");
  EXPECT_EQ(refusal([](auto* task) { task->set_horizon(0); }),
            "task.forecast.horizon: got 0, must be 1 to 10000");
  EXPECT_EQ(refusal([](auto* task) { task->set_held_out_share(0.0); }),
            "task.forecast.held_out_share: got 0, must be 0.01 to 0.9");
  EXPECT_EQ(refusal([](auto* task) { task->set_warmup_time_steps(5); }),
            "task.forecast.warmup_time_steps: got 5, must be 0 to 4");
  EXPECT_EQ(refusal([](auto* task) { task->set_horizon(80); }),
            "task.forecast.dataset: the training part has 80 rows, but batch_size 2 x time_steps 5 "
            "with targets 80 ahead needs at least 90");
}

TEST(ForecastTest, RefusesValuesTooLargeToScale) {
  const Content table = *ParseTable("x\n1e308\n-1e308\n1e308\n-1e308\n1e308\n-1e308\n");

  EXPECT_EQ(RefusalOf(ForecastJob(1, 2, {"x"}), table),
            "task.forecast.input_columns: column 'x' has values too large to scale");
}

// --- what holds for every series ---------------------------------------------------------------

class SeriesSourceTest : public ::testing::TestWithParam<int> {
 protected:
  std::unique_ptr<Source> source() const {
    if (GetParam() == 0) return SourceOf(LanguageJob(4, 10, 0.1), Alphabet(1000));
    v1::Job job = ForecastJob(4, 10, {"t", "s"});
    job.mutable_task()->mutable_forecast()->set_carry_state(GetParam() == 1);
    return SourceOf(job, Counting(500));
  }
};

TEST_P(SeriesSourceTest, ASecondSourceGivesTheSameBatches) {
  const auto first = source(), second = source();
  Batch a, b;
  for (int i = 0; i < 30; ++i) {
    first->NextBatch(&a);
    second->NextBatch(&b);

    ExpectWellFormed(first->shape(), a);
    ExpectSame(a, b);
  }
}

TEST_P(SeriesSourceTest, ResumesExactlyFromItsState) {
  const auto first = source(), second = source();
  Batch a, b;
  for (int i = 0; i < 17; ++i) first->NextBatch(&a);

  ASSERT_TRUE(second->LoadState(first->SaveState()).ok());

  for (int i = 0; i < 30; ++i) {
    first->NextBatch(&a);
    second->NextBatch(&b);
    ExpectSame(a, b);
  }
}

TEST_P(SeriesSourceTest, RefusesForeignState) {
  EXPECT_EQ(source()->LoadState("elsewhere").code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(SeriesSourceTest, EvaluationLeavesTrainingAloneAndIsTheSameEachTime) {
  const auto subject = source(), untouched = source();
  Batch first, again, training, expected;
  ASSERT_GE(subject->evaluation_batches(), 1);
  subject->NextBatch(&training);
  subject->EvaluationBatch(0, &first);
  subject->NextBatch(&training);

  subject->EvaluationBatch(0, &again);

  ExpectSame(first, again);
  untouched->NextBatch(&expected);
  untouched->NextBatch(&expected);
  ExpectSame(training, expected);
}

TEST_P(SeriesSourceTest, OnlyTheFirstBatchAllocates) {
  const auto subject = source();
  Batch training, evaluation;
  subject->NextBatch(&training);
  subject->EvaluationBatch(0, &evaluation);

  const int64_t before = testing::Allocations();
  for (int i = 0; i < 50; ++i) subject->NextBatch(&training);
  for (int64_t i = 0; i < subject->evaluation_batches(); ++i) {
    subject->EvaluationBatch(i, &evaluation);
  }
  const int64_t after = testing::Allocations();

  EXPECT_EQ(after, before);
}

std::string SeriesName(const ::testing::TestParamInfo<int>& which) {
  constexpr const char* kNames[] = {"Text", "TableStreams", "TableWindows"};
  return kNames[which.param];
}

INSTANTIATE_TEST_SUITE_P(All, SeriesSourceTest, ::testing::Values(0, 1, 2), SeriesName);

}  // namespace
}  // namespace gradwatch::data
