// Advice on the clip threshold, and shadow clips, of whole jobs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "proto/support/errors.h"
#include "tests/unit/jobs/job_testing.h"

namespace gradwatch::jobs {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class JobAdviceTest : public JobManagerTest {
 protected:
  // A job of `steps` steps with SGD; step k has the norm that `norm` gives, and each step `loss`,
  // unless that is 0.
  void RunJob(int64_t steps, std::function<double(int64_t)> norm, double loss = 0.0) {
    script_->step_stats = [norm, loss](v1::StepStats* stats) {
      stats->set_norm_before(norm(stats->step()));
      if (loss != 0.0) stats->set_loss(loss);
    };
    v1::CreateJobRequest request = RequestOf("x", steps);
    request.mutable_job()->mutable_optimizer()->mutable_sgd();
    ASSERT_TRUE(manager().Create(request).ok());
    AwaitState("jobs/x", v1::Job::STATE_SUCCEEDED);
  }

  v1::GetClipAdviceRequest Request() {
    v1::GetClipAdviceRequest request;
    request.set_name("jobs/x");
    return request;
  }
  v1::ClipAdvice Advice(const v1::GetClipAdviceRequest& request) {
    const auto advice = manager().GetClipAdvice(request);
    EXPECT_TRUE(advice.ok()) << advice.status();
    return advice.ok() ? *advice : v1::ClipAdvice();
  }
};

TEST_F(JobAdviceTest, ComesFromTheNewestStepsBesideAllThatAreKept) {
  RunJob(2000, [](int64_t step) { return step < 1000 ? 100.0 : 0.6; });

  const v1::ClipAdvice advice = Advice(Request());

  EXPECT_EQ(advice.job(), "jobs/x");
  EXPECT_EQ(advice.window().first_step(), 1500);
  EXPECT_EQ(advice.window().last_step(), 1999);
  EXPECT_EQ(advice.window().steps(), 500);
  EXPECT_EQ(advice.kept().steps(), 2000);
  EXPECT_EQ(advice.kept().maximum(), 100.0);
  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
  EXPECT_EQ(advice.recommended().max_norm(), 0.5);
  EXPECT_EQ(advice.current().max_norm(), 1.0) << "the default policy";
}

TEST_F(JobAdviceTest, CountsOnlyFiniteStepsOfTheWindow) {
  RunJob(300, [](int64_t step) {
    return step % 3 == 0 ? std::numeric_limits<double>::infinity() : 2.0;
  });
  v1::GetClipAdviceRequest request = Request();
  request.set_steps(100);

  const v1::ClipAdvice advice = Advice(request);

  EXPECT_EQ(advice.window().steps(), 100);
  EXPECT_EQ(advice.window().nonfinite_steps(), 49) << "those between the 100";
  EXPECT_EQ(advice.window().first_step(), 151);
  EXPECT_EQ(advice.kept().steps(), 200);
  EXPECT_EQ(advice.kept().nonfinite_steps(), 100);
}

TEST_F(JobAdviceTest, HearsOfExplosionsFromAlertsWithinTheWindow) {
  RunJob(600, [](int64_t step) { return step == 550 ? 5e3 : 2.0; });

  const v1::ClipAdvice advice = Advice(Request());

  EXPECT_GE(advice.explosion_alerts(), 1);
  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_EXPLODING);
  EXPECT_EQ(advice.recommended().max_norm(), 1.0);
}

TEST_F(JobAdviceTest, ASingleSpikeIsNoExplosion) {
  RunJob(
      400, [](int64_t step) { return step == 350 ? 500.0 : 2.0; }, /*loss=*/1.0);

  const v1::ClipAdvice advice = Advice(Request());

  v1::ListAlertsRequest request;
  request.set_parent("jobs/x");
  const auto alerts = manager().ListAlerts(request);
  ASSERT_TRUE(alerts.ok()) << alerts.status();
  ASSERT_EQ(alerts->alerts_size(), 1);
  EXPECT_TRUE(alerts->alerts(0).single_event());
  EXPECT_EQ(advice.explosion_alerts(), 0);
  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
}

TEST_F(JobAdviceTest, SeesALossThatStandsStillToTheEnd) {
  RunJob(
      800, [](int64_t) { return 2.0; }, /*loss=*/1.0);

  const v1::ClipAdvice advice = Advice(Request());

  EXPECT_EQ(advice.recommended().max_norm(), 0.5);
  EXPECT_THAT(advice.reason(), HasSubstr("stands still"));
}

TEST_F(JobAdviceTest, ForgetsExplosionsThatAreOverBeforeTheWindow) {
  RunJob(3000, [](int64_t step) { return step == 10 ? 5e3 : 2.0; });

  const v1::ClipAdvice advice = Advice(Request());

  EXPECT_EQ(advice.explosion_alerts(), 0);
  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
}

TEST_F(JobAdviceTest, AThresholdForEntriesComesFromRecordedHistograms) {
  script_->step_stats = [](v1::StepStats* stats) {
    v1::TensorStats* tensor = stats->add_tensors();
    tensor->set_magnitude_first_bin(4 * 30 + 1);
    for (const uint32_t count : {0, 1000, 0}) tensor->add_magnitude_counts(count);
  };
  v1::CreateJobRequest request = RequestOf("x", 200);
  request.mutable_job()->set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  ASSERT_TRUE(manager().Create(request).ok());
  AwaitState("jobs/x", v1::Job::STATE_SUCCEEDED);

  EXPECT_EQ(Advice(Request()).value_threshold(), 1.75 / 1024) << "the end of [1.5, 1.75) / 1024";
}

TEST_F(JobAdviceTest, AJobThatHasNotRunGetsTheStartValues) {
  script_->Allow(0);
  Create("x", 10);
  script_->AwaitBlocked();

  const v1::ClipAdvice advice = Advice(Request());

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_NO_DATA);
  EXPECT_FALSE(advice.has_window());
  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("only 0 steps")));
}

TEST_F(JobAdviceTest, NamesEveryBadField) {
  Create("x", 10);
  v1::GetClipAdviceRequest request = Request();
  request.set_steps(99);
  request.add_thresholds(1.0);
  request.add_thresholds(0.0);
  request.add_thresholds(std::numeric_limits<double>::quiet_NaN());

  const absl::Status status = manager().GetClipAdvice(request).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const auto violations = FieldViolationsOf(status);
  ASSERT_EQ(violations.size(), 3u);
  EXPECT_EQ(violations[0].field, "steps");
  EXPECT_EQ(violations[1].field, "thresholds[1]");
  EXPECT_EQ(violations[2].field, "thresholds[2]");
  request = Request();
  request.set_name("jobs/nobody");
  EXPECT_EQ(manager().GetClipAdvice(request).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobAdviceTest, SumsUpShadowClipsOverTheJobAndOverTheWindow) {
  script_->step_stats = [](v1::StepStats* stats) {
    const bool clipped = stats->step() >= 900;
    v1::ShadowReport* norm = stats->add_shadow_reports();
    norm->set_clipped(clipped);
    norm->set_coefficient(clipped ? 0.5 : 1.0);
    stats->add_shadow_reports()->set_clipped(true);
  };
  v1::CreateJobRequest request = RequestOf("x", 1000);
  request.mutable_job()->add_shadow_clips()->mutable_global_norm()->set_max_norm(0.5);
  request.mutable_job()->add_shadow_clips()->mutable_value()->set_maximum(0.1);
  ASSERT_TRUE(manager().Create(request).ok());

  const v1::Job job = AwaitState("jobs/x", v1::Job::STATE_SUCCEEDED);
  const v1::ClipAdvice advice = Advice(Request());

  ASSERT_EQ(job.shadow_summaries_size(), 2);
  EXPECT_DOUBLE_EQ(job.shadow_summaries(0).clip_rate(), 0.1);
  EXPECT_DOUBLE_EQ(job.shadow_summaries(0).mean_coefficient(), 0.95);
  EXPECT_DOUBLE_EQ(job.shadow_summaries(1).clip_rate(), 1.0);
  EXPECT_FALSE(job.shadow_summaries(1).has_mean_coefficient());
  ASSERT_EQ(advice.shadows_size(), 2);
  EXPECT_DOUBLE_EQ(advice.shadows(0).clip_rate(), 0.2);
  EXPECT_DOUBLE_EQ(advice.shadows(0).mean_coefficient(), 0.9);
}

TEST_F(JobAdviceTest, ShadowClipsBelongToTheRequestThatMustMatch) {
  v1::CreateJobRequest request = RequestOf("x", 10);
  request.set_request_id("once");
  request.mutable_job()->add_shadow_clips()->mutable_global_norm()->set_max_norm(0.5);
  ASSERT_TRUE(manager().Create(request).ok());
  request.mutable_job()->mutable_shadow_clips(0)->mutable_global_norm()->set_max_norm(0.25);

  const absl::Status status = manager().Create(request).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("shadow_clips"));
}

}  // namespace
}  // namespace gradwatch::jobs
