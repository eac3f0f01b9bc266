#include "client/cli/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "client/cli/report.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

JobSummary Summary(const std::string& id, double clip, double loss, double accuracy) {
  JobSummary summary;
  v1::Job& job = summary.job;
  job.set_name("jobs/" + id);
  job.set_state(v1::Job::STATE_SUCCEEDED);
  job.set_step(2500);
  job.mutable_task()->mutable_temporal_order()->set_time_steps(50);
  job.mutable_model()->set_cell(v1::Model::CELL_RNN_TANH);
  job.mutable_clipping();
  if (clip > 0) {
    job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(clip);
    job.set_clip_rate(0.43);
  }
  job.mutable_latest_evaluation()->set_loss(loss);
  job.mutable_latest_evaluation()->set_accuracy(accuracy);
  for (int i = 0; i < 3; ++i) {
    v1::StepStats step;
    step.set_step(i);
    step.set_loss(loss);
    step.set_norm_before(i == 1 ? 12.0 : 0.5);
    step.mutable_growth()->set_growth_factor(1.05);
    AddStep(step, summary.history.add_buckets());
  }
  return summary;
}

TEST(VerdictTest, SaysThatATaskIsSolved) {
  const std::string verdict = Verdict(Summary("a", 0.5, 0.01, 0.998));

  EXPECT_EQ(verdict,
            "clipped in 43 % of its steps; solved the task: 99.8 % right, loss 0.01; it grew "
            "through time by a factor of 1.05 per time step");
}

TEST(VerdictTest, SaysThatTheLossStayedAtChance) {
  const std::string verdict = Verdict(Summary("a", 0, 1.39, 0.25));

  EXPECT_THAT(verdict, HasSubstr("never clipped"));
  EXPECT_THAT(verdict, HasSubstr("stayed at chance: 1.39, guessing gives 1.386, 25 % right"));
}

TEST(VerdictTest, SaysWhatWasLearntInPart) {
  EXPECT_THAT(Verdict(Summary("a", 0, 0.8, 0.6)), HasSubstr("learnt in part"));
  EXPECT_THAT(Verdict(Summary("a", 0, 3.0, 0.2)), HasSubstr("worse than guessing"));
}

TEST(VerdictTest, NamesExplosionFailureAndRules) {
  JobSummary summary = Summary("a", 0, 1.39, 0.25);
  summary.job.mutable_failure()->set_step(31);
  summary.history.mutable_buckets(2)->mutable_loss()->set_mean(1e40);
  summary.job.set_nonfinite_steps(5);
  summary.history.mutable_buckets(1)->mutable_norm_before()->set_maximum(1e9);
  summary.alerts.emplace_back().set_rule_name("NON_FINITE");
  summary.alerts.emplace_back().set_rule_name("EXPLODING_ABS");
  summary.alerts.emplace_back().set_rule_name("NON_FINITE");

  const std::string verdict = Verdict(summary);

  EXPECT_THAT(verdict, HasSubstr("failed at step 31"));
  EXPECT_THAT(verdict, HasSubstr("worse than guessing: 1e+40, guessing gives 1.386;"));
  EXPECT_THAT(verdict, HasSubstr("exploded to a norm of 1e+09"));
  EXPECT_THAT(verdict, HasSubstr("5 steps were not finite"));
  EXPECT_THAT(verdict, HasSubstr("raised EXPLODING_ABS, NON_FINITE"));
}

TEST(VerdictTest, TellsTheWayOfALossWithoutAKnownChance) {
  JobSummary summary = Summary("a", 0, 2.0, 0);
  summary.job.mutable_latest_evaluation()->clear_accuracy();
  summary.job.mutable_task()->mutable_language();
  summary.history.mutable_buckets(0)->mutable_loss()->set_maximum(4.0);

  EXPECT_THAT(Verdict(summary), HasSubstr("the loss fell, from 4 to 2"));
}

TEST(VerdictTest, DoesNotJudgeAJobWithoutSteps) {
  JobSummary summary;
  summary.job.mutable_clipping();

  EXPECT_EQ(Verdict(summary), "never clipped; has no steps yet");
}

TEST(ComparisonTableTest, ShowsColumnsOnlyWhereTheJobsHaveThem) {
  const std::string table =
      ComparisonTable({Summary("clipped", 0.5, 0.01, 0.998), Summary("free", 0, 1.39, 0.25)})
          .ToString();

  EXPECT_THAT(table, HasSubstr("norm 0.5"));
  EXPECT_THAT(table, HasSubstr("none"));
  EXPECT_THAT(table, HasSubstr("99.8 %"));
  EXPECT_THAT(table, HasSubstr("12"));
  EXPECT_THAT(table, Not(HasSubstr("TASK")));
}

JobSummary ShadowedSummary() {
  JobSummary summary = Summary("measured", 0.5, 0.01, 0.998);
  summary.job.add_shadow_clips()->mutable_global_norm()->set_max_norm(0.25);
  summary.job.add_shadow_clips()->mutable_value()->set_maximum(0.1);
  summary.job.add_shadow_summaries()->set_clip_rate(0.75);
  summary.job.mutable_shadow_summaries(0)->set_mean_coefficient(0.5);
  summary.job.add_shadow_summaries()->set_clip_rate(0.125);
  return summary;
}

TEST(ShadowTableTest, HasARowForEachShadowClip) {
  const std::string table =
      ShadowTable({ShadowedSummary(), Summary("free", 0, 1.39, 0.25)}).ToString();

  EXPECT_EQ(table,
            "JOB       SHADOW CLIP   CLIPS  MEAN FACTOR\n"
            "measured  norm 0.25      75 %          0.5\n"
            "measured  value ..0.1  12.5 %            -\n");
}

TEST(ShadowTableTest, IsEmptyWithoutShadowClips) {
  EXPECT_TRUE(ShadowTable({Summary("free", 0, 1.39, 0.25)}).empty());
}

TEST(ComparisonJsonTest, HasTheShadowClips) {
  const auto json = ComparisonJson({ShadowedSummary()});

  const auto& job = json.fields().at("jobs").list_value().values(0).struct_value().fields();
  const auto& shadows = job.at("shadow_clips").list_value();
  ASSERT_EQ(shadows.values_size(), 2);
  const auto& first = shadows.values(0).struct_value().fields();
  EXPECT_EQ(first.at("policy").string_value(), "norm 0.25");
  EXPECT_EQ(first.at("clip_rate").number_value(), 0.75);
  EXPECT_EQ(first.at("mean_coefficient").number_value(), 0.5);
  EXPECT_EQ(shadows.values(1).struct_value().fields().count("mean_coefficient"), 0u);
}

TEST(DifferencesTest, NamesTheSettingsThatDiffer) {
  const JobSummary clipped = Summary("a", 0.5, 0, 0);
  const JobSummary free = Summary("b", 0, 0, 0);

  EXPECT_EQ(Differences({clipped, free}), "The jobs differ in clipping.");
  EXPECT_EQ(Differences({free, free}), "The jobs have the same settings.");
  EXPECT_EQ(Differences({free}), "");
}

TEST(ComparisonJsonTest, HasTheSameFacts) {
  const auto json = ComparisonJson({Summary("a", 0.5, 0.01, 0.998)});

  const auto& job = json.fields().at("jobs").list_value().values(0).struct_value().fields();
  EXPECT_EQ(job.at("name").string_value(), "jobs/a");
  EXPECT_EQ(job.at("largest_norm_before").number_value(), 12);
  EXPECT_EQ(job.at("right_share").number_value(), 0.998);
}

}  // namespace
}  // namespace gradwatch::cli
