// The scores of the detection benchmark, over results written by hand.
#include "tests/bench/detection_score.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/bench/detection_cause.h"

namespace gradwatch::bench {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

// "healthy" without any rule, "explosion" that RUNS_AWAY finds and PLATEAU may follow.
struct World {
  Corpus corpus;
  RunFamily healthy;
  RunFamily explosion;

  World() {
    corpus.causes["healthy"] = {};
    corpus.causes["explosion"] = {{"RUNS_AWAY", "FINITE"}, {"PLATEAU"}};
    healthy.name = "quiet";
    healthy.cause = "healthy";
    healthy.steps = healthy.lasts = 1000;
    explosion.name = "loud";
    explosion.cause = "explosion";
    explosion.steps = 100;
    explosion.onset = 20;
    explosion.lasts = 80;
  }

  RunResult Healthy(std::vector<Firing> firings) const {
    return {&healthy, 0, healthy.steps, -1, std::move(firings)};
  }
  RunResult Exploded(int64_t lost_at, std::vector<Firing> firings) const {
    return {&explosion, 3, lost_at + 5, lost_at, std::move(firings)};
  }
};

Firing Ours(const std::string& rule, int64_t step) { return {kOurRules, rule, step, 1, true, ""}; }

TEST(ShareTest, HasWilsonsInterval) {
  const Share share = {8, 10};

  EXPECT_THAT(share.value(), DoubleNear(0.8, 1e-12));
  // Newcombe 1998, method 3, as any table of it has.
  EXPECT_THAT(share.low(), DoubleNear(0.4902, 1e-4));
  EXPECT_THAT(share.high(), DoubleNear(0.9433, 1e-4));
}

TEST(ScoreRunsTest, CountsWhatIsFoundAfterTheOnset) {
  const World world;

  const Scores scores = ScoreRuns(
      world.corpus, {world.Exploded(60, {Ours("RUNS_AWAY", 40)}),
                     world.Exploded(60, {Ours("RUNS_AWAY", 10)}), world.Exploded(60, {})});

  const Score& ours = scores.groups.at(kOurRules);
  EXPECT_EQ(ours.recall.hits, 1);
  EXPECT_EQ(ours.recall.all, 3);
  EXPECT_THAT(scores.mistakes, ElementsAre("explosion: loud: not found (seeds 3)"));
}

TEST(ScoreRunsTest, LeavesOutACauseThatActedForLessThanTenSteps) {
  const World world;

  const Scores scores = ScoreRuns(world.corpus, {world.Exploded(21, {Ours("FINITE", 21)})});

  EXPECT_EQ(scores.groups.at(kOurRules).recall.all, 0);
}

TEST(ScoreRunsTest, LeavesOutACauseThatDidNotShowAndListsIt) {
  const World world;
  RunResult saturated = world.Exploded(60, {});
  saturated.shown = 9;
  RunResult exploded = world.Exploded(60, {Ours("RUNS_AWAY", 40)});
  exploded.shown = 10;

  const Scores scores = ScoreRuns(world.corpus, {saturated, exploded});

  EXPECT_EQ(scores.groups.at(kOurRules).recall.all, 1);
  EXPECT_EQ(scores.groups.at(kOurRules).recall_of_labels.all, 2);
  EXPECT_THAT(scores.absent, ElementsAre("explosion: loud (seeds 3)"));
  EXPECT_THAT(scores.mistakes, testing::IsEmpty());
}

v1::StepStats StepOf(double loss, double norm) {
  v1::StepStats stats;
  stats.set_loss(loss);
  stats.set_norm_before(norm);
  return stats;
}

TEST(CauseWatchTest, SeesLossesAndNormsThatExplode) {
  const World world;
  CauseWatch watch(world.explosion);

  for (int i = 0; i < 20; ++i) watch.Observe(StepOf(1.0, 2.0));
  EXPECT_EQ(watch.shown(), 0);
  watch.Observe(StepOf(10.5, 2.0));
  watch.Observe(StepOf(1.0, 20.5));
  watch.Observe(StepOf(std::nan(""), 2.0));

  EXPECT_EQ(watch.shown(), 3);
}

TEST(CauseWatchTest, SeesALossThatStandsStill) {
  World world;
  world.explosion.cause = "plateau";
  CauseWatch falls(world.explosion), stands(world.explosion);

  for (int i = 0; i < 300; ++i) {
    falls.Observe(StepOf(1.0 - 0.002 * i, 1.0));
    stands.Observe(StepOf(1.0 - 0.0001 * i, 1.0));
  }

  EXPECT_EQ(falls.shown(), 0);
  EXPECT_EQ(stands.shown(), 101);
}

TEST(CauseWatchTest, LeavesSettingsAlone) {
  const World world;

  EXPECT_FALSE(CauseWatch(world.healthy).shown().has_value());
}

TEST(ScoreRunsTest, TakesARuleThatFollowsFromTheCauseForTrue) {
  const World world;

  const Scores scores =
      ScoreRuns(world.corpus, {world.Exploded(60, {Ours("RUNS_AWAY", 40), Ours("PLATEAU", 50)}),
                               world.Healthy({Ours("PLATEAU", 500)})});

  const Score& ours = scores.groups.at(kOurRules);
  EXPECT_EQ(ours.precision.hits, 2);
  EXPECT_EQ(ours.precision.all, 3);
  EXPECT_EQ(scores.rules.at(kOurRules).at("PLATEAU").precision.hits, 1);
}

TEST(ScoreRunsTest, CountsAlarmsOfHealthyRunsWithReopenings) {
  const World world;
  Firing again = Ours("PLATEAU", 100);
  again.times = 3;
  Firing note = Ours("RUNS_AWAY", 100);
  note.alarm = false;

  const Scores scores = ScoreRuns(world.corpus, {world.Healthy({again, note})});

  EXPECT_EQ(scores.groups.at(kOurRules).false_alarms, 3);
  EXPECT_EQ(scores.healthy_steps, 1000);
}

TEST(ScoreRunsTest, TellsTheStepsOfWarningBeforeTheLoss) {
  const World world;

  const Scores scores =
      ScoreRuns(world.corpus, {world.Exploded(60, {Ours("RUNS_AWAY", 40), Ours("FINITE", 60)}),
                               world.Exploded(60, {Ours("FINITE", 60)})});

  const Score& ours = scores.groups.at(kOurRules);
  EXPECT_THAT(ours.warning, ElementsAre(20.0, 0.0));
  EXPECT_EQ(ours.announced.hits, 1);
  EXPECT_EQ(ours.announced.all, 2);
}

}  // namespace
}  // namespace gradwatch::bench
