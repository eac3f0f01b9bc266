#include "server/jobs/job_manager.h"

#include <limits>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/version.h"
#include "server/jobs/names.h"
#include "tests/unit/jobs/dataset_testing.h"
#include "tests/unit/jobs/job_testing.h"

namespace gradwatch::jobs {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const auto& violation : FieldViolationsOf(status)) fields.push_back(violation.field);
  return fields;
}

void MakeNonFinite(v1::StepStats* stats) {
  stats->set_loss(std::numeric_limits<double>::quiet_NaN());
  stats->set_norm_before(std::numeric_limits<double>::infinity());
  stats->clear_norm_after();
  stats->set_nonfinite_count(7);
  stats->mutable_nonfinite_origin()->set_tensor("h");
  stats->mutable_nonfinite_origin()->set_layer(0);
  stats->mutable_nonfinite_origin()->set_time_step(17);
}

// --- Creation.

TEST_F(JobManagerTest, CreatesWithEveryDefaultFilledIn) {
  const auto job = manager().Create({});

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(IsId(job->name().substr(5))) << job->name();
  EXPECT_EQ(job->model().hidden_units(), 128);
  EXPECT_EQ(job->training().step_limit(), 2000);
  EXPECT_EQ(job->task().adding().time_steps(), 50);
  EXPECT_EQ(job->clipping().policies(0).global_norm().max_norm(), 1.0);
  EXPECT_TRUE(job->has_seed());
  EXPECT_FALSE(job->uid().empty());
  EXPECT_THAT(job->server_build(),
              testing::AllOf(testing::StartsWith(Version()), HasSubstr("engine ")));
  EXPECT_FALSE(job->etag().empty());
  EXPECT_GT(job->memory_bytes(), 0);
  EXPECT_EQ(job->create_time().seconds(), 1'700'000'000);
}

TEST_F(JobManagerTest, RunsToItsStepLimit) {
  Create("a", 10);

  const Job job = AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  EXPECT_EQ(job.step(), 10);
  EXPECT_EQ(job.updates_applied(), 10);
  EXPECT_EQ(job.latest_stats().step(), 9);
  EXPECT_EQ(job.latest_evaluation().step(), 10);
  EXPECT_EQ(job.best_evaluation().loss(), 0.5);
  EXPECT_EQ(job.parameters_size(), 1);
  EXPECT_TRUE(job.has_start_time());
  EXPECT_TRUE(job.has_end_time());
  EXPECT_FALSE(job.has_failure());
  EXPECT_EQ(script_->trainers_alive(), 0);
}

TEST_F(JobManagerTest, IgnoresOutputOnlyFields) {
  v1::CreateJobRequest request = RequestOf("a", kManySteps);
  request.mutable_job()->set_state(Job::STATE_FAILED);
  request.mutable_job()->set_step(99);
  request.mutable_job()->mutable_failure()->set_message("x");
  script_->Allow(0);

  const auto job = manager().Create(request);

  ASSERT_TRUE(job.ok());
  EXPECT_NE(job->state(), Job::STATE_FAILED);
  EXPECT_EQ(job->step(), 0);
  EXPECT_FALSE(job->has_failure());
}

TEST_F(JobManagerTest, SeedComesFromTheIdUnlessItIsGiven) {
  script_->Allow(0);
  const Job a = Create("a"), b = Create("b");
  v1::CreateJobRequest seeded = RequestOf("c");
  seeded.mutable_job()->set_seed(0);
  const auto c = manager().Create(seeded);

  EXPECT_NE(a.seed(), b.seed());
  EXPECT_EQ(c->seed(), 0u);
  ASSERT_TRUE(manager()
                  .Delete([] {
                    v1::DeleteJobRequest request;
                    request.set_name("jobs/b");
                    request.set_force(true);
                    return request;
                  }())
                  .ok());
  EXPECT_EQ(Create("b").seed(), b.seed());
}

TEST_F(JobManagerTest, ValidateOnlyCreatesNothing) {
  v1::CreateJobRequest request = RequestOf("a");
  request.set_validate_only(true);

  const auto job = manager().Create(request);

  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->name(), "jobs/a");
  EXPECT_EQ(job->model().hidden_units(), 128);
  EXPECT_GT(job->memory_bytes(), 0);
  EXPECT_EQ(manager().Get("jobs/a").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(manager().List({})->jobs_size(), 0);
}

TEST_F(JobManagerTest, RefusesAnIdThatIsTaken) {
  Create("a");

  const auto again = manager().Create(RequestOf("a"));

  EXPECT_EQ(again.status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(again.status()), "JOB_EXISTS");
}

TEST_F(JobManagerTest, TheSameRequestGivesTheSameJob) {
  v1::CreateJobRequest request = RequestOf("");
  request.set_request_id("once");
  (*request.mutable_job()->mutable_labels())["b"] = "2";
  (*request.mutable_job()->mutable_labels())["a"] = "1";

  const auto first = manager().Create(request);
  const auto second = manager().Create(request);

  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->uid(), second->uid());
  EXPECT_EQ(manager().List({})->jobs_size(), 1);
}

TEST_F(JobManagerTest, TheSameRequestIdWithAnotherBodySaysWhatDiffers) {
  v1::CreateJobRequest request = RequestOf("a");
  request.set_request_id("once");
  ASSERT_TRUE(manager().Create(request).ok());
  request.mutable_job()->mutable_model()->set_hidden_units(64);
  request.mutable_job()->set_display_name("other");

  const auto other = manager().Create(request);

  EXPECT_EQ(other.status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(other.status()), "REQUEST_ID_REUSED");
  EXPECT_THAT(Message(other.status()), HasSubstr("job.display_name, job.model"));
  EXPECT_EQ(manager().List({})->jobs_size(), 1);
}

TEST_F(JobManagerTest, ARequestIdIsForgottenWithItsJob) {
  v1::CreateJobRequest request = RequestOf("a");
  request.set_request_id("once");
  const auto first = manager().Create(request);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  v1::DeleteJobRequest deletion;
  deletion.set_name("jobs/a");
  ASSERT_TRUE(manager().Delete(deletion).ok());

  const auto second = manager().Create(request);

  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(first->uid(), second->uid());
}

// --- Queue and admission.

TEST_F(JobManagerTest, RunsFirstInFirstOutAndSaysThePlaceInTheQueue) {
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");
  Create("c");

  EXPECT_EQ(manager().Get("jobs/a")->queue_position(), 0);
  EXPECT_EQ(manager().Get("jobs/b")->queue_position(), 1);
  EXPECT_EQ(manager().Get("jobs/c")->queue_position(), 2);
  script_->AllowAll();
  AwaitState("jobs/c", Job::STATE_SUCCEEDED);
  EXPECT_EQ(manager().Get("jobs/b")->state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(script_->most_alive(), 1);
}

TEST_F(JobManagerTest, BoundsTheQueue) {
  limits_.queued_max = 1;
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");

  const auto refused = manager().Create(RequestOf("c"));

  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused.status()), "QUEUE_FULL");
  EXPECT_TRUE(refused.status().GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  EXPECT_EQ(manager().Get("jobs/c").status().code(), StatusCode::kNotFound);
}

TEST_F(JobManagerTest, BoundsTheMemoryOfRunningAndQueuedJobsQuotingBothFigures) {
  v1::CreateJobRequest probe = RequestOf("probe");
  probe.set_validate_only(true);
  const int64_t one =
      JobManager(limits_, &datasets_, &clock_, FakeTrainers(script_)).Create(probe)->memory_bytes();
  limits_.total_bytes_max = one + one / 2;
  script_->Allow(0);
  Create("a");

  const auto refused = manager().Create(RequestOf("b"));

  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused.status()), "MEMORY_EXHAUSTED");
  EXPECT_THAT(Message(refused.status()), HasSubstr(absl::StrCat(one)));
  EXPECT_THAT(Message(refused.status()), HasSubstr(absl::StrCat(limits_.total_bytes_max)));
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  EXPECT_TRUE(manager().Create(RequestOf("b")).ok());
}

TEST_F(JobManagerTest, AJobOverItsOwnLimitIsABadRequest) {
  limits_.job_bytes_max = 1000;

  const auto refused = manager().Create(RequestOf("a"));

  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldsOf(refused.status()), ElementsAre("model"));
  EXPECT_THAT(Message(refused.status()), HasSubstr("1000"));
}

TEST_F(JobManagerTest, TheOldestFinalJobMakesRoom) {
  limits_.kept_max = 2;
  Create("a");
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  Create("b");
  AwaitState("jobs/b", Job::STATE_SUCCEEDED);

  Create("c");

  EXPECT_EQ(manager().Get("jobs/a").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(manager().Get("jobs/b").ok());
  EXPECT_TRUE(manager().Get("jobs/c").ok());
}

TEST_F(JobManagerTest, WithoutAFinalJobThereIsNoRoom) {
  limits_.kept_max = 1;
  script_->Allow(0);
  Create("a");

  const auto refused = manager().Create(RequestOf("b"));

  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused.status()), "TOO_MANY_JOBS");
}

TEST_F(JobManagerTest, BoundsTheBytesOfJobsThatDoNotTrain) {
  limits_.kept_bytes_max = 1;
  Create("a");
  Create("b");

  // Each goes when it ends.
  while (manager().List({})->jobs_size() > 0) std::this_thread::yield();

  EXPECT_EQ(manager().Get("jobs/a").status().code(), StatusCode::kNotFound);
}

// --- Pause and resume.

TEST_F(JobManagerTest, PauseStopsAtTheNextStepBoundaryAndFreesTheWorker) {
  script_->Allow(3);
  Create("a", 10);
  script_->AwaitBlocked();
  std::thread gate([this] {
    AwaitState("jobs/a", Job::STATE_PAUSING);
    script_->Allow(1);
  });

  const auto paused = manager().Pause("jobs/a");
  gate.join();

  ASSERT_TRUE(paused.ok()) << paused.status();
  EXPECT_EQ(paused->job().state(), Job::STATE_PAUSED);
  EXPECT_EQ(paused->effective_step(), 4);
  EXPECT_EQ(paused->job().step(), 4);
  EXPECT_EQ(script_->trainers_alive(), 0);
  script_->AllowAll();
  Create("b");
  AwaitState("jobs/b", Job::STATE_SUCCEEDED);
}

TEST_F(JobManagerTest, ResumeContinuesFromTheCheckpointWithoutGapOrRepeat) {
  script_->Allow(3);
  Create("a", 10);
  script_->AwaitBlocked();
  std::thread gate([this] {
    AwaitState("jobs/a", Job::STATE_PAUSING);
    script_->Allow(1);
  });
  ASSERT_TRUE(manager().Pause("jobs/a").ok());
  gate.join();
  script_->AllowAll();

  const auto resumed = manager().Resume("jobs/a");

  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->effective_step(), 4);
  EXPECT_EQ(AwaitState("jobs/a", Job::STATE_SUCCEEDED).step(), 10);
  EXPECT_EQ(script_->built(), 1);
  EXPECT_EQ(script_->restored(), 1);
  v1::StreamStatsRequest request;
  request.set_name("jobs/a");
  request.set_from_step(0);
  EXPECT_THAT(ReadAll(request).steps, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(JobManagerTest, PauseAndResumeHaveNoEffectWhereTheyAreInEffect) {
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");

  EXPECT_EQ(manager().Resume("jobs/a")->job().state(), Job::STATE_RUNNING);
  EXPECT_EQ(manager().Resume("jobs/b")->job().state(), Job::STATE_QUEUED);
  EXPECT_EQ(manager().Pause("jobs/b")->job().state(), Job::STATE_PAUSED);
  const auto again = manager().Pause("jobs/b");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->job().state(), Job::STATE_PAUSED);
  EXPECT_EQ(again->effective_step(), 0);
  EXPECT_EQ(manager().Resume("jobs/b")->job().state(), Job::STATE_QUEUED);
}

TEST_F(JobManagerTest, PauseThatTakesTooLongAnswersPausingAndHappensAnyway) {
  limits_.step_boundary_wait = absl::ZeroDuration();
  script_->Allow(0);
  Create("a", 10);
  script_->AwaitBlocked();

  const auto pausing = manager().Pause("jobs/a");
  const auto again = manager().Pause("jobs/a");

  ASSERT_TRUE(pausing.ok());
  EXPECT_EQ(pausing->job().state(), Job::STATE_PAUSING);
  EXPECT_EQ(again->job().state(), Job::STATE_PAUSING);
  script_->AllowAll();
  EXPECT_EQ(AwaitState("jobs/a", Job::STATE_PAUSED).step(), 1);
}

TEST_F(JobManagerTest, ResumeTakesBackAPauseThatHasNotHappened) {
  script_->Allow(0);
  Create("a", 10);
  script_->AwaitBlocked();
  absl::Status paused;
  std::thread pausing([this, &paused] { paused = manager().Pause("jobs/a").status(); });
  AwaitState("jobs/a", Job::STATE_PAUSING);

  const auto resumed = manager().Resume("jobs/a");
  pausing.join();

  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->job().state(), Job::STATE_RUNNING);
  EXPECT_EQ(paused.code(), StatusCode::kAborted);
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  EXPECT_EQ(script_->restored(), 0);
}

TEST_F(JobManagerTest, ResumeIsAdmittedLikeANewJob) {
  limits_.queued_max = 1;
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");
  ASSERT_TRUE(manager().Pause("jobs/b").ok());
  Create("c");

  const auto refused = manager().Resume("jobs/b");

  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(manager().Get("jobs/b")->state(), Job::STATE_PAUSED);
}

// --- Cancel.

TEST_F(JobManagerTest, CancelEndsAtTheNextStepBoundary) {
  script_->Allow(2);
  Create("a", 10);
  script_->AwaitBlocked();
  std::thread gate([this] {
    AwaitState("jobs/a", Job::STATE_CANCELLING);
    script_->Allow(1);
  });

  const auto cancelled = manager().Cancel("jobs/a");
  gate.join();

  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_EQ(cancelled->job().state(), Job::STATE_CANCELLED);
  EXPECT_EQ(cancelled->effective_step(), 3);
  EXPECT_TRUE(cancelled->job().has_end_time());
  const auto again = manager().Cancel("jobs/a");
  EXPECT_TRUE(again.ok());
  EXPECT_EQ(again->effective_step(), 3);
}

TEST_F(JobManagerTest, CancelEndsQueuedAndPausedJobsAtOnce) {
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");
  Create("c");
  ASSERT_TRUE(manager().Pause("jobs/c").ok());

  EXPECT_EQ(manager().Cancel("jobs/b")->job().state(), Job::STATE_CANCELLED);
  EXPECT_EQ(manager().Cancel("jobs/c")->job().state(), Job::STATE_CANCELLED);
  EXPECT_EQ(manager().Get("jobs/b")->queue_position(), 0);
}

TEST_F(JobManagerTest, CancelWinsOverAPauseThatWaits) {
  limits_.step_boundary_wait = absl::ZeroDuration();
  script_->Allow(0);
  Create("a", 10);
  script_->AwaitBlocked();
  ASSERT_EQ(manager().Pause("jobs/a")->job().state(), Job::STATE_PAUSING);

  EXPECT_EQ(manager().Cancel("jobs/a")->job().state(), Job::STATE_CANCELLING);

  script_->AllowAll();
  EXPECT_EQ(AwaitState("jobs/a", Job::STATE_CANCELLED).step(), 1);
}

TEST_F(JobManagerTest, ControlOfAFinalJobIsAConflictThatNamesTheState) {
  Create("a");
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  for (const absl::Status& status :
       {manager().Pause("jobs/a").status(), manager().Resume("jobs/a").status(),
        manager().Cancel("jobs/a").status(),
        manager()
            .Update([] {
              auto update = UpdateOf("jobs/a", {"display_name"});
              update.mutable_job()->set_display_name("x");
              return update;
            }())
            .status()}) {
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ReasonOf(status), "JOB_STATE_CONFLICT");
    EXPECT_THAT(Message(status), HasSubstr("SUCCEEDED"));
  }
}

TEST_F(JobManagerTest, UnknownAndMalformedNames) {
  for (const char* name : {"jobs/none"}) {
    EXPECT_EQ(manager().Get(name).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(manager().Pause(name).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(manager().Resume(name).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(manager().Cancel(name).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(manager().GetWeights(name).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(manager().OpenJob(name, [] {}).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(manager().OpenAlerts(name, [] {}).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(ReasonOf(manager().Get(name).status()), "JOB_NOT_FOUND");
  }
  for (const char* name : {"", "none", "jobs/", "jobs/../x", "jobs/a/b", "jobs/A", "datasets/a"}) {
    EXPECT_EQ(manager().Get(name).status().code(), StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(FieldsOf(manager().Get(name).status()), ElementsAre("name"));
  }
}

// --- Failure.

TEST_F(JobManagerTest, FailsAfterTooManyNonFiniteStepsNamingTheOrigin) {
  script_->step_stats = [](v1::StepStats* stats) {
    if (stats->step() >= 3) MakeNonFinite(stats);
  };
  Create("a", 100);

  const Job job = AwaitState("jobs/a", Job::STATE_FAILED);

  EXPECT_EQ(job.failure().reason(), v1::Failure::REASON_NON_FINITE);
  EXPECT_EQ(job.failure().step(), 7);
  EXPECT_THAT(job.failure().message(), HasSubstr("'h', layer 0, time step 17"));
  EXPECT_THAT(job.failure().message(), HasSubstr("5 steps in a row"));
  EXPECT_EQ(job.step(), 8);
  EXPECT_EQ(job.updates_applied(), 3);
  EXPECT_EQ(job.nonfinite_steps(), 5);
}

TEST_F(JobManagerTest, NonFiniteStepsWithRoomBetweenThemAreSurvived) {
  script_->step_stats = [](v1::StepStats* stats) {
    if (stats->step() % 5 != 0) MakeNonFinite(stats);
  };
  Create("a", 100);

  const Job job = AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  EXPECT_EQ(job.nonfinite_steps(), 80);
  EXPECT_EQ(job.updates_applied(), 20);
}

TEST_F(JobManagerTest, FailsWhenTheTrainerCannotBeBuilt) {
  script_->build = [] { return absl::ResourceExhaustedError("no memory for it"); };
  Create("a");
  const Job memory = AwaitState("jobs/a", Job::STATE_FAILED);
  EXPECT_EQ(memory.failure().reason(), v1::Failure::REASON_OUT_OF_MEMORY);
  EXPECT_EQ(memory.failure().message(), "no memory for it");
}

TEST_F(JobManagerTest, AnExceptionFailsTheJobAndNotTheServer) {
  script_->step_stats = [](v1::StepStats* stats) {
    if (stats->step() == 2) throw std::bad_alloc();
  };
  Create("a");
  const Job job = AwaitState("jobs/a", Job::STATE_FAILED);
  EXPECT_EQ(job.failure().reason(), v1::Failure::REASON_OUT_OF_MEMORY);
  EXPECT_EQ(job.step(), 2);
}

// --- Update.

TEST_F(JobManagerTest, UpdateOfARunningJobIsAppliedAtAStepBoundary) {
  script_->Allow(3);
  Create("a", kManySteps);
  script_->AwaitBlocked();
  auto update = UpdateOf("jobs/a", {"optimizer.learning_rate", "display_name"});
  update.mutable_job()->mutable_optimizer()->set_learning_rate(0.5);
  update.mutable_job()->set_display_name("faster");
  absl::StatusOr<v1::UpdateJobResponse> response = absl::UnknownError("");
  std::thread updating([&] { response = manager().Update(update); });
  // The edit waits for the gate; steps pass until it has been applied.
  script_->AllowAll();
  updating.join();

  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_GE(response->effective_step(), 4);
  EXPECT_FALSE(response->pending());
  EXPECT_EQ(response->job().optimizer().learning_rate(), 0.5);
  EXPECT_EQ(response->job().display_name(), "faster");
  // The recorded rate changes exactly at the effective step.
  v1::StreamStatsRequest request;
  request.set_name("jobs/a");
  request.set_from_step(response->effective_step() - 1);
  Bell bell;
  const auto reader = manager().OpenStats(request, bell.Ringer());
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<double> rates;
  while (rates.size() < 2) {
    JobManager::StatsPortion portion;
    const auto read = (*reader)->Read(&portion);
    ASSERT_TRUE(read.ok());
    if (!*read) bell.Await();
    for (const auto& record : portion.steps) {
      v1::StepStats stats;
      ASSERT_TRUE(ParseScalars(*record, &stats));
      rates.push_back(stats.learning_rate());
    }
  }
  EXPECT_EQ(rates[0], 0.002);
  EXPECT_EQ(rates[1], 0.5);
}

TEST_F(JobManagerTest, UpdateThatTakesTooLongIsPendingAndHappensAnyway) {
  limits_.step_boundary_wait = absl::ZeroDuration();
  script_->Allow(0);
  Create("a", 10);
  script_->AwaitBlocked();
  auto update = UpdateOf("jobs/a", {"training.step_limit"});
  update.mutable_job()->mutable_training()->set_step_limit(5);

  const auto response = manager().Update(update);

  ASSERT_TRUE(response.ok());
  EXPECT_TRUE(response->pending());
  EXPECT_FALSE(response->has_effective_step());
  EXPECT_EQ(response->job().training().step_limit(), 10);
  script_->AllowAll();
  EXPECT_EQ(AwaitState("jobs/a", Job::STATE_SUCCEEDED).step(), 5);
}

TEST_F(JobManagerTest, UpdateOfLabelsNeedsNoStepBoundary) {
  script_->Allow(0);
  Create("a", 10);
  script_->AwaitBlocked();
  auto update = UpdateOf("jobs/a", {"labels"});
  (*update.mutable_job()->mutable_labels())["team"] = "x";

  const auto response = manager().Update(update);

  ASSERT_TRUE(response.ok());
  EXPECT_FALSE(response->has_effective_step());
  EXPECT_FALSE(response->pending());
  EXPECT_EQ(response->job().labels().at("team"), "x");
}

TEST_F(JobManagerTest, UpdateOfQueuedAndPausedJobsIsAppliedAtOnce) {
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");
  v1::UpdateJobRequest update = UpdateOf("jobs/b", {});
  update.mutable_job()->mutable_clipping();

  const auto queued = manager().Update(update);
  ASSERT_TRUE(manager().Pause("jobs/b").ok());
  const auto reset = manager().Update(UpdateOf("jobs/b", {"clipping"}));

  ASSERT_TRUE(queued.ok()) << queued.status();
  EXPECT_EQ(queued->job().clipping().policies_size(), 0);
  EXPECT_EQ(queued->effective_step(), 0);
  ASSERT_TRUE(reset.ok());
  EXPECT_EQ(reset->job().clipping().policies(0).global_norm().max_norm(), 1.0);
}

TEST_F(JobManagerTest, UpdateChecksTheEtag) {
  script_->Allow(0);
  Create("a", 10);
  script_->AwaitBlocked();
  auto update = UpdateOf("jobs/a", {"display_name"});
  update.set_etag(manager().Get("jobs/a")->etag());
  update.mutable_job()->set_display_name("first");
  const auto first = manager().Update(update);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_NE(first->job().etag(), update.etag());
  update.mutable_job()->set_display_name("second");

  const auto second = manager().Update(update);

  EXPECT_EQ(second.status().code(), StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(second.status()), "ETAG_MISMATCH");
  EXPECT_EQ(manager().Get("jobs/a")->display_name(), "first");
}

TEST_F(JobManagerTest, BadUpdatesNameTheFieldAndChangeNothing) {
  script_->Allow(3);
  Create("a", 10);
  script_->AwaitBlocked();
  const std::string before = manager().Get("jobs/a")->SerializeAsString();
  struct Bad {
    std::vector<std::string> paths;
    std::function<void(Job*)> fill;
    std::string field;
    std::string says;
  };
  const std::vector<Bad> table = {
      {{"model"}, [](Job*) {}, "update_mask", "optimizer.learning_rate"},
      {{"model.hidden_units"}, [](Job*) {}, "update_mask", "training.step_limit"},
      {{"*"}, [](Job*) {}, "update_mask", "clipping"},
      {{"state"}, [](Job*) {}, "update_mask", "rules"},
      {{"no_such_field"}, [](Job*) {}, "update_mask", "no_such_field"},
      {{}, [](Job*) {}, "update_mask", "nothing to change"},
      {{}, [](Job* job) { job->set_seed(4); }, "update_mask", "nothing to change"},
      {{"training.step_limit"},
       [](Job* job) { job->mutable_training()->set_step_limit(2); },
       "training.step_limit",
       "3 steps"},
      {{"training.step_limit"},
       [](Job* job) { job->mutable_training()->set_step_limit(-1); },
       "training.step_limit",
       "1 to 1000000000"},
      {{"optimizer.learning_rate"},
       [](Job* job) {
         job->mutable_optimizer()->set_learning_rate(std::numeric_limits<double>::quiet_NaN());
       },
       "optimizer.learning_rate",
       "nan"},
      {{"clipping"},
       [](Job* job) {
         job->mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(-1);
       },
       "clipping.policies[0].global_norm.max_norm",
       "above 0"},
      {{"rules"},
       [](Job* job) { job->add_rules()->set_id(static_cast<v1::RuleId>(99)); },
       "rules[0].id",
       "99"},
      {{"labels"},
       [](Job* job) { (*job->mutable_labels())["A b"] = "x"; },
       "labels['A b']",
       "label key"},
      {{"display_name"},
       [](Job* job) { job->set_display_name(std::string(129, 'x')); },
       "display_name",
       "128"},
  };

  for (const Bad& bad : table) {
    auto update = UpdateOf("jobs/a", bad.paths);
    bad.fill(update.mutable_job());
    const absl::Status status = manager().Update(update).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad.field << status;
    EXPECT_EQ(FieldsOf(status), std::vector<std::string>{bad.field}) << status;
    EXPECT_THAT(Message(status), HasSubstr(bad.says));
  }
  EXPECT_EQ(manager().Get("jobs/a")->SerializeAsString(), before);
}

TEST_F(JobManagerTest, RaisingTheStepLimitOfAPausedJobLetsItGoOn) {
  limits_.step_boundary_wait = absl::ZeroDuration();
  script_->Allow(2);
  Create("a", 3);
  script_->AwaitBlocked();
  ASSERT_TRUE(manager().Pause("jobs/a").ok());
  auto update = UpdateOf("jobs/a", {"training.step_limit"});
  update.mutable_job()->mutable_training()->set_step_limit(20);
  script_->AllowAll();
  ASSERT_EQ(AwaitState("jobs/a", Job::STATE_PAUSED).step(), 3);

  ASSERT_TRUE(manager().Update(update).ok());
  ASSERT_TRUE(manager().Resume("jobs/a").ok());

  EXPECT_EQ(AwaitState("jobs/a", Job::STATE_SUCCEEDED).step(), 20);
}

// --- Delete.

TEST_F(JobManagerTest, DeleteNeedsForceUnlessTheJobIsFinal) {
  script_->Allow(0);
  Create("a");
  script_->AwaitBlocked();
  v1::DeleteJobRequest request;
  request.set_name("jobs/a");

  const absl::Status refused = manager().Delete(request);
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused), "JOB_STATE_CONFLICT");
  EXPECT_TRUE(manager().Get("jobs/a").ok());

  request.set_force(true);
  std::thread gate([this] {
    while (manager().Get("jobs/a").ok()) std::this_thread::yield();
    script_->AllowAll();
  });
  EXPECT_TRUE(manager().Delete(request).ok());
  gate.join();
  EXPECT_EQ(script_->trainers_alive(), 0);
  EXPECT_EQ(manager().Delete(request).code(), StatusCode::kNotFound);
  EXPECT_EQ(manager().List({})->jobs_size(), 0);
}

TEST_F(JobManagerTest, DeleteWithForceWorksInEveryState) {
  script_->Allow(0);
  Create("running");
  AwaitState("jobs/running", Job::STATE_RUNNING);
  Create("queued");
  Create("paused");
  ASSERT_TRUE(manager().Pause("jobs/paused").ok());
  v1::DeleteJobRequest request;
  request.set_force(true);

  for (const char* name : {"jobs/queued", "jobs/paused"}) {
    request.set_name(name);
    EXPECT_TRUE(manager().Delete(request).ok());
  }
  script_->AllowAll();
  request.set_name("jobs/running");
  EXPECT_TRUE(manager().Delete(request).ok());

  EXPECT_EQ(manager().List({})->jobs_size(), 0);
  EXPECT_TRUE(manager().Create(RequestOf("running")).ok());
}

TEST_F(JobManagerTest, DeletingEndsOpenStreamsWithNotFound) {
  script_->Allow(2);
  Create("a", 10);
  script_->AwaitBlocked();
  Bell stats_bell, job_bell, alert_bell;
  v1::StreamStatsRequest stream;
  stream.set_name("jobs/a");
  const auto stats = manager().OpenStats(stream, stats_bell.Ringer());
  const auto job = manager().OpenJob("jobs/a", job_bell.Ringer());
  const auto alerts = manager().OpenAlerts("jobs/a", alert_bell.Ringer());
  v1::DeleteJobRequest request;
  request.set_name("jobs/a");
  request.set_force(true);
  script_->AllowAll();

  ASSERT_TRUE(manager().Delete(request).ok());

  stats_bell.Await();
  job_bell.Await();
  alert_bell.Await();
  JobManager::StatsPortion portion;
  v1::Job seen;
  v1::Alert alert;
  int64_t dropped = 0;
  EXPECT_EQ((*stats)->Read(&portion).status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*job)->Read(&seen).status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*alerts)->Read(&alert, &dropped).status().code(), StatusCode::kNotFound);
}

// --- Lists.

TEST_F(JobManagerTest, ListsNewestFirstInPagesThatBelongToTheirFilter) {
  script_->Allow(0);
  for (int i = 0; i < 5; ++i) {
    v1::CreateJobRequest request = RequestOf(absl::StrCat("j", i));
    (*request.mutable_job()->mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    ASSERT_TRUE(manager().Create(request).ok());
  }
  v1::ListJobsRequest list;
  list.set_page_size(2);
  list.set_filter("labels.parity = \"even\"");

  const auto first = manager().List(list);
  ASSERT_TRUE(first.ok());
  ASSERT_EQ(first->jobs_size(), 2);
  EXPECT_EQ(first->jobs(0).name(), "jobs/j4");
  EXPECT_EQ(first->jobs(1).name(), "jobs/j2");
  list.set_page_token(first->next_page_token());
  const auto second = manager().List(list);
  ASSERT_EQ(second->jobs_size(), 1);
  EXPECT_EQ(second->jobs(0).name(), "jobs/j0");
  EXPECT_EQ(second->next_page_token(), "");

  list.set_filter("");
  const auto other = manager().List(list);
  EXPECT_EQ(other.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldsOf(other.status()), ElementsAre("page_token"));
  list.Clear();
  list.set_page_size(-1);
  EXPECT_THAT(FieldsOf(manager().List(list).status()), ElementsAre("page_size"));
  list.Clear();
  list.set_filter("state = NONSENSE");
  EXPECT_THAT(FieldsOf(manager().List(list).status()), ElementsAre("filter"));
}

// --- Data sets.

TEST_F(JobManagerTest, HoldsItsDataSetUntilItIsFinal) {
  ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT,
                        std::string(20'000, 'a') + std::string(20'000, 'b'))
                  .ok());
  v1::CreateJobRequest request = RequestOf("a");
  request.mutable_job()->mutable_task()->mutable_language()->set_dataset("datasets/text");
  script_->Allow(0);
  const auto job = manager().Create(request);
  ASSERT_TRUE(job.ok()) << job.status();

  EXPECT_THAT(job->vocabulary(), ElementsAre('a', 'b'));
  EXPECT_EQ(datasets_.Get("datasets/text")->jobs_using(), 1);
  EXPECT_EQ(datasets_.Delete("datasets/text").code(), StatusCode::kFailedPrecondition);
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  EXPECT_EQ(datasets_.Get("datasets/text")->jobs_using(), 0);
  EXPECT_TRUE(datasets_.Delete("datasets/text").ok());
}

// --- Weights.

TEST_F(JobManagerTest, WeightsOfARunningJobAreThoseOfAStepBoundary) {
  script_->Allow(3);
  Create("a", kManySteps);
  script_->AwaitBlocked();
  script_->AllowAll();

  const auto weights = manager().GetWeights("jobs/a");

  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_GE(weights->checkpoint->step(), 3);
  EXPECT_EQ(weights->checkpoint->weights(), std::to_string(weights->checkpoint->step()));
  EXPECT_EQ(weights->job.parameters_size(), 1);
  EXPECT_EQ(manager().Cancel("jobs/a")->job().state(), Job::STATE_CANCELLED);
}

TEST_F(JobManagerTest, WeightsOfAFinalJobAreItsLast) {
  Create("a", 10);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const auto weights = manager().GetWeights("jobs/a");

  ASSERT_TRUE(weights.ok());
  EXPECT_EQ(weights->checkpoint->weights(), "10");
  EXPECT_EQ(weights->checkpoint->optimizer_state(), "");
}

TEST_F(JobManagerTest, AJobThatHasNotRunHasNoWeights) {
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);
  Create("b");

  const auto queued = manager().GetWeights("jobs/b");
  ASSERT_TRUE(manager().Cancel("jobs/b").ok());
  const auto cancelled = manager().GetWeights("jobs/b");

  EXPECT_EQ(queued.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(queued.status()), "JOB_NOT_STARTED");
  EXPECT_EQ(cancelled.status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(JobManagerTest, WeightsThatTakeTooLongAreWorthRetrying) {
  limits_.step_boundary_wait = absl::ZeroDuration();
  script_->Allow(0);
  Create("a");
  script_->AwaitBlocked();

  EXPECT_EQ(manager().GetWeights("jobs/a").status().code(), StatusCode::kUnavailable);
}

// --- Metrics.

TEST_F(JobManagerTest, SnapshotsShowJobsUntilTheirGracePeriodIsOver) {
  Create("a", 10);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  script_->Allow(0);
  Create("b");
  AwaitState("jobs/b", Job::STATE_RUNNING);
  Create("c");

  const auto before = manager().Snapshots();
  clock_.Advance(absl::Minutes(5));
  const auto after = manager().Snapshots();

  ASSERT_EQ(before.size(), 3u);
  EXPECT_EQ(before[0].job.name(), "jobs/b");
  EXPECT_EQ(before[1].job.name(), "jobs/c");
  EXPECT_EQ(before[2].job.name(), "jobs/a");
  EXPECT_EQ(before[2].norm_before.last_60s->maximum, 1.0);
  EXPECT_EQ(before[2].norm_before.count, 10);
  EXPECT_EQ(before[2].job.latest_stats().step(), 9);
  ASSERT_EQ(after.size(), 2u);
  EXPECT_EQ(after[1].job.name(), "jobs/c");
  EXPECT_TRUE(manager().Get("jobs/a").ok());
}

// Taken while steps go by; a share of clipped steps above 1 would come of two readings.
TEST_F(JobManagerTest, ASnapshotIsOfOneMoment) {
  script_->step_stats = [](v1::StepStats* stats) { stats->set_clipped(true); };
  Create("a", 1'000'000'000);
  AwaitState("jobs/a", Job::STATE_RUNNING);

  for (int i = 0; i < 300; ++i) {
    const JobSnapshot snapshot = manager().Snapshots().at(0);
    ASSERT_EQ(snapshot.clipped_steps, snapshot.job.step());
    ASSERT_EQ(snapshot.loss.count, snapshot.job.step());
  }
}

TEST_F(JobManagerTest, CountsJobsByStateAndStepsByDuration) {
  Create("a", 10);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const auto counts = manager().CountByState();
  const Totals totals = manager().GetTotals();

  ASSERT_EQ(counts.size(), 9u);
  EXPECT_EQ(counts[Job::STATE_SUCCEEDED], 1);
  EXPECT_EQ(counts[Job::STATE_RUNNING], 0);
  ASSERT_EQ(totals.step_duration_counts.size(), StepDurationBounds().size() + 1);
  uint64_t steps = 0;
  for (const uint64_t count : totals.step_duration_counts) steps += count;
  EXPECT_EQ(steps, 10u);
}

TEST_F(JobManagerTest, AStepTakesAsLongAsTheClockSays) {
  script_->step_stats = [this](v1::StepStats* stats) {
    // Somebody sets the clock back during step 1.
    clock_.Advance(stats->step() == 1 ? absl::Seconds(-5) : absl::Microseconds(2999));
  };
  Create("a", 3);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const std::vector<v1::StepStats> history = ReadHistory("jobs/a", &manager());

  ASSERT_EQ(history.size(), 3u);
  EXPECT_EQ(history[0].duration_us(), 2999);
  EXPECT_EQ(history[1].duration_us(), 0);
  EXPECT_EQ(history[2].duration_us(), 2999);
  EXPECT_EQ(FromTimestamp(history[2].time()), clock_.Now());
  EXPECT_DOUBLE_EQ(manager().GetTotals().step_duration_sum_seconds, 2 * 2999e-6);
}

TEST_F(JobManagerTest, LargestNormIsThatOfTheLastMinute) {
  script_->step_stats = [](v1::StepStats* stats) {
    stats->set_norm_before(stats->step() == 1 ? 50.0 : 2.0);
  };
  script_->Allow(3);
  Create("a", 10);
  script_->AwaitBlocked();

  EXPECT_EQ(manager().Snapshots().at(0).norm_before.last_60s->maximum, 50.0);
  EXPECT_EQ(manager().Snapshots().at(0).norm_before.last_60s->maximum, 50.0);
  clock_.Advance(absl::Seconds(59));
  EXPECT_EQ(manager().Snapshots().at(0).norm_before.last_60s->maximum, 50.0);
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(manager().Snapshots().at(0).norm_before.last_60s.has_value());
  EXPECT_EQ(manager().Snapshots().at(0).norm_before.sum, 54.0);
}

// --- Shutdown.

TEST_F(JobManagerTest, ShutdownStopsAtAStepBoundaryAndRefusesWhatComesLater) {
  script_->Allow(2);
  Create("a", kManySteps);
  script_->AwaitBlocked();
  Create("b");
  Bell bell;
  v1::StreamStatsRequest stream;
  stream.set_name("jobs/a");
  const auto reader = manager().OpenStats(stream, bell.Ringer());
  script_->AllowAll();

  manager().Shutdown();
  manager().Shutdown();

  EXPECT_EQ(script_->trainers_alive(), 0);
  EXPECT_EQ(manager().Create(RequestOf("c")).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(manager().Pause("jobs/a").status().code(), StatusCode::kUnavailable);
  JobManager::StatsPortion portion;
  EXPECT_EQ((*reader)->Read(&portion).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(manager().Get("jobs/a").ok());
}

TEST_F(JobManagerTest, ShutdownAnswersThoseWhoWait) {
  script_->Allow(0);
  Create("a", kManySteps);
  script_->AwaitBlocked();
  absl::Status paused;
  std::thread pausing([&] { paused = manager().Pause("jobs/a").status(); });
  AwaitState("jobs/a", Job::STATE_PAUSING);
  std::thread stopping([&] { manager().Shutdown(); });
  pausing.join();
  script_->AllowAll();
  stopping.join();

  EXPECT_EQ(paused.code(), StatusCode::kUnavailable);
}

TEST_F(JobManagerTest, ReadersMayOutliveTheManager) {
  Create("a");
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  v1::StreamStatsRequest stream;
  stream.set_name("jobs/a");
  auto stats = manager().OpenStats(stream, [] {});
  auto job = manager().OpenJob("jobs/a", [] {});
  auto alerts = manager().OpenAlerts("jobs/-", [] {});

  manager_.reset();

  v1::Job seen;
  EXPECT_EQ((*job)->Read(&seen).status().code(), StatusCode::kUnavailable);
  stats->reset();
  alerts->reset();
}

// --- Cores.

TEST_F(JobManagerTest, RunningJobsShareTheCoresAsTheyComeAndGo) {
  limits_.cores = 5;
  limits_.running_max = 2;
  script_->threads_useful = 4;

  Create("a", kManySteps);
  script_->AwaitThreads("jobs/a", 4);
  Create("b", kManySteps);
  script_->AwaitThreads("jobs/b", 2);
  script_->AwaitThreads("jobs/a", 3);
  ASSERT_TRUE(manager().Pause("jobs/a").ok());
  script_->AwaitThreads("jobs/b", 4);
  ASSERT_TRUE(manager().Resume("jobs/a").ok());
  script_->AwaitThreads("jobs/b", 3);
  script_->AwaitThreads("jobs/a", 2);
  ASSERT_TRUE(manager().Cancel("jobs/b").ok());
  script_->AwaitThreads("jobs/a", 4);
}

TEST_F(JobManagerTest, RunsAsManyJobsAsThereAreCoresByDefault) {
  limits_.cores = 3;
  limits_.running_max = 0;
  script_->Allow(0);
  for (const char* id : {"a", "b", "c", "d"}) Create(id);

  for (const char* name : {"jobs/a", "jobs/b", "jobs/c"}) AwaitState(name, Job::STATE_RUNNING);

  EXPECT_EQ(manager().Get("jobs/d")->state(), Job::STATE_QUEUED);
}

TEST_F(JobManagerTest, ManyThreadsMayControlManyJobs) {
  limits_.running_max = 2;
  manager();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 15; ++i) {
        const std::string id = absl::StrCat("t", t, "-", i);
        const std::string name = absl::StrCat("jobs/", id);
        ASSERT_TRUE(manager().Create(RequestOf(id, 200)).ok());
        manager().Pause(name).IgnoreError();
        auto update = UpdateOf(name, {"optimizer.learning_rate"});
        update.mutable_job()->mutable_optimizer()->set_learning_rate(0.1);
        manager().Update(update).IgnoreError();
        manager().GetWeights(name).IgnoreError();
        manager().Resume(name).IgnoreError();
        manager().Snapshots();
        if (i % 3 == 0) manager().Cancel(name).IgnoreError();
        if (i % 3 == 1) {
          v1::DeleteJobRequest request;
          request.set_name(name);
          request.set_force(true);
          ASSERT_TRUE(manager().Delete(request).ok());
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();

  v1::ListJobsRequest all;
  all.set_page_size(1000);
  const auto kept = manager().List(all);
  ASSERT_TRUE(kept.ok());
  for (const Job& job : kept->jobs()) {
    const Job last = AwaitJob(job.name(), [](const Job& seen) {
      return seen.state() == Job::STATE_SUCCEEDED || seen.state() == Job::STATE_CANCELLED ||
             seen.state() == Job::STATE_PAUSED;
    });
    EXPECT_FALSE(last.has_failure());
  }
  // The worker may still be on its way out of the last job.
  manager().Shutdown();
  EXPECT_EQ(script_->trainers_alive(), 0);
}

}  // namespace
}  // namespace gradwatch::jobs
