#include "client/cli/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace gradwatch::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

JobSummary Ended(double loss, double accuracy, v1::Job::State state = v1::Job::STATE_SUCCEEDED) {
  JobSummary run;
  run.job.set_name("jobs/x");
  run.job.set_state(state);
  run.job.set_clip_rate(0.5);
  if (state == v1::Job::STATE_FAILED) run.job.mutable_failure();
  run.job.mutable_latest_evaluation()->set_loss(loss);
  run.job.mutable_latest_evaluation()->set_accuracy(accuracy);
  return run;
}

JobSummary Regression(double loss) {
  JobSummary run = Ended(loss, 0);
  run.job.mutable_latest_evaluation()->clear_accuracy();
  return run;
}

TEST(ParseSweepClipsTest, ReadsPoliciesAndNone) {
  const auto clips = ParseSweepClips("none,0.5,value:0.1");

  ASSERT_TRUE(clips.ok()) << clips.status();
  ASSERT_EQ(clips->size(), 3u);
  EXPECT_EQ((*clips)[0].clipping.policies_size(), 0);
  EXPECT_EQ((*clips)[1].clipping.policies(0).global_norm().max_norm(), 0.5);
  EXPECT_EQ((*clips)[1].name, "0.5");
  EXPECT_EQ((*clips)[2].clipping.policies(0).value().maximum(), 0.1);
}

TEST(ParseSweepClipsTest, RefusesRepetitionAndNonsense) {
  for (const char* text : {"", "0.5,0.5", "0.5,", "much"}) {
    EXPECT_EQ(ParseSweepClips(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ParseSeedsTest, ReadsListsAndRanges) {
  EXPECT_THAT(*ParseSeeds("7"), ElementsAre(7));
  EXPECT_THAT(*ParseSeeds("3,1,2"), ElementsAre(3, 1, 2));
  EXPECT_THAT(*ParseSeeds("0-3,9"), ElementsAre(0, 1, 2, 3, 9));
  EXPECT_THAT(*ParseSeeds("18446744073709551615"),
              ElementsAre(std::numeric_limits<uint64_t>::max()));
}

TEST(ParseSeedsTest, RefusesWhatIsNoSeedOrTooMany) {
  for (const char* text : {"", "a", "1,", "-1", "5-", "4-2", "1,1", "0-2,2", "0-1000",
                           "0-18446744073709551615", "1-2-3"}) {
    EXPECT_EQ(ParseSeeds(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(ParseSeeds("0-999")->size(), 1000u);
}

TEST(SweepJobIdTest, UsesTheLettersOfIds) {
  EXPECT_EQ(SweepJobId("s", "0.25", 3), "s-clip-0-25-seed-3");
  EXPECT_EQ(SweepJobId("s", "value:0.1", 0), "s-clip-value-0-1-seed-0");
}

TEST(ScoreOfTest, CountsSolvedAndFailedAndTakesTheMedian) {
  const SweepScore score = ScoreOf(
      {"0.5", {Ended(0.01, 0.99), Ended(3.0, 0.2), Ended(0.02, 1.0, v1::Job::STATE_FAILED)}});

  EXPECT_EQ(score.solved, 1);
  EXPECT_EQ(score.failed, 1);
  EXPECT_EQ(score.median_loss, 3.0);
  EXPECT_EQ(score.worst_loss, std::numeric_limits<double>::infinity());
  EXPECT_DOUBLE_EQ(score.mean_clip_rate, 0.5);
}

TEST(BestOfTest, MoreSolvedRunsComeBeforeALowerLoss) {
  const std::vector<SweepGroup> groups = {{"1", {Ended(0.2, 0.9), Ended(0.2, 0.9)}},
                                          {"0.5", {Ended(0.1, 0.96), Ended(2.0, 0.2)}}};

  EXPECT_EQ(BestOf(groups), 1u);
}

TEST(BestOfTest, WithoutRightAnswersTheLowestMedianLossWins) {
  const std::vector<SweepGroup> groups = {
      {"5", {Regression(0.5)}}, {"1", {Regression(0.05)}}, {"0.5", {Regression(0.2)}}};

  EXPECT_EQ(BestOf(groups), 1u);
  EXPECT_THAT(SweepTable(groups).ToString(), Not(HasSubstr("SOLVED")));
  EXPECT_EQ(SweepVerdict(groups), "Best: clip 1, median loss 0.05.");
}

TEST(BestOfTest, ALostWayIsNeverTheBest) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<SweepGroup> lost = {{"none", {Ended(1, 0, v1::Job::STATE_FAILED)}},
                                        {"5", {Regression(nan)}}};

  EXPECT_FALSE(BestOf(lost).has_value());
  EXPECT_THAT(SweepVerdict(lost), HasSubstr("No run"));
}

TEST(SweepTableTest, MarksTheBest) {
  const std::vector<SweepGroup> groups = {{"none", {Ended(1.4, 0.25)}}, {"0.5", {Ended(0.01, 1)}}};

  const std::string table = SweepTable(groups).ToString();

  EXPECT_THAT(table, HasSubstr("\n*  0.5 "));
  EXPECT_THAT(table, Not(HasSubstr("*  none")));
}

TEST(SweepJsonTest, HasTheBestTheWaysAndTheJobs) {
  const std::vector<SweepGroup> groups = {{"none", {Ended(1.4, 0.25)}}, {"0.5", {Ended(0.01, 1)}}};

  const google::protobuf::Struct json = SweepJson("s", groups);

  EXPECT_EQ(json.fields().at("sweep").string_value(), "s");
  EXPECT_EQ(json.fields().at("best").string_value(), "0.5");
  EXPECT_EQ(json.fields().at("jobs").list_value().values_size(), 2);
  const auto& ways = json.fields().at("clips").list_value();
  ASSERT_EQ(ways.values_size(), 2);
  EXPECT_EQ(ways.values(1).struct_value().fields().at("solved").number_value(), 1);
}

}  // namespace
}  // namespace gradwatch::cli
