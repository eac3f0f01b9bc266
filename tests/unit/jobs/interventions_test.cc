#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "server/jobs/intervention_log.h"
#include "server/jobs/settings.h"
#include "server/train/trainer.h"
#include "tests/unit/jobs/job_testing.h"

// What changes a run after it was submitted: edits, steps on request, and the record of them.

namespace gradwatch::jobs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using v1::Intervention;
using v1::Job;

// --- The log.

Intervention EditAt(int64_t step) {
  Intervention edit;
  edit.set_kind(Intervention::KIND_EDIT);
  edit.set_step(step);
  return edit;
}

TEST(InterventionLogTest, KeepsTheNewestAndCountsAll) {
  InterventionLog log;
  constexpr int64_t kMore = 3;
  const auto kept = static_cast<int64_t>(InterventionLog::kKeptMax);
  for (int64_t i = 0; i < kept + kMore; ++i) log.Add("jobs/a", EditAt(i), false);

  const auto view = log.After(0, InterventionLog::kKeptMax);

  EXPECT_EQ(view.forgotten, kMore);
  ASSERT_EQ(view.kept.size(), InterventionLog::kKeptMax);
  EXPECT_EQ(view.kept.front()->name(), "jobs/a/interventions/4");
  EXPECT_EQ(log.total(), kept + kMore);
  EXPECT_EQ(log.newest()->step(), kept + kMore - 1);
  EXPECT_EQ(log.CountByKind()[Intervention::KIND_EDIT], kept + kMore);
}

TEST(InterventionLogTest, TellsEachOnce) {
  InterventionLog log;
  log.Add("jobs/a", EditAt(1), false);
  log.Add("jobs/a", EditAt(2), false);
  google::protobuf::RepeatedPtrField<Intervention> told;

  log.TakeUntold(&told);
  log.Add("jobs/a", EditAt(3), true);
  log.TakeUntold(&told);
  log.Add("jobs/a", EditAt(4), false);
  log.TakeUntold(&told);

  ASSERT_EQ(told.size(), 3);
  EXPECT_EQ(told.at(0).step(), 1);
  EXPECT_EQ(told.at(1).step(), 2);
  EXPECT_EQ(told.at(2).step(), 4);
}

// --- Edits.

class InterventionsTest : public JobManagerTest {
 protected:
  v1::ListInterventionsResponse List(absl::string_view parent, int page_size = 0,
                                     const std::string& token = "") {
    v1::ListInterventionsRequest request;
    request.set_parent(std::string(parent));
    request.set_page_size(page_size);
    request.set_page_token(token);
    const auto response = manager().ListInterventions(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *response : v1::ListInterventionsResponse();
  }

  // Creates jobs/{id} and stops it before step 3.
  void CreatePaused(const std::string& id, int64_t step_limit) {
    script_->Allow(2);
    Create(id, step_limit);
    script_->AwaitBlocked();
    std::thread gate([&] {
      AwaitState(absl::StrCat("jobs/", id), Job::STATE_PAUSING);
      script_->Allow(1);
    });
    EXPECT_TRUE(manager().Pause(absl::StrCat("jobs/", id)).ok());
    gate.join();
  }

  absl::StatusOr<v1::JobActionResponse> Advance(absl::string_view name, int64_t steps) {
    v1::AdvanceJobRequest request;
    request.set_name(std::string(name));
    request.set_steps(steps);
    return manager().Advance(request);
  }
};

TEST_F(InterventionsTest, AnEditIsRecordedWithAuthorStepAndValues) {
  script_->Allow(3);
  Create("a", kManySteps);
  script_->AwaitBlocked();
  auto update = UpdateOf("jobs/a", {"optimizer.learning_rate", "clipping", "training.truncation",
                                    "statistics_level", "labels"});
  update.set_author("ann");
  Job* const job = update.mutable_job();
  job->mutable_optimizer()->set_learning_rate(0.1);
  job->mutable_clipping();
  job->mutable_training()->set_truncation(7);
  job->set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  (*job->mutable_labels())["owner"] = "ann";
  absl::StatusOr<v1::UpdateJobResponse> response = absl::UnknownError("");
  std::thread updating([&] { response = manager().Update(update); });
  // The edit waits for the gate; steps pass until it has been applied.
  script_->AllowAll();
  updating.join();
  ASSERT_TRUE(response.ok()) << response.status();

  const v1::ListInterventionsResponse list = List("jobs/a");

  ASSERT_EQ(list.interventions_size(), 1);
  const Intervention& edit = list.interventions(0);
  EXPECT_EQ(edit.name(), "jobs/a/interventions/1");
  EXPECT_EQ(edit.kind(), Intervention::KIND_EDIT);
  EXPECT_EQ(edit.author(), "ann");
  EXPECT_EQ(edit.step(), response->effective_step());
  EXPECT_GE(edit.step(), 4);
  EXPECT_TRUE(edit.has_time());
  EXPECT_EQ(response->intervention().SerializeAsString(), edit.SerializeAsString());
  std::vector<std::string> changes;
  for (const v1::SettingChange& change : edit.changes()) {
    changes.push_back(
        absl::StrCat(change.path(), " ", change.old_value(), " ", change.new_value()));
  }
  EXPECT_THAT(changes,
              ElementsAre("optimizer.learning_rate 0.002 0.1",
                          "clipping {\"policies\":[{\"global_norm\":{\"max_norm\":1,\"order\":"
                          "\"NORM_ORDER_L2\",\"convention\":\"NORM_CONVENTION_TORCH\"}}]} {}",
                          "training.truncation  7",
                          "statistics_level \"STATISTICS_LEVEL_BASIC\" \"STATISTICS_LEVEL_FULL\""));
}

TEST_F(InterventionsTest, AnEditStandsInTheRecordOfItsFirstStep) {
  CreatePaused("a", 6);
  auto update = UpdateOf("jobs/a", {"optimizer.learning_rate"});
  update.mutable_job()->mutable_optimizer()->set_learning_rate(0.5);
  const auto response = manager().Update(update);
  ASSERT_TRUE(response.ok()) << response.status();
  script_->AllowAll();
  ASSERT_TRUE(manager().Resume("jobs/a").ok());
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  v1::QueryStatsRequest query;
  query.set_name("jobs/a");
  query.set_points(100);
  const auto history = manager().QueryStats(query);

  ASSERT_TRUE(history.ok());
  for (const v1::FoldedStats& bucket : history->buckets()) {
    const bool first = bucket.first_step() == response->effective_step();
    EXPECT_EQ(bucket.interventions_size(), first ? 1 : 0) << bucket.first_step();
  }
  const Job job = *manager().Get("jobs/a");
  EXPECT_EQ(job.interventions(), 1);
  EXPECT_EQ(job.latest_intervention().step(), response->effective_step());
}

TEST_F(InterventionsTest, OnlyWhatIsDifferentIsRecorded) {
  script_->Allow(0);
  Create("running");
  Create("a");
  auto same = UpdateOf("jobs/a", {"optimizer.learning_rate", "clipping", "display_name"});
  same.mutable_job()->set_display_name("a name changes no run");

  const auto response = manager().Update(same);

  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_FALSE(response->has_intervention());
  EXPECT_EQ(List("jobs/a").interventions_size(), 0);
}

TEST_F(InterventionsTest, ARefusedEditLeavesNoTrace) {
  script_->Allow(0);
  Create("a");
  auto update = UpdateOf("jobs/a", {"optimizer.learning_rate", "training.truncation"});
  update.mutable_job()->mutable_optimizer()->set_learning_rate(0.5);
  update.mutable_job()->mutable_training()->set_truncation(51);
  auto long_author = UpdateOf("jobs/a", {"clipping"});
  long_author.set_author(std::string(129, 'x'));

  const absl::Status refused = manager().Update(update).status();
  const absl::Status too_long = manager().Update(long_author).status();

  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("training.truncation"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1 to 50"));
  EXPECT_EQ(too_long.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_long.message()), HasSubstr("author"));
  EXPECT_EQ(List("jobs/a").interventions_size(), 0);
  EXPECT_EQ(manager().Get("jobs/a")->optimizer().learning_rate(), 0.002);
}

TEST_F(InterventionsTest, ListsInPagesThatBelongToTheirJob) {
  script_->Allow(0);
  Create("a");
  Create("b");
  for (const double rate : {0.1, 0.2, 0.3}) {
    auto update = UpdateOf("jobs/b", {"optimizer.learning_rate"});
    update.mutable_job()->mutable_optimizer()->set_learning_rate(rate);
    ASSERT_TRUE(manager().Update(update).ok());
  }

  const auto first = List("jobs/b", 2);
  const auto second = List("jobs/b", 2, first.next_page_token());

  EXPECT_EQ(first.interventions_size(), 2);
  ASSERT_EQ(second.interventions_size(), 1);
  EXPECT_EQ(second.interventions(0).name(), "jobs/b/interventions/3");
  EXPECT_EQ(second.next_page_token(), "");
  v1::ListInterventionsRequest other;
  other.set_parent("jobs/a");
  other.set_page_token(first.next_page_token());
  EXPECT_EQ(manager().ListInterventions(other).status().code(), absl::StatusCode::kInvalidArgument);
  other.set_parent("jobs/none");
  other.clear_page_token();
  EXPECT_EQ(manager().ListInterventions(other).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(InterventionsTest, TheCheckpointKnowsThem) {
  CreatePaused("a", 6);
  auto update = UpdateOf("jobs/a", {"optimizer.learning_rate"});
  update.mutable_job()->mutable_optimizer()->set_learning_rate(0.5);
  ASSERT_TRUE(manager().Update(update).ok());
  script_->AllowAll();
  ASSERT_TRUE(manager().Resume("jobs/a").ok());
  AwaitState("jobs/a", Job::STATE_SUCCEEDED);

  const auto weights = manager().GetWeights("jobs/a");

  ASSERT_TRUE(weights.ok());
  ASSERT_EQ(weights->checkpoint->interventions_size(), 1);
  EXPECT_EQ(weights->checkpoint->interventions(0).name(), "jobs/a/interventions/1");
}

TEST_F(InterventionsTest, WhatTheTrainerReportsIsNamedAndFollowed) {
  script_->step_stats = [](v1::StepStats* stats) {
    if (stats->step() != 4) return;
    Intervention* const stop = stats->add_interventions();
    stop->set_kind(Intervention::KIND_STOP);
    stop->set_step(4);
    stop->set_cause("nothing helped");
  };
  Create("a", 10);

  const Job job = AwaitState("jobs/a", Job::STATE_FAILED);

  EXPECT_EQ(job.failure().reason(), v1::Failure::REASON_LADDER_EXHAUSTED);
  EXPECT_EQ(job.failure().message(), "nothing helped");
  EXPECT_EQ(job.failure().step(), 4);
  EXPECT_EQ(job.step(), 5);
  EXPECT_EQ(job.latest_stats().interventions(0).name(), "jobs/a/interventions/1");
  ASSERT_EQ(List("jobs/a").interventions_size(), 1);
  EXPECT_EQ(List("jobs/a").interventions(0).author(), "ladder");
}

// --- What the ladder changes, and edits that wait meanwhile.

class LadderChangesTest : public InterventionsTest {
 protected:
  // Step 4 rolls back and moves the limit of jobs/a from 10 to 14; the job waits before that step.
  void CreateThatMovesOn() {
    limits_.step_boundary_wait = absl::ZeroDuration();
    script_->step_stats = [](v1::StepStats* stats) {
      if (stats->step() != 4) return;
      Intervention* const action = stats->add_interventions();
      action->set_kind(Intervention::KIND_ROLL_BACK);
      action->set_step(4);
      v1::SettingChange* const change = action->add_changes();
      change->set_path("training.step_limit");
      change->set_old_value("\"10\"");
      change->set_new_value("\"14\"");
    };
    script_->change_settings = [](const v1::StepStats& stats, Job* job) {
      if (stats.step() == 4) job->mutable_training()->set_step_limit(14);
    };
    script_->Allow(4);
    Create("a", 10);
    script_->AwaitBlocked();
  }

  // Leaves an edit that waits for the boundary behind step 4.
  void EditThatWaits(const v1::UpdateJobRequest& update) {
    const auto response = manager().Update(update);
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_TRUE(response->pending());
  }

  Job Finish() {
    script_->AllowAll();
    return AwaitState("jobs/a", Job::STATE_SUCCEEDED);
  }
};

TEST_F(LadderChangesTest, AJobGoesOnToTheStepLimitThatWasMoved) {
  CreateThatMovesOn();

  const Job job = Finish();

  EXPECT_EQ(job.training().step_limit(), 14);
  EXPECT_EQ(job.step(), 14);
}

TEST_F(LadderChangesTest, AnEditOfSomethingElseDoesNotLoseTheStepLimit) {
  CreateThatMovesOn();
  auto update = UpdateOf("jobs/a", {"optimizer.learning_rate"});
  update.mutable_job()->mutable_optimizer()->set_learning_rate(0.5);
  EditThatWaits(update);

  const Job job = Finish();

  EXPECT_EQ(job.optimizer().learning_rate(), 0.5);
  EXPECT_EQ(job.step(), 14);
  ASSERT_EQ(List("jobs/a").interventions_size(), 2);
}

// It was asked for before, but holds from a later step on; the audit says what it replaced.
TEST_F(LadderChangesTest, AnEditOfTheStepLimitThatWaitsReplacesIt) {
  CreateThatMovesOn();
  auto update = UpdateOf("jobs/a", {"training.step_limit"});
  update.mutable_job()->mutable_training()->set_step_limit(12);
  EditThatWaits(update);

  const Job job = Finish();

  EXPECT_EQ(job.training().step_limit(), 12);
  EXPECT_EQ(job.step(), 12);
  const auto list = List("jobs/a");
  ASSERT_EQ(list.interventions_size(), 2);
  EXPECT_EQ(list.interventions(0).kind(), Intervention::KIND_ROLL_BACK);
  EXPECT_EQ(list.interventions(1).kind(), Intervention::KIND_EDIT);
  EXPECT_EQ(list.interventions(1).step(), 5);
  EXPECT_EQ(list.interventions(1).changes(0).old_value(), "\"14\"");
  EXPECT_EQ(list.interventions(1).changes(0).new_value(), "\"12\"");
}

// --- Advance.

TEST_F(InterventionsTest, AdvanceRunsSoManyStepsAndPausesAgain) {
  CreatePaused("a", 10);
  script_->AllowAll();
  const int64_t before = manager().Get("jobs/a")->step();

  const auto advanced = Advance("jobs/a", 4);

  ASSERT_TRUE(advanced.ok()) << advanced.status();
  EXPECT_EQ(advanced->effective_step(), before + 4);
  EXPECT_EQ(advanced->job().state(), Job::STATE_PAUSED);
  EXPECT_EQ(advanced->job().step(), before + 4);
  v1::AdvanceJobRequest one;
  one.set_name("jobs/a");
  EXPECT_EQ(manager().Advance(one)->job().step(), before + 5);
}

TEST_F(InterventionsTest, AdvanceOntoTheStepLimitSucceeds) {
  CreatePaused("a", 6);
  script_->AllowAll();

  const auto advanced = Advance("jobs/a", 1000);

  ASSERT_TRUE(advanced.ok()) << advanced.status();
  EXPECT_EQ(advanced->job().state(), Job::STATE_SUCCEEDED);
}

TEST_F(InterventionsTest, AResumeTakesTheEndOfAnAdvanceBack) {
  CreatePaused("a", 10);
  absl::StatusOr<v1::JobActionResponse> advanced = absl::UnknownError("");
  script_->Allow(0);
  std::thread advancing([&] { advanced = Advance("jobs/a", 3); });
  AwaitState("jobs/a", Job::STATE_RUNNING);

  ASSERT_TRUE(manager().Resume("jobs/a").ok());
  advancing.join();
  script_->AllowAll();

  EXPECT_TRUE(advanced.ok()) << advanced.status();
  EXPECT_EQ(AwaitJob("jobs/a", [](const Job& job) { return job.state() > Job::STATE_CANCELLING; })
                .state(),
            Job::STATE_SUCCEEDED);
}

TEST_F(InterventionsTest, AdvanceNeedsAPausedJobAndAPositiveNumber) {
  script_->Allow(0);
  Create("a");
  AwaitState("jobs/a", Job::STATE_RUNNING);

  EXPECT_EQ(Advance("jobs/a", 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Advance("jobs/a", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Advance("jobs/none", 1).status().code(), absl::StatusCode::kNotFound);
}

// --- Edits at random give the run of the same schedule.

// Any setting that a run may change, anew.
void Draw(std::mt19937* random, v1::UpdateJobRequest* update) {
  const auto below = [random](int n) { return static_cast<int>((*random)() % n); };
  Job* const job = update->mutable_job();
  do {
    if (below(3) == 0) {
      job->mutable_optimizer()->set_learning_rate(0.001 * (1 + below(20)) / 3.0);
      update->mutable_update_mask()->add_paths("optimizer.learning_rate");
    }
    if (below(3) == 0) {
      v1::Clipping* const clipping = job->mutable_clipping();
      if (below(2) == 0) clipping->add_policies()->mutable_value()->set_maximum(0.01);
      if (below(2) == 0) {
        clipping->add_policies()->mutable_global_norm()->set_max_norm(0.05 * (1 + below(9)));
      }
      update->mutable_update_mask()->add_paths("clipping");
    }
    if (below(3) == 0) {
      if (below(3) > 0) job->mutable_training()->set_truncation(1 + below(20));
      update->mutable_update_mask()->add_paths("training.truncation");
    }
    if (below(4) == 0) {
      job->mutable_training()->set_step_limit(100 + below(100));
      update->mutable_update_mask()->add_paths("training.step_limit");
    }
    if (below(3) == 0) {
      job->set_statistics_level(static_cast<v1::StatisticsLevel>(1 + below(3)));
      update->mutable_update_mask()->add_paths("statistics_level");
    }
    if (below(3) == 0) {
      v1::RuleSettings* const rule = job->add_rules();
      rule->set_id(v1::RULE_ID_EXPLODING_ABS);
      rule->set_threshold(0.5 + below(5));
      update->mutable_update_mask()->add_paths("rules");
    }
  } while (update->update_mask().paths().empty());
}

// The settings of `job` with the changes of one edit of the audit.
void Replay(const Intervention& edit, Job* job) {
  for (const v1::SettingChange& change : edit.changes()) {
    std::string json = change.new_value();
    Job values;
    if (!json.empty()) {
      const std::vector<std::string> parts = absl::StrSplit(change.path(), '.');
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        json = absl::StrCat("{\"", *part, "\":", json, "}");
      }
      ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &values).ok()) << json;
    }
    ApplyPaths(values, {change.path()}, job);
  }
}

// A record without what only a job in a server has.
std::string Numbers(v1::StepStats stats) {
  stats.clear_time();
  stats.clear_duration_us();
  stats.clear_interventions();
  return stats.SerializeAsString();
}

class ReplayTest : public testing::TestWithParam<uint32_t> {
 protected:
  ReplayTest() {
    limits_.running_max = 1;
    limits_.step_boundary_wait = absl::Seconds(60);
    manager_ = std::make_unique<JobManager>(limits_, &datasets_, &clock_);
  }

  v1::CreateJobRequest SmallJob() const {
    v1::CreateJobRequest request = RequestOf("a", 150);
    Job* const job = request.mutable_job();
    job->set_seed(GetParam());
    job->mutable_model()->set_hidden_units(8);
    job->mutable_training()->set_batch_size(4);
    job->mutable_task()->mutable_adding()->set_time_steps(20);
    job->mutable_evaluation()->set_every_steps(25);
    job->mutable_evaluation()->set_examples(8);
    if (GetParam() % 2 == 0) Guard(job);
    return request;
  }

  // With a ladder that has something to do, and that never ends the job.
  static void Guard(Job* job) {
    v1::ResponseLadder* const ladder = job->mutable_ladder();
    ladder->set_skips_max(1);
    ladder->set_checkpoint_every_steps(10);
    ladder->set_calm_steps(4);
    ladder->set_rate_restore_steps(15);
    ladder->set_rollbacks_max(100);
    ladder->set_batches_skipped(3);
    job->mutable_fault_injection()->set_first_batch(30);
    job->mutable_fault_injection()->set_batches(10);
    job->mutable_fault_injection()->set_factor(1e4);
  }

  // Edits and advances until the job has ended; after a few edits it also runs freely, so that
  // edits come at whatever step it is in.
  void Disturb() {
    std::mt19937 random(GetParam());
    for (int round = 0;; ++round) {
      v1::UpdateJobRequest update = UpdateOf("jobs/a", {});
      update.set_author(absl::StrCat("seed ", GetParam()));
      Draw(&random, &update);
      if (round >= 5 && random() % 2 == 0) manager_->Resume("jobs/a").IgnoreError();
      const absl::Status updated = manager_->Update(update).status();
      if (absl::IsFailedPrecondition(updated)) return;  // It has ended.
      // A step limit below the steps that are done.
      ASSERT_TRUE(updated.ok() || absl::IsInvalidArgument(updated)) << updated;
      manager_->Pause("jobs/a").IgnoreError();
      v1::AdvanceJobRequest advance;
      advance.set_name("jobs/a");
      advance.set_steps(1 + static_cast<int64_t>(random() % 20));
      manager_->Advance(advance).IgnoreError();
    }
  }

  std::vector<v1::StepStats> History() { return ReadHistory("jobs/a", manager_.get()); }

  FakeClock clock_;
  DatasetStore datasets_{DatasetLimits(), &clock_};
  JobLimits limits_;
  std::unique_ptr<JobManager> manager_;
};

TEST_P(ReplayTest, RandomEditsGiveTheRunOfTheirAuditBitForBit) {
  // Another job has the place until this one stands before its first step.
  ASSERT_TRUE(manager_->Create(RequestOf("first", 1'000'000'000)).ok());
  const auto created = manager_->Create(SmallJob());
  ASSERT_TRUE(created.ok()) << created.status();
  ASSERT_EQ(manager_->Pause("jobs/a")->effective_step(), 0);
  ASSERT_TRUE(manager_->Cancel("jobs/first").ok());
  Disturb();
  const std::vector<v1::StepStats> history = History();
  v1::ListInterventionsRequest list;
  list.set_parent("jobs/a");
  list.set_page_size(1000);
  const auto audit = manager_->ListInterventions(list);
  ASSERT_TRUE(audit.ok());

  // A trainer of its own, from the job as it was submitted and the audit alone.
  Job job = *created;
  auto trainer = train::Trainer::Create(job, nullptr);
  ASSERT_TRUE(trainer.ok());
  int next = 0;
  std::vector<std::string> told;
  for (const v1::StepStats& recorded : history) {
    const auto is_next = [&](bool edit) {
      if (next == audit->interventions_size()) return false;
      const Intervention& one = audit->interventions(next);
      return one.step() == recorded.step() && (one.kind() == Intervention::KIND_EDIT) == edit;
    };
    for (; is_next(true); ++next) {
      Replay(audit->interventions(next), &job);
      ASSERT_TRUE((*trainer)->ApplySettings(job).ok());
      // Made anew with these settings, so that nothing of the old ones can be left.
      trainer = train::Trainer::Restore(job, nullptr, (*trainer)->Save());
      ASSERT_TRUE(trainer.ok()) << trainer.status();
    }
    v1::StepStats replayed;
    (*trainer)->Step(&replayed);
    ASSERT_EQ(Numbers(replayed), Numbers(recorded)) << "step " << recorded.step();
    // The ladder does the same again; what it did to settings is in force from here on.
    for (const Intervention& action : replayed.interventions()) {
      ASSERT_TRUE(is_next(false)) << action.DebugString();
      EXPECT_EQ(action.kind(), audit->interventions(next).kind());
      EXPECT_EQ(action.cause(), audit->interventions(next).cause());
      EXPECT_EQ(action.changes_size(), audit->interventions(next).changes_size());
      Replay(audit->interventions(next++), &job);
    }
    EXPECT_FALSE(is_next(false));
    for (const Intervention& one : recorded.interventions()) {
      EXPECT_EQ(one.step(), recorded.step());
      told.push_back(one.name());
    }
  }

  EXPECT_GT(next, 3);
  EXPECT_EQ((*trainer)->Save().weights(), manager_->GetWeights("jobs/a")->checkpoint->weights());
  const Job& settings = (*trainer)->settings();
  EXPECT_EQ(settings.optimizer().learning_rate(), job.optimizer().learning_rate());
  EXPECT_EQ(settings.training().step_limit(), job.training().step_limit());
  // What came after the last step has none to stand in.
  EXPECT_EQ(told.size(), static_cast<size_t>(next));
  for (size_t i = 0; i < told.size(); ++i) {
    EXPECT_EQ(told[i], audit->interventions(static_cast<int>(i)).name());
  }
  for (; next < audit->interventions_size(); ++next) Replay(audit->interventions(next), &job);
  EXPECT_EQ(static_cast<int64_t>(history.size()), job.training().step_limit());
}

TEST_P(ReplayTest, EveryActionOfTheLadderIsListedAndSeen) {
  v1::CreateJobRequest request = SmallJob();
  Guard(request.mutable_job());
  request.mutable_job()->mutable_ladder()->set_rate_restore_steps(0);
  ASSERT_TRUE(manager_->Create(request).ok());
  const std::vector<v1::StepStats> history = History();

  v1::ListInterventionsRequest list;
  list.set_parent("jobs/a");
  const auto listed = manager_->ListInterventions(list);

  ASSERT_TRUE(listed.ok());
  std::map<Intervention::Kind, int64_t> counts;
  for (const Intervention& action : listed->interventions()) {
    EXPECT_EQ(action.author(), "ladder");
    EXPECT_NE(action.cause(), "");
    EXPECT_TRUE(history[static_cast<size_t>(action.step())].skipped());
    ++counts[action.kind()];
  }
  EXPECT_GE(counts[Intervention::KIND_SKIP], 1);
  EXPECT_EQ(counts[Intervention::KIND_LOWER_RATE], 1);
  EXPECT_GE(counts[Intervention::KIND_ROLL_BACK], 1);
  EXPECT_EQ(counts[Intervention::KIND_RESTORE_RATE], 1);  // The data were to blame.
  EXPECT_EQ(manager_->Snapshots()[0].interventions_total, counts);
  const Job job = *manager_->Get("jobs/a");
  EXPECT_EQ(job.state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(job.interventions(), listed->interventions_size());
  EXPECT_EQ(job.optimizer().learning_rate(), 0.002);
}

TEST_P(ReplayTest, ARolledBackJobEndsWithAsManyUpdatesAsACleanOne) {
  v1::CreateJobRequest request = SmallJob();
  Guard(request.mutable_job());
  ASSERT_TRUE(manager_->Create(request).ok());
  const std::vector<v1::StepStats> history = History();

  v1::ListInterventionsRequest list;
  list.set_parent("jobs/a");
  const auto listed = manager_->ListInterventions(list);

  ASSERT_TRUE(listed.ok());
  Job moved = request.job();
  for (const Intervention& action : listed->interventions()) {
    const bool has_limit = std::any_of(
        action.changes().begin(), action.changes().end(),
        [](const v1::SettingChange& change) { return change.path() == "training.step_limit"; });
    EXPECT_EQ(has_limit, action.kind() == Intervention::KIND_ROLL_BACK);
    Replay(action, &moved);
  }
  const Job job = *manager_->Get("jobs/a");
  EXPECT_EQ(job.state(), Job::STATE_SUCCEEDED);
  EXPECT_GT(job.training().step_limit(), 150);
  EXPECT_EQ(job.training().step_limit(), moved.training().step_limit());
  EXPECT_EQ(job.step(), job.training().step_limit());
  EXPECT_EQ(static_cast<int64_t>(history.size()), job.step());
  EXPECT_EQ(job.updates_applied(), 150);
  EXPECT_EQ(history.back().updates_applied(), 150);
}

// The rest is trained by another trainer, made from the checkpoint.
TEST_P(ReplayTest, AMovedStepLimitOutlivesAPause) {
  ASSERT_TRUE(manager_->Create(RequestOf("first", 1'000'000'000)).ok());
  v1::CreateJobRequest request = SmallJob();
  Guard(request.mutable_job());
  ASSERT_TRUE(manager_->Create(request).ok());
  ASSERT_EQ(manager_->Pause("jobs/a")->effective_step(), 0);
  ASSERT_TRUE(manager_->Cancel("jobs/first").ok());
  v1::AdvanceJobRequest advance;
  advance.set_name("jobs/a");
  advance.set_steps(60);

  const auto paused = manager_->Advance(advance);
  ASSERT_TRUE(paused.ok()) << paused.status();
  ASSERT_TRUE(manager_->Resume("jobs/a").ok());
  const std::vector<v1::StepStats> history = History();

  EXPECT_EQ(paused->job().step(), 60);
  EXPECT_EQ(paused->job().state(), Job::STATE_PAUSED);
  EXPECT_GT(paused->job().training().step_limit(), 150);
  const Job job = *manager_->Get("jobs/a");
  EXPECT_EQ(job.state(), Job::STATE_SUCCEEDED);
  EXPECT_EQ(job.training().step_limit(), paused->job().training().step_limit());
  EXPECT_EQ(static_cast<int64_t>(history.size()), job.training().step_limit());
  EXPECT_EQ(job.updates_applied(), 150);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ReplayTest, testing::Range(1u, 7u));

}  // namespace
}  // namespace gradwatch::jobs
