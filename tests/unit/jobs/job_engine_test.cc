#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/jobs/dataset_testing.h"
#include "tests/unit/jobs/job_testing.h"

// The manager with the real trainer: small jobs.

namespace gradwatch::jobs {
namespace {

using v1::Job;

// The bits of everything that a step says about numbers.
struct StepBits {
  int64_t step;
  uint64_t loss, norm_before, norm_after, growth;

  bool operator==(const StepBits&) const = default;
};

uint64_t Bits(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

v1::CreateJobRequest SmallJob(absl::string_view id, int64_t step_limit) {
  v1::CreateJobRequest request = RequestOf(id, step_limit);
  Job* job = request.mutable_job();
  job->set_seed(7);
  job->mutable_model()->set_hidden_units(12);
  job->mutable_training()->set_batch_size(4);
  job->mutable_task()->mutable_adding()->set_time_steps(20);
  job->mutable_evaluation()->set_every_steps(25);
  job->mutable_evaluation()->set_examples(16);
  return request;
}

class JobEngineTest : public testing::Test {
 protected:
  JobEngineTest() {
    limits_.running_max = 1;
    limits_.step_boundary_wait = absl::Seconds(60);
    manager_ = std::make_unique<JobManager>(limits_, &datasets_, &clock_);
  }

  Job AwaitFinal(absl::string_view name) {
    Bell bell;
    const auto reader = manager_->OpenJob(name, bell.Ringer());
    Job job;
    while (job.state() != Job::STATE_SUCCEEDED && job.state() != Job::STATE_FAILED) {
      const auto changed = (*reader)->Read(&job);
      EXPECT_TRUE(changed.ok()) << changed.status();
      if (!changed.ok()) break;
      if (!*changed) bell.Await();
    }
    return job;
  }

  // Returns when a step was recorded since the call, or the job has ended.
  void AwaitStep(absl::string_view name) {
    Bell bell;
    v1::StreamStatsRequest request;
    request.set_name(std::string(name));
    const auto reader = manager_->OpenStats(request, bell.Ringer());
    ASSERT_TRUE(reader.ok()) << reader.status();
    JobManager::StatsPortion portion;
    while (!*(*reader)->Read(&portion)) bell.Await();
  }

  std::vector<StepBits> ReadBits(absl::string_view name) {
    std::vector<StepBits> bits;
    for (const v1::StepStats& stats : ReadHistory(name, manager_.get())) {
      bits.push_back({stats.step(), Bits(stats.loss()), Bits(stats.norm_before()),
                      Bits(stats.norm_after()), Bits(stats.growth().growth_factor())});
    }
    return bits;
  }

  // Runs the job to its end; the alert that the rule raised.
  v1::Alert AlertOf(const v1::CreateJobRequest& request, v1::RuleId rule) {
    EXPECT_TRUE(manager_->Create(request).ok());
    const Job end = AwaitFinal("jobs/" + request.job_id());
    EXPECT_EQ(end.state(), Job::STATE_SUCCEEDED);
    v1::ListAlertsRequest list;
    list.set_parent(end.name());
    const auto alerts = manager_->ListAlerts(list);
    EXPECT_TRUE(alerts.ok()) << alerts.status();
    for (const v1::Alert& alert : alerts->alerts()) {
      if (alert.rule() == rule) return alert;
    }
    ADD_FAILURE() << "no such alert: " << alerts->DebugString();
    return v1::Alert();
  }

  FakeClock clock_;
  DatasetStore datasets_{DatasetLimits(), &clock_};
  JobLimits limits_;
  std::unique_ptr<JobManager> manager_;
};

TEST_F(JobEngineTest, BitsDoNotDependOnSubscribers) {
  constexpr int64_t kSteps = 150;
  ASSERT_TRUE(manager_->Create(SmallJob("alone", kSteps)).ok());
  AwaitFinal("jobs/alone");
  const std::vector<StepBits> alone = ReadBits("jobs/alone");

  ASSERT_TRUE(manager_->Create(SmallJob("watched", kSteps)).ok());
  std::vector<std::vector<StepBits>> seen(20);
  std::vector<std::thread> readers;
  for (auto& bits : seen) {
    readers.emplace_back([this, &bits] { bits = ReadBits("jobs/watched"); });
  }
  for (auto& reader : readers) reader.join();

  ASSERT_EQ(alone.size(), static_cast<size_t>(kSteps));
  for (const auto& bits : seen) EXPECT_EQ(bits, alone);
}

TEST_F(JobEngineTest, BitsDoNotDependOnPauses) {
  constexpr int64_t kSteps = 400;
  ASSERT_TRUE(manager_->Create(SmallJob("straight", kSteps)).ok());
  AwaitFinal("jobs/straight");
  ASSERT_TRUE(manager_->Create(SmallJob("paused", kSteps)).ok());

  int pauses = 0;
  while (pauses < 8) {
    const auto paused = manager_->Pause("jobs/paused");
    if (!paused.ok()) break;  // It has ended.
    ++pauses;
    ASSERT_TRUE(manager_->GetWeights("jobs/paused").ok() || paused->effective_step() == 0);
    ASSERT_TRUE(manager_->Resume("jobs/paused").ok());
    // At least a step between two pauses.
    AwaitStep("jobs/paused");
  }
  const Job job = AwaitFinal("jobs/paused");

  EXPECT_GE(pauses, 1);
  EXPECT_EQ(job.state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(ReadBits("jobs/paused"), ReadBits("jobs/straight"));
  const auto a = manager_->GetWeights("jobs/paused"), b = manager_->GetWeights("jobs/straight");
  EXPECT_EQ(a->checkpoint->weights(), b->checkpoint->weights());
  EXPECT_EQ(job.best_evaluation().loss(), manager_->Get("jobs/straight")->best_evaluation().loss());
}

TEST_F(JobEngineTest, ClippingOfAPausedJobMayBeChangedFromTheGroundUp) {
  ASSERT_TRUE(manager_->Create(SmallJob("a", 2000)).ok());
  AwaitStep("jobs/a");
  const auto paused = manager_->Pause("jobs/a");
  ASSERT_TRUE(paused.ok()) << paused.status();
  auto update = UpdateOf("jobs/a", {"clipping"});
  update.mutable_job()->mutable_clipping()->add_policies()->mutable_value()->set_maximum(1e-3);
  update.mutable_job()->mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(
      1e-3);

  const auto updated = manager_->Update(update);
  ASSERT_TRUE(updated.ok()) << updated.status();
  ASSERT_TRUE(manager_->Resume("jobs/a").ok());

  EXPECT_EQ(AwaitFinal("jobs/a").state(), Job::STATE_SUCCEEDED);
  v1::StreamStatsRequest request;
  request.set_name("jobs/a");
  request.set_from_step(updated->effective_step());
  const auto reader = manager_->OpenStats(request, [] {});
  JobManager::StatsPortion portion;
  ASSERT_TRUE(*(*reader)->Read(&portion));
  v1::StepStats stats;
  ASSERT_TRUE(ParseScalars(*portion.steps.front(), &stats));
  EXPECT_EQ(stats.clip_reports_size(), 2);
  // Two roundings of a float32 gradient scaled onto the threshold.
  EXPECT_LE(stats.norm_after(), 1e-3 * (1 + 1e-5));
}

TEST_F(JobEngineTest, AnExplodingJobFailsAndSaysWhere) {
  v1::CreateJobRequest request = SmallJob("boom", 5000);
  Job* job = request.mutable_job();
  job->mutable_clipping();
  job->mutable_model()->set_cell(v1::Model::CELL_RNN_RELU);
  job->mutable_model()->mutable_initialization()->mutable_recurrent_weights()->set_identity_scale(
      8.0);
  job->mutable_optimizer()->mutable_sgd();
  job->mutable_optimizer()->set_learning_rate(1000.0);
  job->mutable_task()->mutable_adding()->set_time_steps(200);
  ASSERT_TRUE(manager_->Create(request).ok());

  const Job end = AwaitFinal("jobs/boom");

  EXPECT_EQ(end.state(), Job::STATE_FAILED);
  EXPECT_EQ(end.failure().reason(), v1::Failure::REASON_NON_FINITE);
  EXPECT_GT(end.nonfinite_steps(), 0);
  EXPECT_GT(end.alerts_firing(), 0);
}

// The three ways to see trouble, each through the whole server: the alert that a user would read.

TEST_F(JobEngineTest, AGradientOverItsThresholdIsAnnounced) {
  v1::CreateJobRequest request = SmallJob("over", 30);
  v1::RuleSettings* rule = request.mutable_job()->add_rules();
  rule->set_id(v1::RULE_ID_EXPLODING_ABS);
  rule->set_threshold(1e-3);  // Any gradient of a job that learns is larger.

  const v1::Alert alert = AlertOf(request, v1::RULE_ID_EXPLODING_ABS);

  EXPECT_EQ(alert.firing_step(), 0);
  EXPECT_EQ(alert.threshold(), 1e-3);
  EXPECT_GT(alert.peak_value(), 1e-3);
}

TEST_F(JobEngineTest, HiddenStatesThatSurgeAreAnnounced) {
  // ReLU over 1.1 times the identity: h grows by a tenth at each of 50 time steps.
  v1::CreateJobRequest request = SmallJob("surge", 8);
  Job* job = request.mutable_job();
  job->set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  job->mutable_task()->mutable_adding()->set_time_steps(50);
  job->mutable_model()->set_cell(v1::Model::CELL_RNN_RELU);
  job->mutable_model()->mutable_initialization()->mutable_recurrent_weights()->set_identity_scale(
      1.1);
  job->mutable_optimizer()->set_learning_rate(1e-6);

  const v1::Alert alert = AlertOf(request, v1::RULE_ID_HIDDEN_GROWTH);

  EXPECT_EQ(alert.tensor(), "h_l0");
  EXPECT_NEAR(alert.peak_value(), std::log(1.1), 0.02);  // The slope of ln RMS.
}

TEST_F(JobEngineTest, ASignalThatVanishesWithTheLagIsAnnounced) {
  v1::CreateJobRequest request = SmallJob("vanish", 150);
  Job* job = request.mutable_job();
  job->mutable_task()->mutable_adding()->set_time_steps(50);
  job->mutable_model()->set_cell(v1::Model::CELL_RNN_TANH);
  v1::Initialization* init = job->mutable_model()->mutable_initialization();
  init->mutable_recurrent_weights()->set_orthogonal_gain(0.5);
  job->mutable_optimizer()->mutable_sgd();
  job->mutable_optimizer()->set_learning_rate(0.01);

  const v1::Alert alert = AlertOf(request, v1::RULE_ID_VANISHING_THROUGH_TIME);

  // At most half is left at each of 50 time steps: 15 decades.
  EXPECT_LT(alert.peak_value(), -15.0);
}

TEST_F(JobEngineTest, ALanguageJobTrainsAndSpeaks) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "the quick brown fox\n";
  ASSERT_TRUE(UploadAll(&datasets_, "fox", v1::Dataset::KIND_TEXT, text).ok());
  v1::CreateJobRequest request = SmallJob("lm", 30);
  request.mutable_job()->mutable_task()->mutable_language()->set_dataset("datasets/fox");
  request.mutable_job()->mutable_task()->mutable_language()->set_time_steps(20);
  const auto created = manager_->Create(request);
  ASSERT_TRUE(created.ok()) << created.status();
  ASSERT_EQ(AwaitFinal("jobs/lm").state(), Job::STATE_SUCCEEDED);
  v1::GenerateRequest generate;
  generate.set_name("jobs/lm");
  generate.set_prompt("the ");
  generate.set_characters(40);

  const auto first = manager_->Generate(generate), second = manager_->Generate(generate);

  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->text().size(), 40u);
  EXPECT_EQ(first->text(), second->text());
  EXPECT_EQ(first->step(), 30);
  generate.set_prompt("Ω");
  EXPECT_EQ(manager_->Generate(generate).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobEngineTest, GradientsOfASmallJobPassTheCheck) {
  v1::CheckGradientsRequest request;
  *request.mutable_job() = SmallJob("", 10).job();
  request.set_entries_per_tensor(3);

  const auto checked = manager_->CheckGradients(request);

  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_TRUE(checked->passed());
  EXPECT_GE(checked->entries(), 3 * 6 - 2);
  EXPECT_EQ(manager_->List({})->jobs_size(), 0);
}

}  // namespace
}  // namespace gradwatch::jobs
