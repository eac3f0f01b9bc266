#include "server/train/ladder.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/data/source.h"
#include "server/train/recovery_points.h"
#include "server/train/schedule.h"
#include "server/train/trainer.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Action = Ladder::Action;
using v1::Intervention;

v1::ResponseLadder Spec() {
  v1::Job job;
  job.mutable_ladder();
  FillDefaults(&job);
  return job.ladder();
}

void MakeGood(int steps, Ladder* ladder) {
  for (int i = 0; i < steps; ++i) ladder->Good(1.0, 1.0);
}

// --- Decisions.

TEST(LadderTest, AStepIsBadFromTheFactorOn) {
  v1::ResponseLadder spec = Spec();
  spec.set_norm_factor(10);
  Ladder ladder(spec);
  EXPECT_EQ(ladder.WhatIsBad(1e30, 1e30), "");  // Nothing is known yet.
  ladder.Good(8.0, 3.0);
  for (int i = 0; i < 128; ++i) ladder.Good(1.0, 2.0);

  // A quarter of the first loss is above the median: 4 times 2.
  EXPECT_EQ(ladder.WhatIsBad(8.0, 20.0), "");
  EXPECT_THAT(ladder.WhatIsBad(8.1, 1.0),
              HasSubstr("the loss, 8.1, passes 8: 4 times a quarter of the first loss"));
  EXPECT_THAT(ladder.WhatIsBad(1.0, 20.1), HasSubstr("the gradient norm, 20.1, passes 20"));
  for (int i = 0; i < 128; ++i) ladder.Good(5.0, 2.0);
  EXPECT_EQ(ladder.WhatIsBad(19.9, 1.0), "");
  EXPECT_THAT(ladder.WhatIsBad(20.1, 1.0), HasSubstr("the median"));
}

TEST(LadderTest, AFactorOfZeroLooksAtNothing) {
  v1::ResponseLadder spec = Spec();
  spec.set_loss_factor(0);
  Ladder ladder(spec);
  MakeGood(10, &ladder);

  EXPECT_EQ(ladder.WhatIsBad(1e300, 1e300), "");
}

TEST(LadderTest, ClimbsOneRungAfterTheOtherAndEndsTheJob) {
  v1::ResponseLadder spec = Spec();
  spec.set_skips_max(1);
  spec.set_rate_cuts_max(1);
  spec.set_rollbacks_max(2);
  Ladder ladder(spec);
  MakeGood(5, &ladder);

  std::vector<Action> actions;
  for (int i = 0; i < 8; ++i) actions.push_back(ladder.Bad(true, true));

  EXPECT_THAT(actions,
              ElementsAre(Action::kSkip, Action::kLowerRate, Action::kSkip, Action::kRollBack,
                          Action::kSkip, Action::kRollBack, Action::kSkip, Action::kStop));
}

TEST(LadderTest, LeavesOutRungsThatDoNotExist) {
  v1::ResponseLadder spec = Spec();
  spec.set_skips_max(0);
  Ladder no_rate(spec), no_checkpoint(spec);

  EXPECT_EQ(no_rate.Bad(false, true), Action::kRollBack);
  EXPECT_EQ(no_checkpoint.Bad(false, false), Action::kStop);
}

TEST(LadderTest, CalmStepsEndAnEpisodeAndItStartsFromTheFirstRung) {
  v1::ResponseLadder spec = Spec();
  spec.set_skips_max(1);
  spec.set_calm_steps(10);
  Ladder ladder(spec);
  EXPECT_EQ(ladder.Bad(true, true), Action::kSkip);

  MakeGood(9, &ladder);
  EXPECT_TRUE(ladder.in_episode());
  EXPECT_EQ(ladder.Bad(true, true), Action::kLowerRate);
  MakeGood(10, &ladder);
  EXPECT_FALSE(ladder.in_episode());

  EXPECT_EQ(ladder.Bad(true, true), Action::kSkip);
}

TEST(LadderTest, TheRateIsDueAfterItsStepsUnlessSomebodyChangedIt) {
  v1::ResponseLadder spec = Spec();
  spec.set_rate_restore_steps(30);
  Ladder ladder(spec);
  ladder.NoteRate(0.5);
  ladder.NoteRate(0.25);  // Lowered twice: the first is the one to go back to.

  MakeGood(29, &ladder);
  EXPECT_FALSE(ladder.RateDue().has_value());
  MakeGood(1, &ladder);
  EXPECT_EQ(ladder.RateDue(), 0.5);
  ladder.ForgetRate();
  EXPECT_FALSE(ladder.RateDue().has_value());
}

TEST(LadderTest, TakesBackWhatThisEpisodeLowered) {
  v1::ResponseLadder spec = Spec();
  spec.set_skips_max(0);
  spec.set_rate_restore_steps(30);
  Ladder ladder(spec);
  const auto lower = [&ladder](double before) {
    EXPECT_EQ(ladder.Bad(true, true), Action::kLowerRate);
    ladder.NoteRate(before);
  };
  EXPECT_FALSE(ladder.TakeBackRate().has_value());

  lower(0.8);
  EXPECT_EQ(ladder.TakeBackRate(), 0.8);
  EXPECT_FALSE(ladder.TakeBackRate().has_value());
  MakeGood(30, &ladder);
  EXPECT_FALSE(ladder.RateDue().has_value());

  lower(0.8);  // An episode that was right to.
  MakeGood(25, &ladder);
  lower(0.4);
  EXPECT_EQ(ladder.TakeBackRate(), 0.4);
  MakeGood(25, &ladder);
  EXPECT_EQ(ladder.Bad(false, true), Action::kRollBack);
  EXPECT_FALSE(ladder.TakeBackRate().has_value());  // Another episode's.
  MakeGood(30, &ladder);
  EXPECT_EQ(ladder.RateDue(), 0.8);
}

// Otherwise every step of untrained weights would be bad for a run that had learnt something.
TEST(LadderTest, WhatIsNormalGoesBackWithTheWeights) {
  Ladder ladder(Spec());
  const Ladder::Estimates untrained = ladder.estimates();
  ladder.Good(1.0, 1.0);
  for (int i = 0; i < 200; ++i) ladder.Good(1e-3, 1.0);
  EXPECT_NE(ladder.WhatIsBad(1.5, 1.0), "");

  ladder.Restore(untrained);

  EXPECT_EQ(ladder.WhatIsBad(1.5, 1.0), "");
  EXPECT_NE(ladder.WhatIsBad(4.1, 1.0), "");
}

// --- Checkpoints.

TEST(RecoveryPointsTest, NeverTakesANumberThatIsNotFinite) {
  const float bad[] = {1.0f, std::numeric_limits<float>::quiet_NaN()};
  const float huge[] = {1.0f, std::numeric_limits<float>::infinity()};
  const float good[] = {1.0f, 2.0f};
  RecoveryPoints<float> points(2, 1, 2, 2);

  EXPECT_FALSE(points.Propose(bad, good));
  EXPECT_FALSE(points.Propose(good, huge));
  EXPECT_FALSE(points.has_candidate());
  EXPECT_TRUE(points.Propose(good, good));
}

TEST(RecoveryPointsTest, ACandidateCountsOnceGoodStepsFollowedAndTheOldestMakesRoom) {
  RecoveryPoints<float> points(2, 1, 1, 0);
  const auto propose = [&points](float value) {
    EXPECT_TRUE(points.Propose(absl::MakeConstSpan(&value, 1), {}));
    points.candidate().step = static_cast<int64_t>(value);
  };
  propose(1);
  points.NoteGood(2);
  EXPECT_TRUE(points.empty());
  points.NoteGood(2);
  EXPECT_EQ(points.newest().weights[0], 1);
  propose(2);
  points.DropCandidate();
  points.NoteGood(1);
  EXPECT_EQ(points.newest().weights[0], 1);
  for (const float value : {3.0f, 4.0f}) {
    propose(value);
    points.Prove();
  }

  EXPECT_EQ(points.newest().weights[0], 4);
  EXPECT_EQ(points.next(false).weights[0], 4);
  EXPECT_EQ(points.next(true).weights[0], 3);
  points.DropNewest();
  EXPECT_EQ(points.next(true).weights[0], 3);
  EXPECT_EQ(points.newest().weights[0], 3);
  points.DropNewest();  // The only one stays.
  EXPECT_EQ(points.newest().weights[0], 3);
}

// The newest is at hand, and for when that is no good, some from well before it.
TEST(RecoveryPointsTest, KeepsTheNewestAndBeforeItOnesThatAreFarApart) {
  RecoveryPoints<float> points(3, 40, 1, 0);
  const auto prove = [&points](int64_t step) {
    const auto value = static_cast<float>(step);
    EXPECT_TRUE(points.Propose(absl::MakeConstSpan(&value, 1), {}));
    points.candidate().step = step;
    points.Prove();
  };
  const auto kept = [&points] {  // By going back to one after the other.
    RecoveryPoints<float> copy(3, 40, 1, 0);
    stats::StateWriter writer;
    points.SaveState(&writer);
    stats::StateReader reader(writer.bytes());
    EXPECT_TRUE(copy.LoadState(&reader));
    std::vector<int64_t> steps;
    for (int i = 0; i < 3; ++i, copy.DropNewest()) {
      EXPECT_EQ(copy.newest().weights[0], static_cast<float>(copy.newest().step));
      steps.push_back(copy.newest().step);
    }
    return steps;
  };

  for (int64_t step = 0; step <= 40; step += 10) prove(step);
  EXPECT_EQ(kept(), (std::vector<int64_t>{40, 0, 0}));
  for (int64_t step = 50; step <= 110; step += 10) prove(step);
  EXPECT_EQ(kept(), (std::vector<int64_t>{110, 80, 40}));
  prove(120);
  EXPECT_EQ(kept(), (std::vector<int64_t>{120, 80, 40}));
  prove(130);
  EXPECT_EQ(kept(), (std::vector<int64_t>{130, 120, 80}));
}

// --- In a trainer.

// D7 in small: learns adding within some hundred steps.
v1::Job SmallGated() {
  v1::Job job;
  job.set_name("jobs/gated");
  job.set_seed(1);
  job.mutable_task()->mutable_adding()->set_time_steps(10);
  job.mutable_model()->set_cell(v1::Model::CELL_GRU);
  job.mutable_model()->set_hidden_units(16);
  job.mutable_optimizer()->set_learning_rate(0.01);
  job.mutable_training()->set_step_limit(700);
  job.mutable_evaluation()->set_every_steps(0);
  FillDefaults(&job);
  return job;
}

struct Trained {
  double loss = 0.0;  // Evaluated at the end.
  bool lost = false;
  std::vector<Intervention> actions;
  std::vector<v1::StepStats> records;

  // Mean over the last steps, each on new examples.
  double FinalLoss() const {
    constexpr size_t kSteps = 30;
    double sum = 0.0;
    for (size_t i = records.size() - kSteps; i < records.size(); ++i) sum += records[i].loss();
    return sum / kSteps;
  }

  int Count(Intervention::Kind kind) const {
    int count = 0;
    for (const Intervention& action : actions) count += action.kind() == kind ? 1 : 0;
    return count;
  }
};

int64_t StepLimitOf(const Trainer& trainer) { return trainer.settings().training().step_limit(); }

double RateOf(const Trainer& trainer) { return trainer.settings().optimizer().learning_rate(); }

Trained Train(const v1::Job& job) {
  const auto trainer = *Trainer::Create(job, nullptr);
  Trained run;
  while (trainer->step() < StepLimitOf(*trainer) && !run.lost) {
    trainer->Step(&run.records.emplace_back());
    const v1::StepStats& record = run.records.back();
    for (const Intervention& action : record.interventions()) {
      EXPECT_EQ(action.step(), record.step());
      run.actions.push_back(action);
      run.lost = run.lost || action.kind() == Intervention::KIND_STOP;
    }
    if (!job.has_ladder() && trainer->nonfinite_in_a_row() >= 5) run.lost = true;
  }
  run.loss = trainer->Evaluate().loss();
  return run;
}

void Guard(v1::Job* job) {
  job->mutable_ladder();
  FillDefaults(job);
}

void Spoil(int64_t first, int64_t batches, bool not_a_number, v1::Job* job) {
  v1::FaultInjection* const fault = job->mutable_fault_injection();
  fault->set_first_batch(first);
  fault->set_batches(batches);
  if (not_a_number) {
    fault->set_not_a_number(true);
  } else {
    fault->set_factor(1e4);
  }
}

TEST(LadderTrainerTest, AHealthyRunHasTheBitsOfOneWithoutALadder) {
  const v1::Job plain = SmallGated();
  v1::Job guarded = plain;
  Guard(&guarded);

  const Trained a = Train(plain), b = Train(guarded);

  ASSERT_EQ(a.records.size(), b.records.size());
  for (size_t i = 0; i < a.records.size(); ++i) {
    v1::StepStats record = b.records[i];
    record.clear_last_good_step();  // The only thing that a ladder adds.
    EXPECT_EQ(a.records[i].SerializeAsString(), record.SerializeAsString());
  }
  EXPECT_TRUE(b.actions.empty());
}

TEST(LadderTrainerTest, RescuesARunFromOneBadBatch) {
  v1::Job job = SmallGated();
  const double clean = Train(job).loss;
  Spoil(650, 1, false, &job);
  v1::Job guarded = job;
  Guard(&guarded);

  const Trained alone = Train(job), rescued = Train(guarded);

  EXPECT_GT(alone.loss, 1.1 * clean);
  EXPECT_LE(rescued.loss, 1.1 * clean);
  ASSERT_EQ(rescued.actions.size(), 1u);
  EXPECT_EQ(rescued.actions[0].kind(), Intervention::KIND_SKIP);
  EXPECT_EQ(rescued.actions[0].step(), 650);
  EXPECT_THAT(rescued.actions[0].cause(), HasSubstr("the loss, "));
  EXPECT_TRUE(rescued.records[650].skipped());
}

TEST(LadderTrainerTest, RescuesARunFromAStretchOfBadBatches) {
  for (const bool not_a_number : {false, true}) {
    v1::Job job = SmallGated();
    job.mutable_training()->set_step_limit(1500);
    Spoil(1440, 20, not_a_number, &job);
    v1::Job guarded = job;
    Guard(&guarded);

    const Trained alone = Train(job), rescued = Train(guarded);

    EXPECT_TRUE(alone.lost || alone.FinalLoss() > 10.0 * rescued.FinalLoss()) << not_a_number;
    EXPECT_FALSE(rescued.lost);
    EXPECT_EQ(rescued.Count(Intervention::KIND_LOWER_RATE), 1);
    EXPECT_EQ(rescued.Count(Intervention::KIND_ROLL_BACK), 1);
    // The data were to blame: the rate is what it was.
    EXPECT_EQ(rescued.Count(Intervention::KIND_RESTORE_RATE), 1);
    EXPECT_EQ(rescued.records[1447].learning_rate(), 0.005);
    EXPECT_EQ(rescued.records[1448].learning_rate(), 0.01);
    for (const Intervention& action : rescued.actions) EXPECT_NE(action.cause(), "");
  }
}

// Nothing is left of a stretch of bad batches but the steps that it took: from the roll back on the
// run has the bits of a clean one that went on from the checkpoint behind them.
TEST(LadderTrainerTest, ARescuedRunGoesOnLikeOneThatNeverSawTheBatches) {
  v1::Job clean = SmallGated();
  clean.mutable_training()->set_step_limit(200);
  v1::Job job = clean;
  Spoil(140, 20, false, &job);
  Guard(&job);
  const Trained rescued = Train(job);
  ASSERT_EQ(rescued.records[147].interventions_size(), 2);
  const Intervention& roll_back = rescued.records[147].interventions(0);
  ASSERT_EQ(roll_back.restored_step(), 120);

  const auto trainer = *Trainer::Create(clean, nullptr);
  v1::StepStats record;
  while (trainer->step() < roll_back.restored_step()) trainer->Step(&record);
  const auto source = *data::NewSource(clean, nullptr);
  source->Seek(148 + roll_back.batches_skipped());
  v1::Checkpoint checkpoint = trainer->Save();
  checkpoint.set_step(148);
  checkpoint.set_data_state(source->SaveState());
  const auto expected = *Trainer::Restore(clean, nullptr, checkpoint);

  ASSERT_EQ(rescued.records.size(), 228u);
  while (expected->step() < 228) {
    expected->Step(&record);
    v1::StepStats got = rescued.records[static_cast<size_t>(record.step())];
    got.clear_last_good_step();  // The only thing that a ladder adds.
    EXPECT_EQ(got.SerializeAsString(), record.SerializeAsString()) << record.step();
  }
  EXPECT_EQ(expected->updates_applied(), 200);  // As many as the clean run has.
}

TEST(LadderTrainerTest, RollBackBringsBackWeightsOptimizerAndCounter) {
  v1::Job job = SmallGated();
  Guard(&job);
  job.mutable_ladder()->set_skips_max(0);
  job.mutable_ladder()->set_rate_cuts_max(0);
  job.mutable_ladder()->set_checkpoint_every_steps(10);
  job.mutable_ladder()->set_calm_steps(3);
  Spoil(25, 1, true, &job);
  const auto trainer = *Trainer::Create(job, nullptr);
  v1::StepStats record;
  v1::Checkpoint at_20;
  while (trainer->step() <= 25) {
    if (trainer->step() == 20) at_20 = trainer->Save();
    trainer->Step(&record);
  }

  const v1::Checkpoint after = trainer->Save();

  ASSERT_EQ(record.interventions_size(), 1);
  EXPECT_EQ(record.interventions(0).kind(), Intervention::KIND_ROLL_BACK);
  EXPECT_EQ(record.interventions(0).restored_step(), 20);
  EXPECT_EQ(record.interventions(0).batches_skipped(), 50);
  EXPECT_EQ(after.weights(), at_20.weights());
  EXPECT_EQ(after.optimizer_state(), at_20.optimizer_state());
  EXPECT_EQ(after.updates_applied(), 20);
  EXPECT_EQ(after.step(), 26);
  trainer->Step(&record);
  EXPECT_EQ(record.batch_origin(), (26 + 50) * 32);  // Batches of 32 examples.
  EXPECT_EQ(record.updates_applied(), 21);
}

// A ladder that goes back at each bad step, with checkpoints of steps 10, 20 and so on.
void GoBackAtOnce(v1::Job* job) {
  Guard(job);
  job->mutable_ladder()->set_skips_max(0);
  job->mutable_ladder()->set_rate_cuts_max(0);
  job->mutable_ladder()->set_checkpoint_every_steps(10);
  job->mutable_ladder()->set_calm_steps(3);
  job->mutable_ladder()->set_batches_skipped(2);
}

// By how much each roll back moved the step limit; the changes join on to each other.
std::vector<int64_t> MovesOf(const Trained& run, int64_t step_limit) {
  std::vector<int64_t> moves;
  for (const Intervention& action : run.actions) {
    EXPECT_EQ(action.kind(), Intervention::KIND_ROLL_BACK);
    EXPECT_EQ(action.changes_size(), 1);
    const v1::SettingChange& change = action.changes(0);
    EXPECT_EQ(change.path(), "training.step_limit");
    EXPECT_EQ(change.old_value(), absl::StrCat("\"", step_limit, "\""));
    const int64_t before = step_limit;
    EXPECT_EQ(std::sscanf(change.new_value().c_str(), "\"%" SCNd64 "\"", &step_limit), 1);
    moves.push_back(step_limit - before);
  }
  return moves;
}

TEST(LadderTrainerTest, ARollBackMovesTheStepLimitOnByTheStepsThatItTookBack) {
  struct Case {
    int64_t bad, restored, moved;
  };
  for (const Case& one : {Case{25, 20, 6}, Case{39, 30, 10}, Case{2, 0, 3}, Case{129, 120, 10}}) {
    v1::Job job = SmallGated();
    job.mutable_training()->set_step_limit(130);
    GoBackAtOnce(&job);
    Spoil(one.bad, 1, true, &job);

    const Trained run = Train(job);

    ASSERT_EQ(run.actions.size(), 1u) << one.bad;
    EXPECT_EQ(run.actions[0].restored_step(), one.restored);
    EXPECT_THAT(MovesOf(run, 130), ElementsAre(one.moved));
    EXPECT_EQ(run.records.size(), static_cast<size_t>(130 + one.moved));
    EXPECT_EQ(run.records.back().updates_applied(), 130);
  }
}

// Steps 95, 96 and 97 are bad. What lies between an older checkpoint and the last one, and all
// behind one that is gone back to again, was made up for before.
TEST(LadderTrainerTest, AStepIsTakenBackOnlyOnce) {
  for (const bool only_one : {false, true}) {
    v1::Job job = SmallGated();
    job.mutable_training()->set_step_limit(130);
    GoBackAtOnce(&job);
    if (only_one) job.mutable_ladder()->set_checkpoints(1);
    Spoil(95, 8, true, &job);

    const Trained run = Train(job);

    // To 90, 80 and 40, or three times to 90.
    EXPECT_EQ(MovesOf(run, 130),
              only_one ? (std::vector<int64_t>{6, 1, 1}) : (std::vector<int64_t>{6, 11, 41}));
    EXPECT_EQ(run.records.back().updates_applied(), 130);
  }
}

// The checkpoint of step 80 was taken behind a roll back and saved; then step 83 is bad.
TEST(LadderTrainerTest, ASavedCheckpointKnowsWhatWasTakenBackBeforeIt) {
  v1::Job job = SmallGated();
  job.mutable_training()->set_step_limit(130);
  GoBackAtOnce(&job);
  Spoil(25, 1, true, &job);
  const auto trainer = *Trainer::Create(job, nullptr);
  v1::StepStats record;
  while (trainer->step() < 83) trainer->Step(&record);
  ASSERT_EQ(record.last_good_step(), 80);
  ASSERT_EQ(StepLimitOf(*trainer), 136);
  v1::Job later = trainer->settings();
  Spoil(83 + 2, 1, true, &later);

  const auto restored = *Trainer::Restore(later, nullptr, trainer->Save());
  restored->Step(&record);

  ASSERT_EQ(record.interventions_size(), 1);
  EXPECT_EQ(record.interventions(0).restored_step(), 80);
  EXPECT_EQ(StepLimitOf(*restored), 140);
  while (restored->step() < 140) restored->Step(&record);
  EXPECT_EQ(record.updates_applied(), 130);
}

// A step that was only left out is none that a roll back takes back.
TEST(LadderTrainerTest, ASkippedStepDoesNotMoveTheStepLimit) {
  v1::Job job = SmallGated();
  job.mutable_training()->set_step_limit(130);
  Guard(&job);
  Spoil(95, 2, true, &job);

  const Trained run = Train(job);

  EXPECT_EQ(run.Count(Intervention::KIND_SKIP), 2);
  EXPECT_EQ(run.records.size(), 130u);
  EXPECT_EQ(run.records.back().updates_applied(), 128);
}

TEST(LadderTrainerTest, TheStepLimitStaysWithinWhatIsAllowed) {
  for (const int64_t room : {6, 4, 0}) {
    v1::Job job = SmallGated();
    GoBackAtOnce(&job);
    Spoil(25, 1, true, &job);
    job.mutable_training()->set_step_limit(kStepLimitMax - room);
    const auto trainer = *Trainer::Create(job, nullptr);
    v1::StepStats record;

    while (trainer->step() <= 25) trainer->Step(&record);

    EXPECT_EQ(StepLimitOf(*trainer), kStepLimitMax);
    ASSERT_EQ(record.interventions_size(), 1);
    if (room == 0) {
      EXPECT_THAT(record.interventions(0).changes(), IsEmpty());
    } else {
      EXPECT_EQ(record.interventions(0).changes(0).new_value(), "\"1000000000\"");
    }
  }
}

// What somebody set is moved like what the job came with, and what comes later replaces it.
TEST(LadderTrainerTest, AStepLimitThatWasEditedIsMovedOn) {
  v1::Job job = SmallGated();
  GoBackAtOnce(&job);
  Spoil(25, 1, true, &job);
  const auto trainer = *Trainer::Create(job, nullptr);
  v1::StepStats record;
  while (trainer->step() < 15) trainer->Step(&record);
  job.mutable_training()->set_step_limit(300);
  ASSERT_TRUE(trainer->ApplySettings(job).ok());

  while (trainer->step() <= 25) trainer->Step(&record);

  EXPECT_EQ(StepLimitOf(*trainer), 306);
  job.mutable_training()->set_step_limit(200);
  ASSERT_TRUE(trainer->ApplySettings(job).ok());
  EXPECT_EQ(StepLimitOf(*trainer), 200);
}

TEST(LadderTrainerTest, TheEndOfAScheduleMovesWithTheStepLimit) {
  v1::Job job = SmallGated();
  job.mutable_training()->set_step_limit(60);
  job.mutable_optimizer()->mutable_warmup_cosine();
  GoBackAtOnce(&job);
  Spoil(25, 1, true, &job);

  const Trained run = Train(job);

  ASSERT_EQ(run.records.size(), 66u);
  for (const v1::StepStats& record : run.records) {
    const int64_t end = record.step() <= 25 ? 60 : 66;
    EXPECT_EQ(record.learning_rate(), LearningRateAt(job.optimizer(), end, record.step()));
  }
}

// Weights that a far too high rate made: good data are good again once the old ones are back.
TEST(LadderTrainerTest, TheRateStaysLowWhenTheWeightsWereToBlame) {
  v1::Job job = SmallGated();
  Guard(&job);
  const auto trainer = *Trainer::Create(job, nullptr);
  v1::StepStats record;
  while (trainer->step() < 100) trainer->Step(&record);
  job.mutable_optimizer()->set_learning_rate(5.0);
  ASSERT_TRUE(trainer->ApplySettings(job).ok());

  Intervention roll_back;
  while (!roll_back.has_restored_step() && trainer->step() < 130) {
    trainer->Step(&record);
    if (record.interventions_size() > 0) roll_back = record.interventions(0);
  }

  ASSERT_TRUE(roll_back.has_restored_step());
  EXPECT_EQ(record.interventions_size(), 1);
  EXPECT_EQ(RateOf(*trainer), 2.5);
}

// Wherever the run goes back to, the step before it had said so.
TEST(LadderTrainerTest, RecordsNameTheStepThatARollBackGoesTo) {
  v1::Job job = SmallGated();
  GoBackAtOnce(&job);
  Spoil(95, 8, true, &job);  // Going back three times within an episode.
  job.mutable_training()->set_step_limit(130);

  const Trained run = Train(job);

  std::vector<int64_t> restored;
  for (const Intervention& action : run.actions) {
    ASSERT_EQ(action.kind(), Intervention::KIND_ROLL_BACK);
    restored.push_back(action.restored_step());
    EXPECT_EQ(run.records[static_cast<size_t>(action.step() - 1)].last_good_step(),
              action.restored_step());
  }
  EXPECT_EQ(restored, (std::vector<int64_t>{90, 80, 40}));
  EXPECT_EQ(run.records[0].last_good_step(), 0);
  EXPECT_EQ(run.records[12].last_good_step(), 10);  // Proven by steps 10, 11 and 12.
  EXPECT_EQ(run.records[11].last_good_step(), 0);
  EXPECT_FALSE(Train(SmallGated()).records[0].has_last_good_step());
}

// Bad steps right after a checkpoint was taken: it is not the one to go back to.
TEST(LadderTrainerTest, AnUnprovenCheckpointIsNotGoneBackTo) {
  v1::Job job = SmallGated();
  Guard(&job);
  job.mutable_ladder()->set_skips_max(0);
  job.mutable_ladder()->set_rate_cuts_max(0);
  job.mutable_ladder()->set_checkpoint_every_steps(10);
  job.mutable_ladder()->set_calm_steps(6);
  Spoil(25, 1, true, &job);

  const Trained run = Train(job);

  ASSERT_EQ(run.Count(Intervention::KIND_ROLL_BACK), 1);
  EXPECT_EQ(run.actions[0].restored_step(), 10);
}

TEST(LadderTrainerTest, EndsAJobThatCannotBeHelped) {
  v1::Job job = SmallGated();
  Guard(&job);
  Spoil(250, 1'000'000, true, &job);

  const Trained run = Train(job);

  EXPECT_TRUE(run.lost);
  EXPECT_EQ(run.Count(Intervention::KIND_LOWER_RATE), 1);
  EXPECT_EQ(run.Count(Intervention::KIND_ROLL_BACK), 3);
  EXPECT_EQ(run.Count(Intervention::KIND_SKIP), 5 * 3);
  EXPECT_EQ(run.Count(Intervention::KIND_RESTORE_RATE), 1);
  EXPECT_EQ(run.actions.back().kind(), Intervention::KIND_STOP);
  EXPECT_THAT(run.actions.back().cause(), HasSubstr("not finite, first in 'input'"));
  // Within one episode to an older checkpoint each time.
  std::vector<int64_t> restored;
  for (const Intervention& action : run.actions) {
    if (action.has_restored_step()) restored.push_back(action.restored_step());
  }
  EXPECT_THAT(restored, ElementsAre(240, 160, 80));
}

TEST(LadderTrainerTest, LowersTheRateAndPutsItBack) {
  v1::Job job = SmallGated();
  Guard(&job);
  job.mutable_ladder()->set_skips_max(0);
  job.mutable_ladder()->set_rate_restore_steps(30);
  Spoil(50, 1, true, &job);

  const Trained run = Train(job);

  ASSERT_EQ(run.actions.size(), 2u);
  EXPECT_EQ(run.actions[0].changes(0).path(), "optimizer.learning_rate");
  EXPECT_EQ(run.actions[0].changes(0).old_value(), "0.01");
  EXPECT_EQ(run.actions[0].changes(0).new_value(), "0.005");
  EXPECT_EQ(run.actions[1].kind(), Intervention::KIND_RESTORE_RATE);
  EXPECT_EQ(run.records[50].learning_rate(), 0.01);
  EXPECT_EQ(run.records[51].learning_rate(), 0.005);
  EXPECT_EQ(run.records[80].learning_rate(), 0.005);
  EXPECT_EQ(run.records[81].learning_rate(), 0.01);
}

TEST(LadderTrainerTest, ARateThatSomebodySetStays) {
  v1::Job job = SmallGated();
  Guard(&job);
  job.mutable_ladder()->set_skips_max(0);
  job.mutable_ladder()->set_rate_restore_steps(30);
  Spoil(50, 1, true, &job);
  const auto trainer = *Trainer::Create(job, nullptr);
  v1::StepStats record;
  while (trainer->step() < 60) trainer->Step(&record);
  EXPECT_EQ(RateOf(*trainer), 0.005);

  job.mutable_optimizer()->set_learning_rate(0.003);
  ASSERT_TRUE(trainer->ApplySettings(job).ok());
  while (trainer->step() < 200) trainer->Step(&record);

  EXPECT_EQ(RateOf(*trainer), 0.003);
}

// Also in the middle of an episode, and with everything that the ladder remembers.
TEST(LadderTrainerTest, GoesOnBitForBitFromACheckpoint) {
  v1::Job job = SmallGated();
  Guard(&job);
  job.mutable_ladder()->set_skips_max(1);
  job.mutable_ladder()->set_batches_skipped(1);
  job.mutable_ladder()->set_checkpoint_every_steps(15);
  job.mutable_ladder()->set_calm_steps(5);
  job.mutable_training()->set_step_limit(120);
  Spoil(60, 12, false, &job);
  const Trained straight = Train(job);

  for (const int64_t stop : {0, 31, 62, 65, 80}) {
    auto trainer = *Trainer::Create(job, nullptr);
    v1::StepStats record;
    while (trainer->step() < stop) trainer->Step(&record);
    auto restored = Trainer::Restore(trainer->settings(), nullptr, trainer->Save());
    ASSERT_TRUE(restored.ok()) << restored.status();
    while ((*restored)->step() < StepLimitOf(**restored)) {
      (*restored)->Step(&record);
      ASSERT_EQ(record.SerializeAsString(),
                straight.records[static_cast<size_t>(record.step())].SerializeAsString())
          << "stopped at " << stop << ", step " << record.step();
    }
    EXPECT_EQ(static_cast<size_t>((*restored)->step()), straight.records.size());
  }
  EXPECT_EQ(straight.Count(Intervention::KIND_ROLL_BACK), 3);
}

TEST(LadderTrainerTest, AStateThatIsCarriedStartsFromZeroAfterARollBack) {
  TestJob made = MakeJob(Kind::kForecast);
  Guard(&made.job);
  made.job.mutable_ladder()->set_skips_max(0);
  made.job.mutable_ladder()->set_rate_cuts_max(0);
  made.job.mutable_ladder()->set_batches_skipped(2);
  Spoil(6, 1, true, &made.job);
  const auto trainer = NewTrainer(made);
  v1::StepStats record;

  while (trainer->step() < 7) trainer->Step(&record);

  ASSERT_EQ(record.interventions_size(), 1);
  ASSERT_EQ(record.interventions(0).kind(), Intervention::KIND_ROLL_BACK);
  const std::string carried = trainer->Save().carried_state();
  EXPECT_EQ(carried, std::string(carried.size(), '\0'));
}

}  // namespace
}  // namespace gradwatch::train
