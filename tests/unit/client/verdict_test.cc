#include "client/cli/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "tests/unit/client/example_run.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<ExampleStep> StepsWith(double growth, size_t count = 100) {
  std::vector<ExampleStep> steps(count);
  for (ExampleStep& step : steps) step.growth = growth;
  return steps;
}

std::string Sentences(const RunVerdict& verdict) { return absl::StrJoin(verdict.sentences, " "); }

TEST(RunVerdictTest, SaysThatTheGradientExplodes) {
  const RunVerdict verdict = JudgeRun(ExampleRun(StepsWith(1.08)));

  EXPECT_THAT(verdict.headline, StartsWith("The gradient explodes through time: growth 1.08 per "
                                           "time step back, a factor of 46.9 over 50"));
  EXPECT_EQ(verdict.tone, RunVerdict::Tone::kBad);
}

TEST(RunVerdictTest, SaysThatTheGradientVanishes) {
  const RunVerdict verdict = JudgeRun(ExampleRun(StepsWith(0.5)));

  EXPECT_THAT(verdict.headline, StartsWith("The gradient vanishes through time: growth 0.5 per "
                                           "time step back; 1/e of it is left after 1.443 time"));
  EXPECT_THAT(verdict.headline, HasSubstr("one part in 10¹⁵ after 50"));
}

TEST(RunVerdictTest, SaysThatTheGradientKeepsItsSize) {
  EXPECT_THAT(JudgeRun(ExampleRun(StepsWith(0.98))).headline, HasSubstr("keeps its size"));
  EXPECT_THAT(JudgeRun(ExampleRun(StepsWith(1.01))).headline, HasSubstr("keeps its size"));
  EXPECT_THAT(JudgeRun(ExampleRun(StepsWith(1.03))).headline, HasSubstr("The gradient grows"));
}

TEST(RunVerdictTest, JudgesTheEndAndNamesTheWorst) {
  std::vector<ExampleStep> steps = StepsWith(0.99, 1000);
  for (size_t i = 400; i < 410; ++i) steps[i].growth = 1.2;

  const RunVerdict verdict = JudgeRun(ExampleRun(steps));

  EXPECT_THAT(verdict.headline, HasSubstr("keeps its size"));
  EXPECT_THAT(Sentences(verdict), HasSubstr("in steps 400 to 409, it grew by 1.2"));
}

TEST(RunVerdictTest, NamesTheLargestNormAndItsStep) {
  std::vector<ExampleStep> steps = StepsWith(1, 1500);
  steps[1234].norm = 500;

  EXPECT_THAT(Sentences(JudgeRun(ExampleRun(steps))),
              HasSubstr("500 at step 1,234, is 1000 times the median of 0.5"));
}

TEST(RunVerdictTest, SaysWhatClippingDid) {
  std::vector<ExampleStep> steps = StepsWith(1);
  const std::string idle = Sentences(JudgeRun(ExampleRun(steps)));
  for (size_t i = 0; i < 25; ++i) steps[i].clipped = true;
  const std::string acted = Sentences(JudgeRun(ExampleRun(steps)));
  RunFacts unclipped = ExampleRun(steps);
  unclipped.summary.job.mutable_clipping()->clear_policies();

  EXPECT_THAT(idle, HasSubstr("Clipping (norm 0.5) never had to act."));
  EXPECT_THAT(acted, HasSubstr("Clipping (norm 0.5) acted in 25 % of the steps."));
  EXPECT_THAT(Sentences(JudgeRun(unclipped)), HasSubstr("Gradients were not clipped."));
}

TEST(RunVerdictTest, SaysThatTheRunWasLostOrSolved) {
  RunFacts lost = ExampleRun(StepsWith(1));
  lost.summary.job.mutable_failure()->set_reason(v1::Failure::REASON_NON_FINITE);
  lost.summary.job.mutable_failure()->set_step(31);
  RunFacts solved = ExampleRun(StepsWith(1));
  solved.summary.job.mutable_latest_evaluation()->set_accuracy(1.0);

  EXPECT_THAT(Sentences(JudgeRun(lost)), StartsWith("The run was lost: NON_FINITE at step 31"));
  EXPECT_EQ(JudgeRun(lost).tone, RunVerdict::Tone::kBad);
  EXPECT_THAT(Sentences(JudgeRun(solved)), StartsWith("Solved the task: 100 % right"));
  EXPECT_EQ(JudgeRun(solved).tone, RunVerdict::Tone::kGood);
}

// The last growth factors of such a run come from the few time steps that have not underflowed.
TEST(RunVerdictTest, TellsTheNormOfARunThatExploded) {
  std::vector<ExampleStep> steps = StepsWith(28.5, 20);
  for (size_t i = 0; i < steps.size(); ++i) steps[i].norm = std::pow(10.0, static_cast<double>(i));
  RunFacts lost = ExampleRun(steps);
  lost.summary.job.mutable_failure()->set_reason(v1::Failure::REASON_NON_FINITE);

  EXPECT_EQ(JudgeRun(lost).headline,
            "The gradient explodes: its norm before clipping rose from 1 to 1e+19 at step 19, then "
            "it was not finite.");
}

TEST(RunVerdictTest, CountsAlertsByRule) {
  RunFacts run = ExampleRun(StepsWith(1));
  EXPECT_THAT(Sentences(JudgeRun(run)), HasSubstr("No rule raised an alert."));
  run.summary.alerts = {ExampleAlert(3, ""), ExampleAlert(70, "")};

  EXPECT_THAT(Sentences(JudgeRun(run)), HasSubstr("Alerts: EXPLODING_ABS (2 times)."));
}

TEST(RunVerdictTest, ClaimsNothingWithoutMeasurements) {
  RunFacts empty = ExampleRun({});
  empty.summary.job.set_state(v1::Job::STATE_QUEUED);
  RunFacts off = ExampleRun(StepsWith(0));
  off.summary.job.set_statistics_level(v1::STATISTICS_LEVEL_OFF);

  EXPECT_EQ(JudgeRun(empty).headline, "The job is QUEUED and has no steps yet.");
  EXPECT_THAT(JudgeRun(off).headline, HasSubstr("not measured"));
}

}  // namespace
}  // namespace gradwatch::cli
