#include <limits>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "server/jobs/stats_reader.h"
#include "tests/unit/jobs/job_testing.h"

namespace gradwatch::jobs {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using v1::Job;

std::vector<int64_t> Steps(int64_t from, int64_t to) {
  std::vector<int64_t> steps;
  for (int64_t step = from; step < to; ++step) steps.push_back(step);
  return steps;
}

v1::StreamStatsRequest StreamOf(absl::string_view name) {
  v1::StreamStatsRequest request;
  request.set_name(std::string(name));
  return request;
}

class JobStreamsTest : public JobManagerTest {
 protected:
  // A job that stands before step `steps` and holds the worker there.
  void CreateHeldAt(absl::string_view id, int64_t steps, int64_t step_limit) {
    script_->Allow(steps);
    Create(id, step_limit);
    script_->AwaitBlocked();
  }
};

// --- Statistics.

TEST_F(JobStreamsTest, ReplayGoesOverToLiveWithoutGapOrRepeat) {
  CreateHeldAt("a", 500, 3000);
  v1::StreamStatsRequest request = StreamOf("jobs/a");
  request.set_from_step(100);
  request.set_lossless(true);
  Bell bell;
  const auto reader = manager().OpenStats(request, bell.Ringer());
  ASSERT_TRUE(reader.ok());
  script_->AllowAll();

  const Stream stream = ReadAll(reader->get(), &bell);

  ASSERT_TRUE(stream.status.ok()) << stream.status;
  EXPECT_EQ(stream.steps, Steps(100, 3000));
  EXPECT_EQ(stream.dropped, 0);
  ASSERT_NE(stream.final_job, nullptr);
  EXPECT_EQ(stream.final_job->state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(stream.final_job->step(), 3000);
}

TEST_F(JobStreamsTest, WithoutAFirstStepItBeginsAtTheNextOne) {
  CreateHeldAt("a", 7, 10);
  Bell bell;
  const auto reader = manager().OpenStats(StreamOf("jobs/a"), bell.Ringer());
  script_->AllowAll();

  EXPECT_THAT(ReadAll(reader->get(), &bell).steps, ElementsAre(7, 8, 9));
}

TEST_F(JobStreamsTest, AFinalJobIsReplayedAndEnds) {
  Create("a", 600);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  v1::StreamStatsRequest request = StreamOf("jobs/a");
  request.set_from_step(0);

  const Stream stream = ReadAll(request);

  EXPECT_EQ(stream.steps, Steps(0, 600));
  EXPECT_GT(stream.portions, 1);
  EXPECT_NE(stream.final_job, nullptr);
}

TEST_F(JobStreamsTest, TheLastPortionComesExactlyOnce) {
  Create("a", 3);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  Bell bell;
  const auto reader = manager().OpenStats(StreamOf("jobs/a"), bell.Ringer());
  JobManager::StatsPortion portion;

  while (!*(*reader)->Read(&portion)) bell.Await();
  EXPECT_NE(portion.final_job, nullptr);
  const auto second = (*reader)->Read(&portion);

  EXPECT_TRUE(second.ok() && !*second);
  EXPECT_EQ(portion.final_job, nullptr);
}

TEST_F(JobStreamsTest, ASlowReaderLosesStepsIsToldHowManyAndGetsTheEnd) {
  CreateHeldAt("a", 10, 5000);
  Bell bell;
  const auto reader = manager().OpenStats(StreamOf("jobs/a"), bell.Ringer());
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const Stream stream = ReadAll(reader->get(), &bell);

  EXPECT_EQ(stream.dropped, 4990 - LogReader::kResumeSteps);
  EXPECT_EQ(stream.steps, Steps(5000 - LogReader::kResumeSteps, 5000));
  EXPECT_NE(stream.final_job, nullptr);
}

TEST_F(JobStreamsTest, AReaderWithinTheLagLosesNothing) {
  CreateHeldAt("a", 10, 10 + LogReader::kLagMax);
  Bell bell;
  const auto reader = manager().OpenStats(StreamOf("jobs/a"), bell.Ringer());
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const Stream stream = ReadAll(reader->get(), &bell);

  EXPECT_EQ(stream.dropped, 0);
  EXPECT_EQ(stream.steps, Steps(10, 10 + LogReader::kLagMax));
}

TEST_F(JobStreamsTest, ALosslessReaderReadsHistoryInsteadOfDropping) {
  CreateHeldAt("a", 10, 5000);
  v1::StreamStatsRequest request = StreamOf("jobs/a");
  request.set_lossless(true);
  Bell bell;
  const auto reader = manager().OpenStats(request, bell.Ringer());
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const Stream stream = ReadAll(reader->get(), &bell);

  EXPECT_EQ(stream.steps, Steps(10, 5000));
}

TEST_F(JobStreamsTest, ALosslessReaderThatHistoryOvertakesEndsWithOutOfRange) {
  limits_.history_bytes_max = 20'000;
  CreateHeldAt("a", 10, 5000);
  v1::StreamStatsRequest lossless = StreamOf("jobs/a");
  lossless.set_lossless(true);
  Bell bell;
  const auto reader = manager().OpenStats(lossless, bell.Ringer());
  const auto slow = manager().OpenStats(StreamOf("jobs/a"), bell.Ringer());
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  JobManager::StatsPortion portion;
  const auto read = (*reader)->Read(&portion);
  EXPECT_EQ(read.status().code(), StatusCode::kOutOfRange);
  const Stream stream = ReadAll(slow->get(), &bell);
  EXPECT_EQ(stream.dropped + static_cast<int64_t>(stream.steps.size()), 4990);
  EXPECT_EQ(stream.steps.back(), 4999);
  // A new one cannot begin there either, and is told where it can.
  v1::StreamStatsRequest request = StreamOf("jobs/a");
  request.set_from_step(0);
  const auto refused = manager().OpenStats(request, [] {});
  EXPECT_EQ(refused.status().code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("the oldest kept step is 4"));
}

TEST_F(JobStreamsTest, HistoryOnlyEndsAtTheNewestStepOfARunningJob) {
  CreateHeldAt("a", 20, 100);
  v1::StreamStatsRequest request = StreamOf("jobs/a");
  request.set_from_step(5);
  request.set_history_only(true);

  const Stream stream = ReadAll(request);

  EXPECT_EQ(stream.steps, Steps(5, 20));
  ASSERT_NE(stream.final_job, nullptr);
  EXPECT_EQ(stream.final_job->state(), Job::STATE_RUNNING);
}

TEST_F(JobStreamsTest, MinIntervalFoldsWhatLiesBetween) {
  script_->step_stats = [](v1::StepStats* stats) {
    stats->set_loss(stats->step() == 5 ? 100.0 : static_cast<double>(stats->step()));
    stats->set_clipped(stats->step() % 2 == 0);
  };
  CreateHeldAt("a", 10, 100);
  v1::StreamStatsRequest request = StreamOf("jobs/a");
  request.set_from_step(0);
  request.mutable_min_interval()->set_seconds(10);
  Bell bell;
  const auto reader = manager().OpenStats(request, bell.Ringer());
  ASSERT_TRUE(reader.ok());
  JobManager::StatsPortion portion;

  ASSERT_TRUE(*(*reader)->Read(&portion));
  ASSERT_EQ(portion.steps.size(), 1u);
  EXPECT_EQ(portion.steps[0]->step, 9);
  EXPECT_EQ(portion.folded.first_step(), 0);
  EXPECT_EQ(portion.folded.last_step(), 8);
  EXPECT_EQ(portion.folded.count(), 9);
  EXPECT_EQ(portion.folded.loss().maximum(), 100.0);
  EXPECT_EQ(portion.folded.loss().minimum(), 0.0);
  EXPECT_EQ(portion.folded.clipped_steps(), 5);

  // More steps, but the interval is not over: nothing until it is, and then the bell rings.
  script_->Allow(5);
  AwaitJob("jobs/a", [](const Job&) { return true; });
  script_->AwaitBlocked();
  while (manager().Get("jobs/a")->step() < 15) std::this_thread::yield();
  EXPECT_FALSE(*(*reader)->Read(&portion));
  clock_.Advance(absl::Seconds(10));
  bell.Await();
  while (!*(*reader)->Read(&portion)) bell.Await();
  EXPECT_EQ(portion.steps.front()->step, 14);
  EXPECT_EQ(portion.folded.count(), 4);
  EXPECT_EQ(portion.dropped_before, 0);

  // The end comes at once.
  script_->AllowAll();
  const Stream rest = ReadAll(reader->get(), &bell);
  EXPECT_EQ(rest.steps, std::vector<int64_t>{99});
  EXPECT_EQ(rest.folded, 84);
  EXPECT_NE(rest.final_job, nullptr);
}

TEST_F(JobStreamsTest, BadRequestsAreRefused) {
  Create("a");
  v1::StreamStatsRequest negative_step = StreamOf("jobs/a");
  negative_step.set_from_step(-1);
  v1::StreamStatsRequest negative_interval = StreamOf("jobs/a");
  negative_interval.mutable_min_interval()->set_seconds(-1);
  v1::StreamStatsRequest long_interval = StreamOf("jobs/a");
  long_interval.mutable_min_interval()->set_seconds(std::numeric_limits<int64_t>::max());

  EXPECT_EQ(FieldViolationsOf(manager().OpenStats(negative_step, [] {}).status()).at(0).field,
            "from_step");
  EXPECT_EQ(FieldViolationsOf(manager().OpenStats(negative_interval, [] {}).status()).at(0).field,
            "min_interval");
  EXPECT_EQ(FieldViolationsOf(manager().OpenStats(long_interval, [] {}).status()).at(0).field,
            "min_interval");
  EXPECT_EQ(manager().OpenStats(StreamOf("jobs/none"), [] {}).status().code(),
            StatusCode::kNotFound);
}

TEST_F(JobStreamsTest, ManyReadersAtOnceSeeEveryStepOnceAndTheSameEnd) {
  constexpr int64_t kSteps = 4000;
  script_->Allow(0);
  Create("a", kSteps);
  std::vector<Stream> streams(8);
  std::vector<std::thread> readers;
  for (size_t i = 0; i < streams.size(); ++i) {
    readers.emplace_back([this, i, &streams] {
      v1::StreamStatsRequest request = StreamOf("jobs/a");
      request.set_from_step(0);
      request.set_lossless(i % 2 == 0);
      streams[i] = ReadAll(request);
    });
  }
  // Some come and go.
  std::thread visitor([this] {
    for (int i = 0; i < 200; ++i) {
      const auto reader = manager().OpenStats(StreamOf("jobs/a"), [] {});
      JobManager::StatsPortion portion;
      (*reader)->Read(&portion).IgnoreError();
    }
  });
  script_->AllowAll();
  for (auto& reader : readers) reader.join();
  visitor.join();

  for (size_t i = 0; i < streams.size(); ++i) {
    ASSERT_TRUE(streams[i].status.ok()) << streams[i].status;
    EXPECT_TRUE(std::is_sorted(streams[i].steps.begin(), streams[i].steps.end()));
    EXPECT_EQ(static_cast<int64_t>(streams[i].steps.size()) + streams[i].dropped, kSteps);
    if (i % 2 == 0) {
      EXPECT_EQ(streams[i].dropped, 0);
    }
    ASSERT_NE(streams[i].final_job, nullptr);
    EXPECT_EQ(streams[i].final_job->state(), Job::STATE_SUCCEEDED);
  }
}

// --- Watching a job.

TEST_F(JobStreamsTest, WatchingShowsTheJobAtOnceAndAtEachChange) {
  CreateHeldAt("a", 0, 10);
  Bell bell;
  const auto reader = manager().OpenJob("jobs/a", bell.Ringer());
  Job job;

  ASSERT_TRUE(*(*reader)->Read(&job));
  EXPECT_EQ(job.state(), Job::STATE_RUNNING);
  EXPECT_FALSE(*(*reader)->Read(&job));
  auto update = UpdateOf("jobs/a", {"display_name"});
  update.mutable_job()->set_display_name("new");
  ASSERT_TRUE(manager().Update(update).ok());
  bell.Await();
  ASSERT_TRUE(*(*reader)->Read(&job));
  EXPECT_EQ(job.display_name(), "new");
  script_->AllowAll();
  while (job.state() != Job::STATE_SUCCEEDED) {
    if (!*(*reader)->Read(&job)) bell.Await();
  }
  EXPECT_EQ(job.step(), 10);
}

// --- History.

TEST_F(JobStreamsTest, HistoryComesInBucketsOfEqualWidthWithExactExtremes) {
  script_->step_stats = [](v1::StepStats* stats) {
    stats->set_norm_before(stats->step() == 537 ? 1e6 : 1.0);
    if (stats->step() % 100 == 0) stats->mutable_evaluation()->set_step(stats->step());
  };
  Create("a", 1000);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  v1::QueryStatsRequest request;
  request.set_name("jobs/a");
  request.set_points(10);

  const auto response = manager().QueryStats(request);

  ASSERT_TRUE(response.ok());
  ASSERT_EQ(response->buckets_size(), 10);
  int64_t count = 0;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(response->buckets(i).first_step(), 100 * i);
    EXPECT_EQ(response->buckets(i).last_step(), 100 * i + 99);
    EXPECT_EQ(response->buckets(i).norm_before().maximum(), i == 5 ? 1e6 : 1.0);
    count += response->buckets(i).count();
  }
  EXPECT_EQ(count, 1000);
  EXPECT_EQ(response->oldest_step(), 0);
  EXPECT_EQ(response->newest_step(), 999);
  ASSERT_EQ(response->evaluations_size(), 11);
  EXPECT_EQ(response->evaluations(10).step(), 1000);
}

TEST_F(JobStreamsTest, HistoryOfARange) {
  Create("a", 1000);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  v1::QueryStatsRequest request;
  request.set_name("jobs/a");
  request.set_from_step(990);
  request.set_to_step(995);

  const auto response = manager().QueryStats(request);

  ASSERT_EQ(response->buckets_size(), 6);
  EXPECT_EQ(response->buckets(0).first_step(), 990);
  EXPECT_EQ(response->buckets(5).last_step(), 995);
  EXPECT_EQ(response->evaluations_size(), 0);
}

TEST_F(JobStreamsTest, HistoryOfAJobThatHasNotRunIsEmpty) {
  script_->Allow(0);
  Create("a");
  v1::QueryStatsRequest request;
  request.set_name("jobs/a");

  const auto response = manager().QueryStats(request);

  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->buckets_size(), 0);
  EXPECT_EQ(response->newest_step(), -1);
}

TEST_F(JobStreamsTest, BadHistoryRequestsNameEveryField) {
  Create("a");
  v1::QueryStatsRequest request;
  request.set_name("jobs/a");
  request.set_points(0);
  request.set_from_step(-1);
  request.set_to_step(-2);

  const auto violations = FieldViolationsOf(manager().QueryStats(request).status());

  ASSERT_EQ(violations.size(), 3u);
  EXPECT_EQ(violations[0].field, "points");
  EXPECT_EQ(violations[1].field, "from_step");
  EXPECT_EQ(violations[2].field, "to_step");
}

// --- Alerts.

// Norms that make EXPLODING_ABS fire at step 5 and on.
void Explode(v1::StepStats* stats) {
  stats->set_norm_before(stats->step() >= 5 ? 1e7 : 1.0);
  stats->set_clipped(true);
  stats->clear_norm_after();
}

TEST_F(JobStreamsTest, AnAlertIsStreamedListedAndCounted) {
  script_->step_stats = Explode;
  CreateHeldAt("a", 5, 20);
  Bell bell;
  const auto reader = manager().OpenAlerts("jobs/a", bell.Ringer());
  v1::Alert alert;
  int64_t dropped = 0;
  EXPECT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kNothing);
  script_->Allow(1);
  bell.Await();

  ASSERT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kAlert);
  EXPECT_EQ(alert.rule(), v1::RULE_ID_EXPLODING_ABS);
  EXPECT_EQ(alert.state(), v1::Alert::STATE_FIRING);
  EXPECT_EQ(alert.firing_step(), 5);
  EXPECT_EQ(alert.name(), "jobs/a/alerts/1");
  EXPECT_EQ(dropped, 0);
  EXPECT_EQ(manager().Get("jobs/a")->alerts_firing(), 1);
  v1::ListAlertsRequest list;
  list.set_parent("jobs/a");
  EXPECT_EQ(manager().ListAlerts(list)->alerts_size(), 1);
  list.set_parent("jobs/-");
  list.set_state(v1::Alert::STATE_RESOLVED);
  EXPECT_EQ(manager().ListAlerts(list)->alerts_size(), 0);
  const JobSnapshot snapshot = manager().Snapshots().at(0);
  ASSERT_EQ(snapshot.alerts.size(), 1u);
  ASSERT_EQ(snapshot.alerts_total.size(), 1u);
  EXPECT_EQ(snapshot.alerts_total[0].count, 1);
  script_->AllowAll();
  auto outcome = JobManager::AlertReader::Outcome::kNothing;
  while (outcome != JobManager::AlertReader::Outcome::kEnd) {
    outcome = *(*reader)->Read(&alert, &dropped);
    if (outcome == JobManager::AlertReader::Outcome::kNothing) bell.Await();
  }
}

TEST_F(JobStreamsTest, WhatFiresComesFirstToANewReader) {
  script_->step_stats = Explode;
  CreateHeldAt("a", 7, 20);
  const auto reader = manager().OpenAlerts("jobs/-", [] {});
  v1::Alert alert;
  int64_t dropped = 0;

  ASSERT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kAlert);
  EXPECT_EQ(alert.firing_step(), 5);
  EXPECT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kNothing);
}

TEST_F(JobStreamsTest, AlertsOfAFinalJobFireThroughTheGracePeriodAndThenResolve) {
  script_->step_stats = Explode;
  Bell bell;
  const auto reader = manager().OpenAlerts("jobs/-", bell.Ringer());
  Create("a", 20);
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  v1::ListAlertsRequest list;
  list.set_parent("jobs/a");

  clock_.Advance(limits_.grace_period - absl::Nanoseconds(1));
  EXPECT_EQ(manager().ListAlerts(list)->alerts(0).state(), v1::Alert::STATE_FIRING);
  EXPECT_EQ(manager().Snapshots().at(0).alerts.at(0).state(), v1::Alert::STATE_FIRING);
  clock_.Advance(absl::Nanoseconds(1));

  v1::Alert alert;
  int64_t dropped = 0;
  while (alert.state() != v1::Alert::STATE_RESOLVED) {
    const auto outcome = (*reader)->Read(&alert, &dropped);
    ASSERT_TRUE(outcome.ok());
    if (*outcome == JobManager::AlertReader::Outcome::kNothing) bell.Await();
  }
  EXPECT_EQ(alert.resolve_reason(), v1::Alert::RESOLVE_REASON_JOB_ENDED);
  EXPECT_EQ(manager().ListAlerts(list)->alerts(0).state(), v1::Alert::STATE_RESOLVED);
  EXPECT_EQ(manager().Snapshots().size(), 0u);
  EXPECT_EQ(manager().Get("jobs/a")->alerts_firing(), 0);
}

TEST_F(JobStreamsTest, AChangeOfRulesResolvesOnRunningAndPausedJobs) {
  script_->step_stats = Explode;
  limits_.step_boundary_wait = absl::ZeroDuration();
  CreateHeldAt("a", 7, 1000);
  ASSERT_TRUE(manager().Pause("jobs/a").ok());
  script_->AllowAll();
  AwaitState("jobs/a", Job::STATE_PAUSED);
  EXPECT_EQ(manager().Get("jobs/a")->alerts_firing(), 1);
  auto update = UpdateOf("jobs/a", {"rules"});
  v1::RuleSettings* rule = update.mutable_job()->add_rules();
  rule->set_id(v1::RULE_ID_EXPLODING_ABS);
  rule->set_disabled(true);

  ASSERT_TRUE(manager().Update(update).ok());

  v1::ListAlertsRequest list;
  list.set_parent("jobs/a");
  const auto alerts = manager().ListAlerts(list);
  ASSERT_EQ(alerts->alerts_size(), 1);
  EXPECT_EQ(alerts->alerts(0).resolve_reason(), v1::Alert::RESOLVE_REASON_RULE_CHANGED);
  ASSERT_TRUE(manager().Resume("jobs/a").ok());
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  EXPECT_EQ(manager().ListAlerts(list)->alerts_size(), 1);
  EXPECT_EQ(manager().Get("jobs/a")->alerts_firing(), 0);
}

TEST_F(JobStreamsTest, AlertsAreListedInPagesAcrossJobs) {
  script_->step_stats = Explode;
  for (const char* id : {"a", "b", "c"}) {
    Create(id, 20);
    AwaitState(std::string("jobs/") + id, Job::STATE_SUCCEEDED);
    clock_.Advance(absl::Seconds(1));
  }
  v1::ListAlertsRequest list;
  list.set_parent("jobs/-");
  list.set_page_size(1);
  std::vector<std::string> names;
  for (;;) {
    const auto page = manager().ListAlerts(list);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& alert : page->alerts()) names.push_back(alert.name());
    if (page->next_page_token().empty()) break;
    list.set_page_token(page->next_page_token());
  }

  EXPECT_THAT(names, ElementsAre("jobs/c/alerts/1", "jobs/b/alerts/1", "jobs/a/alerts/1"));
  list.set_state(v1::Alert::STATE_FIRING);
  EXPECT_EQ(FieldViolationsOf(manager().ListAlerts(list).status()).at(0).field, "page_token");
  list.Clear();
  list.set_parent("jobs/-");
  list.set_state(static_cast<v1::Alert::State>(9));
  EXPECT_EQ(FieldViolationsOf(manager().ListAlerts(list).status()).at(0).field, "state");
}

}  // namespace
}  // namespace gradwatch::jobs
