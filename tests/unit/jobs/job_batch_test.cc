#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "server/data/source.h"
#include "server/jobs/intervention_log.h"
#include "tests/unit/jobs/dataset_testing.h"
#include "tests/unit/jobs/job_testing.h"

// GetBatch against what the jobs of a manager with real trainers recorded.

namespace gradwatch::jobs {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using v1::Job;

constexpr int kBatch = 4;
constexpr int64_t kSteps = 30;

std::string Alphabet() {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>('a' + i % 26);
  return text + "Ωmega";
}

std::string Counting() {
  std::string table = "t,s\n";
  for (int i = 0; i < 300; ++i) absl::StrAppend(&table, i, ",", i % 17, "\n");
  return table;
}

v1::CreateJobRequest TinyJob(absl::string_view id, int64_t step_limit = kSteps) {
  v1::CreateJobRequest request = RequestOf(id, step_limit);
  Job* const job = request.mutable_job();
  job->set_seed(7);
  job->mutable_model()->set_hidden_units(4);
  job->mutable_training()->set_batch_size(kBatch);
  job->mutable_evaluation()->set_every_steps(0);
  return request;
}

class JobBatchTest : public JobManagerTest {
 protected:
  JobBatchTest() { limits_.total_bytes_max = int64_t{1} << 30; }

  void UseEngine() { manager_ = std::make_unique<JobManager>(limits_, &datasets_, &clock_); }

  // Runs the job to its end.
  Job Run(const v1::CreateJobRequest& request) {
    const auto created = manager().Create(request);
    EXPECT_TRUE(created.ok()) << created.status();
    return AwaitState(absl::StrCat("jobs/", request.job_id()), Job::STATE_SUCCEEDED);
  }

  // Creates jobs/a and pauses it once it has run for so many steps at least.
  Job RunAndPause(const v1::CreateJobRequest& request, int64_t steps) {
    EXPECT_TRUE(manager().Create(request).ok());
    EXPECT_TRUE(manager().Pause("jobs/a").ok());
    v1::AdvanceJobRequest advance;
    advance.set_name("jobs/a");
    advance.set_steps(steps);
    EXPECT_TRUE(manager().Advance(advance).ok());
    return AwaitState("jobs/a", Job::STATE_PAUSED);
  }

  absl::StatusOr<v1::TrainingBatch> Ask(absl::string_view name, int64_t step, int examples = 1000) {
    v1::GetBatchRequest request;
    request.set_name(std::string(name));
    request.set_step(step);
    request.set_examples_max(examples);
    return manager().GetBatch(request);
  }

  v1::TrainingBatch Get(absl::string_view name, int64_t step) {
    const auto batch = Ask(name, step);
    EXPECT_TRUE(batch.ok()) << batch.status();
    return batch.ok() ? *batch : v1::TrainingBatch();
  }

  std::shared_ptr<const data::DatasetContent> Content(const Job& job) {
    const absl::string_view name = data::DatasetNameOf(job.task());
    return name.empty() ? nullptr : *datasets_.Content(name);
  }
};

// Everything that is shown of the rows, against the batch itself.
void ExpectShows(const Batch& batch, const v1::TrainingBatch& shown) {
  ASSERT_EQ(shown.examples_size(), batch.rows);
  EXPECT_EQ(shown.rows(), batch.rows);
  const bool over_time = batch.weights.size() > static_cast<size_t>(batch.rows);
  for (int row = 0; row < shown.examples_size(); ++row) {
    const v1::TrainingExample& example = shown.examples(row);
    const auto at_row = static_cast<size_t>(row);
    EXPECT_EQ(example.origin(), batch.origins[at_row]);
    ASSERT_EQ(example.time_steps(), batch.lengths[at_row]);
    int input = 0, value = 0, target_class = 0;
    for (int t = 0; t < example.time_steps(); ++t) {
      const size_t at = static_cast<size_t>(t * batch.rows) + at_row;
      for (size_t f = 0; f < static_cast<size_t>(batch.features); ++f) {
        const auto expected =
            static_cast<float>(batch.inputs[at * static_cast<size_t>(batch.features) + f]);
        const float got = example.inputs(input++);
        EXPECT_EQ(std::memcmp(&got, &expected, sizeof(got)), 0) << got << " " << expected;
      }
      if (!batch.tokens.empty() && example.text().empty()) {
        EXPECT_EQ(example.inputs(input++), static_cast<float>(batch.tokens[at]));
      }
      if (!over_time && t > 0) continue;
      const size_t target = over_time ? at : at_row;
      for (size_t o = 0; o < static_cast<size_t>(batch.outputs); ++o) {
        EXPECT_EQ(example.target_values(value++),
                  static_cast<float>(
                      batch.target_values[target * static_cast<size_t>(batch.outputs) + o]));
      }
      if (!batch.target_classes.empty() && example.text().empty()) {
        EXPECT_EQ(example.target_classes(target_class++), batch.target_classes[target]);
      }
      const double weight = example.weights().empty() ? 1.0 : example.weights(t);
      EXPECT_EQ(weight, batch.weights[target]);
    }
    EXPECT_EQ(example.inputs_size(), input);
    EXPECT_EQ(example.target_values_size(), value);
    EXPECT_EQ(example.target_classes_size(), target_class);
  }
}

TEST_F(JobBatchTest, EveryKindOfTaskShowsWhatEachStepRead) {
  UseEngine();
  ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT, Alphabet()).ok());
  ASSERT_TRUE(UploadAll(&datasets_, "table", v1::Dataset::KIND_TABLE, Counting()).ok());
  std::vector<v1::CreateJobRequest> requests(7, TinyJob(""));
  const auto task = [&](size_t i) { return requests[i].mutable_job()->mutable_task(); };
  task(0)->mutable_adding()->set_time_steps(12);
  task(0)->mutable_adding()->set_time_steps_min(6);
  task(1)->mutable_temporal_order()->set_time_steps(12);
  task(2)->mutable_copy_memory()->set_delay(5);
  task(3)->mutable_mackey_glass()->set_time_steps(8);
  task(4)->mutable_language()->set_dataset("datasets/text");
  task(4)->mutable_language()->set_time_steps(8);
  for (const size_t i : {5, 6}) {
    v1::ForecastTask* const forecast = task(i)->mutable_forecast();
    forecast->set_dataset("datasets/table");
    forecast->add_target_columns("s");
    forecast->add_input_columns("t");
    forecast->add_input_columns("s");
    forecast->set_time_steps(8);
    forecast->set_warmup_time_steps(2);
    forecast->set_carry_state(i == 5);
  }

  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].set_job_id(absl::StrCat("kind-", i));
    SCOPED_TRACE(requests[i].job().task().DebugString());
    const Job job = Run(requests[i]);
    const std::vector<v1::StepStats> history = ReadHistory(job.name(), manager_.get());
    const auto source = *data::NewSource(job, Content(job));
    Batch batch;
    for (const v1::StepStats& stats : history) {
      source->NextBatch(&batch);

      const v1::TrainingBatch shown = Get(job.name(), stats.step());

      EXPECT_EQ(shown.step(), stats.step());
      EXPECT_EQ(shown.batch_origin(), stats.batch_origin());
      EXPECT_FALSE(shown.spoilt());
      ExpectShows(batch, shown);
    }
    EXPECT_THAT(history, SizeIs(kSteps));
  }
}

TEST_F(JobBatchTest, ALanguageTaskShowsItsText) {
  UseEngine();
  const std::string text = Alphabet();
  ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT, "Ω" + text).ok());
  v1::CreateJobRequest request = TinyJob("a");
  request.mutable_job()->mutable_task()->mutable_language()->set_dataset("datasets/text");
  request.mutable_job()->mutable_task()->mutable_language()->set_time_steps(8);
  Run(request);

  const v1::TrainingBatch batch = Get("jobs/a", 2);

  const int64_t start = batch.examples(1).origin() - 1;  // The Ω in front.
  EXPECT_EQ(batch.examples(1).text(), text.substr(static_cast<size_t>(start), 8));
  EXPECT_EQ(batch.examples(1).target_text(), text.substr(static_cast<size_t>(start) + 1, 8));
  EXPECT_EQ(Get("jobs/a", 0).examples(0).text(), "Ωabcdefg");
  EXPECT_TRUE(batch.feature_names().empty());
}

TEST_F(JobBatchTest, NamesColumnsAndShowsWhichTimeStepsCount) {
  UseEngine();
  ASSERT_TRUE(UploadAll(&datasets_, "table", v1::Dataset::KIND_TABLE, Counting()).ok());
  v1::CreateJobRequest request = TinyJob("a");
  v1::ForecastTask* const forecast = request.mutable_job()->mutable_task()->mutable_forecast();
  forecast->set_dataset("datasets/table");
  forecast->add_target_columns("s");
  forecast->set_time_steps(4);
  forecast->set_warmup_time_steps(1);
  Run(request);

  const v1::TrainingBatch batch = Get("jobs/a", 0);

  ASSERT_THAT(batch.feature_names(), SizeIs(1));
  EXPECT_EQ(batch.feature_names(0), "s");
  ASSERT_THAT(batch.target_names(), SizeIs(1));
  EXPECT_EQ(batch.target_names(0), "s");
  EXPECT_THAT(batch.examples(0).weights(), testing::ElementsAre(0, 1, 1, 1));
}

// A ladder that leaves batches out, and batches that are spoilt by number, not by step.
v1::CreateJobRequest RolledBack(int64_t step_limit) {
  v1::CreateJobRequest request = TinyJob("a", step_limit);
  Job* const job = request.mutable_job();
  job->mutable_task()->mutable_adding()->set_time_steps(6);
  job->mutable_ladder()->set_skips_max(0);
  job->mutable_ladder()->set_rate_cuts_max(0);
  job->mutable_ladder()->set_rollbacks_max(10);
  job->mutable_ladder()->set_batches_skipped(3);
  job->mutable_ladder()->set_loss_factor(0);
  job->mutable_fault_injection()->set_first_batch(5);
  job->mutable_fault_injection()->set_batches(6);
  job->mutable_fault_injection()->set_not_a_number(true);
  return request;
}

TEST_F(JobBatchTest, FollowsTheBatchesThatRollBacksLeftOut) {
  UseEngine();
  const Job job = Run(RolledBack(kSteps));
  const std::vector<v1::StepStats> history = ReadHistory(job.name(), manager_.get());
  const auto source = *data::NewSource(job, nullptr);
  Batch batch;
  int spoilt = 0;

  for (const v1::StepStats& stats : history) {
    source->NextBatch(&batch);
    const v1::TrainingBatch shown = Get(job.name(), stats.step());
    ExpectShows(batch, shown);
    EXPECT_EQ(shown.batch_origin(), stats.batch_origin());
    EXPECT_EQ(shown.spoilt(), stats.skipped());
    spoilt += shown.spoilt() ? 1 : 0;
    for (const v1::Intervention& action : stats.interventions()) {
      ASSERT_EQ(action.kind(), v1::Intervention::KIND_ROLL_BACK);
      for (int i = 0; i < 3; ++i) source->NextBatch(&batch);
    }
  }

  EXPECT_EQ(spoilt, 2);  // Batches 5 and 9; the first roll back leaves out 6 to 8.
}

TEST_F(JobBatchTest, FindsTheBatchWhereTheRollBacksAreNoLongerKept) {
  UseEngine();
  const Job job = RunAndPause(RolledBack(kManySteps), kSteps);
  for (size_t i = 0; i <= InterventionLog::kKeptMax; ++i) {
    v1::UpdateJobRequest edit = UpdateOf("jobs/a", {"optimizer.learning_rate"});
    edit.mutable_job()->mutable_optimizer()->set_learning_rate(i % 2 == 0 ? 0.1 : 0.2);
    ASSERT_TRUE(manager().Update(edit).ok());
  }

  const auto source = *data::NewSource(job, nullptr);
  Batch batch;
  for (int64_t number = 0, step = 0; step < kSteps; ++number, ++step) {
    source->Seek(number);
    source->NextBatch(&batch);
    const v1::TrainingBatch shown = Get("jobs/a", step);
    ExpectShows(batch, shown);
    if (shown.spoilt()) number += 3;
  }
  ASSERT_TRUE(manager().Cancel("jobs/a").ok());
}

TEST_F(JobBatchTest, ShowsAsManyExamplesAsAreAskedFor) {
  UseEngine();
  v1::CreateJobRequest request = TinyJob("a", 3);
  request.mutable_job()->mutable_training()->set_batch_size(6);
  Run(request);

  EXPECT_EQ(Ask("jobs/a", 0, 2)->examples_size(), 2);
  EXPECT_EQ(Ask("jobs/a", 0, 0)->examples_size(), 4);
  EXPECT_EQ(Ask("jobs/a", 0, 2'000'000)->examples_size(), 6);
  EXPECT_EQ(Ask("jobs/a", 0, 2)->rows(), 6);
}

TEST_F(JobBatchTest, RefusesWithTheReason) {
  limits_.history_bytes_max = 4 << 10;
  UseEngine();
  Run(TinyJob("a", 100));

  const auto newer = Ask("jobs/a", 100), older = Ask("jobs/a", 0), nobody = Ask("jobs/b", 0);
  const auto negative = Ask("jobs/a", -1, -2);

  EXPECT_EQ(newer.status().code(), StatusCode::kOutOfRange);
  EXPECT_EQ(newer.status().message(), "step 100 of jobs/a is not recorded; the newest is step 99");
  EXPECT_EQ(older.status().code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(older.status().message()),
              HasSubstr("step 0 is no longer kept; the oldest kept step is "));
  EXPECT_EQ(nobody.status().code(), StatusCode::kNotFound);
  const auto violations = FieldViolationsOf(negative.status());
  ASSERT_THAT(violations, SizeIs(2));
  EXPECT_EQ(violations[0].field, "step");
  EXPECT_EQ(violations[1].field, "examples_max");
}

TEST_F(JobBatchTest, AJobWithoutStepsHasNoBatch) {
  script_->Allow(0);
  Create("a");

  const auto batch = Ask("jobs/a", 0);

  EXPECT_EQ(batch.status().code(), StatusCode::kOutOfRange);
  EXPECT_EQ(batch.status().message(), "step 0 of jobs/a is not recorded; no step is yet");
}

TEST_F(JobBatchTest, ARecordThatNoBatchFitsIsNotMadeUp) {
  script_->step_stats = [](v1::StepStats* stats) { stats->set_batch_origin(7); };
  Create("a", 3);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const auto batch = Ask("jobs/a", 0);

  EXPECT_EQ(batch.status().code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(batch.status().message()), HasSubstr("recorded origin 7"));
}

TEST_F(JobBatchTest, NeedsTheDataThatTheJobRead) {
  UseEngine();
  ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT, Alphabet()).ok());
  v1::CreateJobRequest request = TinyJob("a");
  request.mutable_job()->mutable_task()->mutable_language()->set_dataset("datasets/text");
  request.mutable_job()->mutable_task()->mutable_language()->set_time_steps(8);
  Run(request);
  const v1::TrainingBatch before = Get("jobs/a", 3);

  ASSERT_TRUE(datasets_.Delete("datasets/text").ok());
  const auto deleted = Ask("jobs/a", 3);
  ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT, Alphabet() + "!").ok());
  const auto replaced = Ask("jobs/a", 3);
  ASSERT_TRUE(datasets_.Delete("datasets/text").ok());
  ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT, Alphabet()).ok());

  EXPECT_EQ(deleted.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(deleted.status().message(),
            "jobs/a read datasets/text, which was deleted since; upload what it was under this "
            "name to see its batches");
  EXPECT_EQ(replaced.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(replaced.status().message()), HasSubstr("was replaced by other data"));
  EXPECT_EQ(Get("jobs/a", 3).SerializeAsString(), before.SerializeAsString());
}

TEST_F(JobBatchTest, TakesNoMemoryThatJobsHold) {
  v1::CreateJobRequest request = RequestOf("a", kManySteps);
  request.set_validate_only(true);
  const int64_t bytes = manager().Create(request)->memory_bytes();
  manager_.reset();
  limits_.total_bytes_max = bytes;
  UseEngine();
  request.set_validate_only(false);
  RunAndPause(request, 1);
  ASSERT_TRUE(Ask("jobs/a", 0).ok());  // A paused job holds none.
  ASSERT_TRUE(manager().Resume("jobs/a").ok());

  const auto batch = Ask("jobs/a", 0);

  EXPECT_EQ(batch.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(batch.status().message()), HasSubstr("the batch needs about "));
  ASSERT_TRUE(manager().Cancel("jobs/a").ok());
}

}  // namespace
}  // namespace gradwatch::jobs
