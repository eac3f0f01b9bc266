// The scores of the detection benchmark, over results written by hand.
#include "tests/bench/detection_score.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

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
