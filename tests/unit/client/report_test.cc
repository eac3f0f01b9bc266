#include "client/cli/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::StepStats Step(int64_t number, double loss, double norm) {
  v1::StepStats step;
  step.set_step(number);
  step.set_loss(loss);
  step.set_norm_before(norm);
  step.set_norm_after(std::min(norm, 0.5));
  step.set_clipped(norm > 0.5);
  step.mutable_growth()->set_growth_factor(0.9);
  step.mutable_time()->set_seconds(1000 + number);
  return step;
}

TEST(AddStepTest, KeepsExtremesAndCounts) {
  v1::FoldedStats bucket;

  AddStep(Step(3, 2.0, 0.25), &bucket);
  AddStep(Step(4, 1.0, 8.0), &bucket);
  AddStep(Step(5, kNaN, kNaN), &bucket);

  EXPECT_EQ(bucket.first_step(), 3);
  EXPECT_EQ(bucket.last_step(), 5);
  EXPECT_EQ(bucket.count(), 3);
  EXPECT_EQ(bucket.loss().mean(), 1.5);
  EXPECT_EQ(bucket.norm_before().maximum(), 8.0);
  EXPECT_EQ(bucket.norm_before().last(), 8.0);
  EXPECT_EQ(bucket.clipped_steps(), 1);
  EXPECT_EQ(bucket.nonfinite_steps(), 1);
}

TEST(AddBucketTest, IsTheSameAsAddingTheSteps) {
  v1::FoldedStats first, second, all;
  for (int i = 0; i < 5; ++i) {
    AddStep(Step(i, 1.0 + i, 0.1 * i), i < 2 ? &first : &second);
    AddStep(Step(i, 1.0 + i, 0.1 * i), &all);
  }

  AddBucket(second, &first);
  AddBucket({}, &first);

  EXPECT_EQ(first.count(), all.count());
  EXPECT_EQ(first.last_step(), all.last_step());
  EXPECT_NEAR(first.loss().mean(), all.loss().mean(), 1e-12);
  EXPECT_EQ(first.norm_before().maximum(), all.norm_before().maximum());
}

TEST(ReportMakerTest, FoldsAMessageAndMeasuresTheRate) {
  ReportMaker maker;
  v1::StreamStatsResponse first, second;
  *first.add_steps() = Step(0, 1, 1);
  second.mutable_folded()->set_first_step(1);
  second.mutable_folded()->set_last_step(8);
  second.mutable_folded()->set_count(8);
  *second.add_steps() = Step(9, 1, 1);
  second.mutable_steps(0)->mutable_evaluation()->set_accuracy(0.5);

  const auto one = maker.Add(first);
  const auto two = maker.Add(second);

  ASSERT_TRUE(one && two);
  EXPECT_FALSE(one->steps_per_second);
  EXPECT_EQ(two->steps.count(), 9);
  EXPECT_DOUBLE_EQ(*two->steps_per_second, 1.0);
  EXPECT_EQ(two->evaluation->accuracy(), 0.5);
}

TEST(ReportMakerTest, HasNothingToSayOfAHeartbeat) {
  ReportMaker maker;
  v1::StreamStatsResponse heartbeat;
  heartbeat.set_heartbeat(true);

  EXPECT_FALSE(maker.Add(heartbeat));
}

TEST(ReportLineTest, ShowsTheLargestNormAndTheMeanLoss) {
  v1::FoldedStats bucket;
  AddStep(Step(98, 2, 0.25), &bucket);
  AddStep(Step(99, 1, 8), &bucket);

  const std::string line = ReportLine({bucket, {}, 1234.4}, true);

  EXPECT_THAT(line, HasSubstr("99"));
  EXPECT_THAT(line, HasSubstr("1.5"));
  EXPECT_THAT(line, HasSubstr("8 → 0.5"));
  EXPECT_THAT(line, HasSubstr("50 %"));
  EXPECT_THAT(line, HasSubstr("0.9"));
  EXPECT_THAT(line, HasSubstr("1234"));
  EXPECT_THAT(ReportLine({bucket, {}, {}}, false), HasSubstr("8 -> 0.5"));
}

TEST(ReportLineTest, SaysNaNOnlyWhereSomethingWasNotFinite) {
  v1::FoldedStats broken, quiet;
  AddStep(Step(1, kNaN, kNaN), &broken);
  AddStep(Step(1, 1, 1), &quiet);
  quiet.clear_growth_factor();

  EXPECT_THAT(ReportLine({broken, {}, {}}, true), HasSubstr("NaN"));
  EXPECT_THAT(ReportLine({broken, {}, {}}, true), HasSubstr("1 not finite"));
  EXPECT_THAT(ReportLine({quiet, {}, {}}, true), Not(HasSubstr("NaN")));
}

TEST(ReportLineTest, StandsUnderTheHeader) {
  v1::FoldedStats bucket;
  AddStep(Step(99, 1, 8), &bucket);

  const std::string header = ReportHeader(false);
  const std::string line = ReportLine({bucket, {}, 10.0}, false);

  EXPECT_EQ(header.find("->"), line.find("->"));
  EXPECT_EQ(header.size(), line.size());
}

TEST(TimelineTest, DrawsEveryQuantityInFewLines) {
  v1::QueryStatsResponse history;
  for (int i = 0; i < 50; ++i) {
    AddStep(Step(i, 50 - i, i == 20 ? 1e6 : 1.0), history.add_buckets());
  }
  for (const int step : {0, 25, 49}) {
    history.add_evaluations()->set_step(step);
    history.mutable_evaluations()->rbegin()->set_accuracy(step / 49.0);
  }

  const std::string chart = Timeline(history, {.columns = 80, .unicode = false});

  EXPECT_THAT(chart, HasSubstr("loss"));
  EXPECT_THAT(chart, HasSubstr("1e+06"));
  EXPECT_THAT(chart, HasSubstr("growth factor"));
  // The steps of the evaluations are where they stand under the other charts.
  EXPECT_THAT(chart,
              HasSubstr("          0 |" + std::string(25, '.') + std::string(24, '#') + "#\n"));
  EXPECT_THAT(chart, HasSubstr("step 0"));
  EXPECT_LE(std::count(chart.begin(), chart.end(), '\n'), 22);
}

TEST(TimelineTest, IsEmptyWithoutSteps) { EXPECT_EQ(Timeline({}, {}), ""); }

TEST(TimelineTest, LeavesOutWhatWasNotMeasured) {
  v1::QueryStatsResponse history;
  AddStep(Step(0, 1, 1), history.add_buckets());
  history.mutable_buckets(0)->clear_growth_factor();

  EXPECT_THAT(Timeline(history, {}), Not(HasSubstr("growth")));
}

TEST(TimelineTest, ShowsHowStepsCompareWhereTheyWereCompared) {
  v1::QueryStatsResponse history;
  for (int i = 0; i < 6; ++i) {
    v1::StepStats step = Step(i, 1, 1);
    step.set_gradient_cosine(i % 2 == 0 ? -0.5 : -0.25);
    step.set_distance_ratio(0.125 * i);
    AddStep(step, i < 3 ? history.mutable_buckets()->Add() : history.mutable_buckets(2));
  }

  const std::string chart = Timeline(history, {});

  EXPECT_THAT(chart, HasSubstr("cosine of successive gradients"));
  EXPECT_THAT(chart, HasSubstr("-0.25"));
  EXPECT_THAT(chart, HasSubstr("distance of the weights from the first"));
  EXPECT_THAT(chart, HasSubstr("0.4375"));  // The mean of steps 2 to 5.
  EXPECT_EQ(history.buckets(2).distance_ratio().maximum(), 0.625);
}

TEST(LiveViewTest, ShowsTheNewestReportAndTheCourse) {
  v1::Job job;
  job.set_name("jobs/x");
  job.mutable_training()->set_step_limit(100);
  v1::FoldedStats bucket;
  AddStep(Step(49, 1.25, 8), &bucket);

  const auto lines = LiveView(job, {{bucket, {}, 10.0}}, {.columns = 100, .unicode = true});

  ASSERT_EQ(lines.size(), 5u);
  EXPECT_THAT(lines[0], HasSubstr("step 49 of 100"));
  EXPECT_THAT(lines[0], HasSubstr("5.1 s left"));
  EXPECT_THAT(lines[1], HasSubstr("1.25"));
}

TEST(OutcomeLineTest, TellsHowItEnded) {
  v1::Job job;
  job.set_name("jobs/x");
  job.set_state(v1::Job::STATE_FAILED);
  job.set_step(31);
  job.set_nonfinite_steps(5);
  job.mutable_failure()->set_reason(v1::Failure::REASON_NON_FINITE);
  job.mutable_failure()->set_step(31);
  job.mutable_failure()->set_message("five in a row");

  EXPECT_EQ(OutcomeLine(job),
            "jobs/x FAILED after 31 steps, 5 steps not finite\n"
            "  NON_FINITE at step 31: five in a row");
}

// A step at which the first of two shadow clips would have clipped.
v1::StepStats ShadowedStep(int64_t step) {
  v1::StepStats stats;
  stats.set_step(step);
  stats.set_loss(1);
  stats.add_shadow_reports()->set_clipped(true);
  stats.add_shadow_reports();
  return stats;
}

TEST(ShadowClipsTest, AreCountedAsStepsAndBucketsAreFolded) {
  v1::FoldedStats first, second;
  AddStep(ShadowedStep(0), &first);
  AddStep(ShadowedStep(1), &second);

  AddBucket(second, &first);

  ASSERT_EQ(first.shadow_clipped_steps_size(), 2);
  EXPECT_EQ(first.shadow_clipped_steps(0), 2);
  EXPECT_EQ(first.shadow_clipped_steps(1), 0);
}

TEST(ShadowClipsTest, StandInTheLiveViewAndTheOutcome) {
  v1::Job job;
  job.set_name("jobs/x");
  job.add_shadow_clips()->mutable_global_norm()->set_max_norm(0.25);
  job.add_shadow_clips()->mutable_value()->set_maximum(0.1);
  job.add_shadow_summaries()->set_clip_rate(0.75);
  job.add_shadow_summaries();
  Report report;
  AddStep(ShadowedStep(0), &report.steps);

  const std::vector<std::string> view = LiveView(job, {report}, {80, true});

  EXPECT_EQ(view.back(), "shadow clips would have clipped norm 0.25 100 %, value ..0.1 0 %");
  EXPECT_NE(OutcomeLine(job).find("would have clipped norm 0.25 75 %, value ..0.1 0 %"),
            std::string::npos);
}

}  // namespace
}  // namespace gradwatch::cli
