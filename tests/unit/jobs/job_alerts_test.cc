#include <atomic>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "tests/unit/jobs/job_testing.h"

namespace gradwatch::jobs {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class JobAlertsTest : public JobManagerTest {
 protected:
  // jobs/a, whose gradient explodes at step 5, standing before step `steps`.
  void RunExploding(int64_t steps, int64_t step_limit = kManySteps) {
    script_->step_stats = [](v1::StepStats* stats) {
      stats->set_norm_before(stats->step() >= 5 ? 5000.0 : 1.0);
      stats->set_clipped(true);
    };
    script_->Allow(steps);
    Create("a", step_limit);
    script_->AwaitBlocked();
  }

  std::vector<v1::Alert> Alerts() {
    v1::ListAlertsRequest request;
    request.set_parent("jobs/a");
    const auto list = manager().ListAlerts(request);
    EXPECT_TRUE(list.ok()) << list.status();
    return {list->alerts().begin(), list->alerts().end()};
  }

  absl::StatusOr<v1::Alert> Acknowledge(absl::string_view name, absl::Duration duration) {
    v1::AcknowledgeAlertRequest request;
    request.set_name(std::string(name));
    request.set_author("ann");
    request.set_comment("on it");
    request.mutable_duration()->set_seconds(absl::ToInt64Seconds(duration));
    return manager().AcknowledgeAlert(request);
  }

  absl::StatusOr<v1::Silence> Silence(absl::string_view rule, absl::Duration duration) {
    v1::SilenceRuleRequest request;
    request.set_job("jobs/a");
    request.set_rule_name(std::string(rule));
    request.set_author("ann");
    request.mutable_duration()->set_seconds(absl::ToInt64Seconds(duration));
    return manager().SilenceRule(request);
  }

  std::vector<v1::Silence> Silences() {
    v1::ListSilencesRequest request;
    request.set_parent("jobs/-");
    const auto list = manager().ListSilences(request);
    EXPECT_TRUE(list.ok()) << list.status();
    return {list->silences().begin(), list->silences().end()};
  }

  // Fired so far, as the metrics count it.
  int64_t Fired() {
    int64_t fired = 0;
    for (const JobSnapshot& snapshot : manager().Snapshots()) {
      for (const auto& total : snapshot.alerts_total) fired += total.count;
    }
    return fired;
  }
};

TEST_F(JobAlertsTest, AnAcknowledgementStaysWithTheAlert) {
  RunExploding(6);

  const auto noted = Acknowledge("jobs/a/alerts/1", absl::Hours(2));

  ASSERT_TRUE(noted.ok()) << noted.status();
  ASSERT_THAT(Alerts(), SizeIs(1));
  const v1::Acknowledgement note = Alerts()[0].acknowledgement();
  EXPECT_EQ(note.author(), "ann");
  EXPECT_EQ(note.comment(), "on it");
  EXPECT_EQ(note.expire_time().seconds() - note.create_time().seconds(), 7200);
  EXPECT_EQ(Fired(), 1);
}

TEST_F(JobAlertsTest, NotesOfAPausedJobAreThereWhenItGoesOn) {
  RunExploding(6);
  script_->AllowAll();
  ASSERT_TRUE(manager().Pause("jobs/a").ok());

  ASSERT_TRUE(Acknowledge("jobs/a/alerts/1", absl::Hours(2)).ok());
  ASSERT_TRUE(Silence("LOSS_DIVERGENCE", absl::Hours(1)).ok());
  script_->Allow(0);
  ASSERT_TRUE(manager().Resume("jobs/a").ok());
  script_->AwaitBlocked();
  ASSERT_TRUE(Silence("UPDATE_RATIO", absl::Hours(1)).ok());

  EXPECT_EQ(Alerts()[0].acknowledgement().author(), "ann");
  EXPECT_THAT(Silences(), SizeIs(2));
}

TEST_F(JobAlertsTest, AcknowledgingTellsWhatIsWrong) {
  RunExploding(6);
  v1::AcknowledgeAlertRequest nobody;
  nobody.set_name("jobs/a/alerts/1");
  nobody.mutable_duration()->set_seconds(-1);

  EXPECT_EQ(Acknowledge("jobs/a/alerts/2", absl::Hours(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Acknowledge("jobs/b/alerts/1", absl::Hours(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Acknowledge("jobs/a", absl::Hours(1)).status().code(), StatusCode::kInvalidArgument);
  const auto violations = FieldViolationsOf(manager().AcknowledgeAlert(nobody).status());
  ASSERT_THAT(violations, SizeIs(2));
  EXPECT_EQ(violations[0].field, "author");
  EXPECT_EQ(violations[1].field, "duration");
}

TEST_F(JobAlertsTest, AResolvedAlertIsNotAcknowledged) {
  RunExploding(6);
  script_->AllowAll();
  ASSERT_TRUE(manager().Cancel("jobs/a").ok());
  Bell bell;
  const auto reader = manager().OpenAlerts("jobs/-", bell.Ringer());
  clock_.Advance(limits_.grace_period + absl::Seconds(1));
  v1::Alert alert;
  int64_t dropped = 0;
  while (alert.state() != v1::Alert::STATE_RESOLVED) {
    const auto read = (*reader)->Read(&alert, &dropped);
    if (*read == JobManager::AlertReader::Outcome::kNothing) bell.Await();
  }

  const auto noted = Acknowledge("jobs/a/alerts/1", absl::Hours(1));

  EXPECT_EQ(noted.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Alerts()[0].resolve_reason(), v1::Alert::RESOLVE_REASON_JOB_ENDED);
}

TEST_F(JobAlertsTest, ASilencedRuleIsRecordedButNotHeard) {
  RunExploding(5, 10);
  const auto reader = manager().OpenAlerts("jobs/-", [] {});
  ASSERT_TRUE(Silence("EXPLODING_ABS", absl::Hours(1)).ok());

  script_->AllowAll();
  AwaitState("jobs/a", v1::Job::STATE_SUCCEEDED);

  ASSERT_THAT(Alerts(), SizeIs(1));
  EXPECT_TRUE(Alerts()[0].has_silenced_until());
  v1::Alert alert;
  int64_t dropped = 0;
  EXPECT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kNothing);
  EXPECT_EQ(Fired(), 0);
  EXPECT_THAT(manager().Snapshots()[0].alerts, IsEmpty());
  ASSERT_THAT(Silences(), SizeIs(1));
  EXPECT_EQ(Silences()[0].rule_name(), "EXPLODING_ABS");
}

TEST_F(JobAlertsTest, ASilenceEndsByItselfOrEarly) {
  RunExploding(6);
  ASSERT_TRUE(Silence("EXPLODING_ABS", absl::Hours(1)).ok());
  ASSERT_TRUE(Silence("LOSS_DIVERGENCE", absl::Hours(3)).ok());
  v1::DeleteSilenceRequest early;
  early.set_job("jobs/a");
  early.set_rule_name("LOSS_DIVERGENCE");

  EXPECT_TRUE(manager().DeleteSilence(early).ok());
  EXPECT_EQ(manager().DeleteSilence(early).code(), StatusCode::kNotFound);
  clock_.Advance(absl::Hours(1) + absl::Seconds(1));

  EXPECT_THAT(Silences(), IsEmpty());
  std::vector<std::string> heard;
  const JobSnapshot snapshot = manager().Snapshots().at(0);
  for (const v1::Alert& alert : snapshot.alerts) heard.push_back(alert.rule_name());
  EXPECT_THAT(heard, testing::Contains("EXPLODING_ABS"));
}

TEST_F(JobAlertsTest, SilencesAreOfRulesThatThereAre) {
  script_->Allow(0);
  Create("a", kManySteps);
  script_->AwaitBlocked();

  EXPECT_EQ(Silence("NO_SUCH_RULE", absl::Hours(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Silence("NON_FINITE", absl::Hours(-1)).status().code(), StatusCode::kInvalidArgument);
  Create("b");
  v1::SilenceRuleRequest early;
  early.set_job("jobs/b");
  early.set_rule_name("NON_FINITE");
  early.set_author("ann");
  early.mutable_duration()->set_seconds(60);
  EXPECT_EQ(manager().SilenceRule(early).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(JobAlertsTest, AJobThatFinishesNoStepIsStalledUntilTheNext) {
  script_->Allow(3);
  Create("a", kManySteps);
  script_->AwaitBlocked();
  Bell bell;
  const auto reader = manager().OpenAlerts("jobs/a", bell.Ringer());

  clock_.Advance(absl::Seconds(61));
  bell.Await();

  v1::Alert alert;
  int64_t dropped = 0;
  ASSERT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kAlert);
  EXPECT_EQ(alert.rule(), v1::RULE_ID_STALLED_JOB);
  EXPECT_EQ(alert.firing_step(), 3);
  EXPECT_GE(alert.first_value(), 61.0);
  script_->Allow(1);
  bell.Await();
  ASSERT_EQ(*(*reader)->Read(&alert, &dropped), JobManager::AlertReader::Outcome::kAlert);
  EXPECT_EQ(alert.state(), v1::Alert::STATE_RESOLVED);
}

TEST_F(JobAlertsTest, RulesOfAJobFollowItsSettings) {
  RunExploding(2);
  v1::ListRulesRequest of_job;
  of_job.set_job("jobs/a");
  const auto before = manager().ListRules(of_job);
  script_->AllowAll();
  v1::UpdateJobRequest update = UpdateOf("jobs/a", {"rules", "custom_rules"});
  v1::RuleSettings* const settings = update.mutable_job()->add_rules();
  settings->set_id(v1::RULE_ID_EXPLODING_ABS);
  settings->set_threshold(7.0);
  v1::CustomRule* const own = update.mutable_job()->add_custom_rules();
  own->set_name("OWN");
  own->set_expression("loss > 100");
  ASSERT_TRUE(manager().Update(update).ok());

  const auto after = manager().ListRules(of_job);
  const auto catalogue = manager().ListRules({});
  of_job.set_job("jobs/b");

  ASSERT_TRUE(before.ok() && after.ok() && catalogue.ok());
  EXPECT_EQ(before->rules(1).in_force().threshold(), 1000.0);
  EXPECT_EQ(after->rules(1).name(), "EXPLODING_ABS");
  EXPECT_EQ(after->rules(1).in_force().threshold(), 7.0);
  EXPECT_EQ(after->rules_size(), before->rules_size() + 1);
  EXPECT_EQ(after->rules().rbegin()->custom().expression(), "loss > 100");
  EXPECT_EQ(catalogue->rules_size(), before->rules_size());
  EXPECT_FALSE(catalogue->rules(1).has_in_force());
  EXPECT_EQ(manager().ListRules(of_job).status().code(), StatusCode::kNotFound);
}

TEST_F(JobAlertsTest, AWindowChangesBetweenTwoStepsAndKeepsWhatFits) {
  // No norm counts at first, for the job is somewhere when it is paused.
  std::atomic<double> norm = 0.0;
  script_->step_stats = [&norm](v1::StepStats* stats) {
    stats->set_norm_before(norm);
    stats->set_loss(1.0 + 1.0 / (1.0 + static_cast<double>(stats->step())));
  };
  script_->AllowAll();
  Create("a", kManySteps);
  ASSERT_TRUE(manager().Pause("jobs/a").ok());
  const auto advance = [&](double value, int64_t steps) {
    norm = value;
    v1::AdvanceJobRequest request;
    request.set_name("jobs/a");
    request.set_steps(steps);
    EXPECT_TRUE(manager().Advance(request).ok());
  };
  const auto set_window = [this](int64_t steps) {
    v1::UpdateJobRequest update = UpdateOf("jobs/a", {"rules"});
    v1::RuleSettings* const settings = update.mutable_job()->add_rules();
    settings->set_id(v1::RULE_ID_EXPLODING_REL);
    settings->set_window_steps(steps);
    settings->set_warmup_steps(0);
    return manager().Update(update).status();
  };
  // The loss may be found to stand still.
  const auto spikes = [this] {
    std::vector<v1::Alert> alerts = Alerts();
    std::erase_if(alerts, [](const auto& a) { return a.rule() != v1::RULE_ID_EXPLODING_REL; });
    return alerts;
  };
  advance(1.0, 40);
  advance(50.0, 3);  // Of 64 norms that the default window needs.
  ASSERT_THAT(spikes(), IsEmpty());

  ASSERT_TRUE(set_window(30).ok());
  EXPECT_EQ(set_window(1001).code(), StatusCode::kInvalidArgument);
  advance(1.0, 5);
  advance(60.0, 3);

  ASSERT_THAT(spikes(), SizeIs(1));
  EXPECT_EQ(spikes()[0].severity(), v1::SEVERITY_WARN);
  EXPECT_EQ(spikes()[0].firing_step(), manager().Get("jobs/a")->step() - 1);
}

TEST_F(JobAlertsTest, ReplayGivesTheAlertsOfTheRunAndOfOtherSettings) {
  RunExploding(30);
  v1::EvaluateRulesRequest request;
  request.set_name("jobs/a");

  const auto same = manager().EvaluateRules(request);
  v1::RuleSettings& higher = *request.add_rules();
  higher.set_id(v1::RULE_ID_EXPLODING_ABS);
  higher.set_threshold(1e4);
  v1::CustomRule& own = *request.add_custom_rules();
  own.set_name("BIG");
  own.set_expression("norm_before > 100 for 3");
  own.set_warmup_steps(0);
  const auto other = manager().EvaluateRules(request);

  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->steps(), 30);
  EXPECT_EQ(same->last_step(), 29);
  ASSERT_EQ(same->alerts_size(), 1);
  v1::Alert recorded = Alerts()[0];
  recorded.clear_name();
  v1::Alert replayed = same->alerts(0);
  EXPECT_EQ(replayed.firing_step(), recorded.firing_step());
  EXPECT_EQ(replayed.message(), recorded.message());
  EXPECT_EQ(replayed.fire_time().seconds(), recorded.fire_time().seconds());
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_EQ(other->alerts_size(), 1);
  EXPECT_EQ(other->alerts(0).rule_name(), "BIG");
  EXPECT_EQ(other->alerts(0).firing_step(), 7);
  EXPECT_EQ(Fired(), 1);
}

TEST_F(JobAlertsTest, ReplayKeepsToTheStepsThatAreAskedFor) {
  RunExploding(30);
  v1::EvaluateRulesRequest request;
  request.set_name("jobs/a");
  request.set_from_step(2);
  request.set_to_step(4);

  const auto calm = manager().EvaluateRules(request);

  ASSERT_TRUE(calm.ok()) << calm.status();
  EXPECT_EQ(calm->steps(), 3);
  EXPECT_EQ(calm->first_step(), 2);
  EXPECT_EQ(calm->last_step(), 4);
  EXPECT_EQ(calm->alerts_size(), 0);
}

TEST_F(JobAlertsTest, ReplayNamesEachBadField) {
  RunExploding(1);
  v1::EvaluateRulesRequest request;
  request.set_name("jobs/a");
  request.set_from_step(-1);
  request.add_rules();
  v1::CustomRule& own = *request.add_custom_rules();
  own.set_name("BIG");
  own.set_expression("norm_before >");

  const auto violations = FieldViolationsOf(manager().EvaluateRules(request).status());

  ASSERT_THAT(violations, SizeIs(3));
  EXPECT_EQ(violations[0].field, "rules[0].id");
  EXPECT_EQ(violations[1].field, "custom_rules[0].expression");
  EXPECT_THAT(violations[1].description, HasSubstr("column 14: wants a finite number"));
  EXPECT_EQ(violations[2].field, "from_step");
}

TEST_F(JobAlertsTest, CustomRulesOfAJobFireAndChangeWhileItRuns) {
  script_->Allow(5);
  v1::CreateJobRequest request = RequestOf("a", kManySteps);
  v1::CustomRule& own = *request.mutable_job()->add_custom_rules();
  own.set_name("ANY_LOSS");
  own.set_expression("loss > 0");
  own.set_warmup_steps(2);
  ASSERT_TRUE(manager().Create(request).ok());
  script_->AwaitBlocked();
  ASSERT_THAT(Alerts(), SizeIs(1));
  EXPECT_EQ(Alerts()[0].rule_name(), "ANY_LOSS");
  EXPECT_EQ(Alerts()[0].firing_step(), 2);

  script_->AllowAll();
  v1::UpdateJobRequest update = UpdateOf("jobs/a", {"custom_rules"});
  const auto updated = manager().Update(update);

  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(Alerts()[0].resolve_reason(), v1::Alert::RESOLVE_REASON_RULE_CHANGED);
  EXPECT_TRUE(updated->job().custom_rules().empty());
}

}  // namespace
}  // namespace gradwatch::jobs
