#include "client/cli/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "absl/strings/str_join.h"
#include "tests/unit/client/example_run.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
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

// 108 steps, of which a roll back took 8 back.
TEST(RunVerdictTest, CountsStepsThatDidNotStay) {
  RunFacts run = ExampleRun(StepsWith(1, 108));
  run.summary.job.set_updates_applied(100);
  run.summary.job.set_nonfinite_steps(1);

  EXPECT_THAT(Sentences(JudgeRun(run)), HasSubstr("1 step was not finite; 8 were skipped."));
  run.summary.job.mutable_ladder();
  EXPECT_THAT(Sentences(JudgeRun(run)),
              HasSubstr("1 step was not finite; 8 were skipped or taken back."));
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

// What the verdict says of 100 steps that were changed so.
std::string SentencesOf(const std::function<void(v1::StepStats*)>& change,
                        v1::Model::Cell cell = v1::Model::CELL_RNN_TANH) {
  RunFacts run = ExampleRun(StepsWith(1), 100, change);
  run.summary.job.mutable_model()->set_cell(cell);
  run.summary.job.mutable_training()->set_batch_size(32);
  return Sentences(JudgeRun(run));
}

TEST(RunVerdictTest, SaysThatSuccessiveGradientsAreOpposed) {
  const auto with = [](double cosine) {
    RunFacts run = ExampleRun(StepsWith(1, 1000), 100,
                              [cosine](v1::StepStats* step) { step->set_gradient_cosine(cosine); });
    return Sentences(JudgeRun(run));
  };

  EXPECT_THAT(with(-0.4), HasSubstr("Successive gradients point against each other (mean cosine "
                                    "-0.4 at the end): the learning rate is too large."));
  EXPECT_THAT(with(-0.2), Not(HasSubstr("Successive")));
  // Ten values at the end are too few to say so.
  EXPECT_THAT(SentencesOf([](v1::StepStats* step) { step->set_gradient_cosine(-0.4); }),
              Not(HasSubstr("Successive")));
}

TEST(RunVerdictTest, SaysThatALayerIsSaturated) {
  const auto slope = [](double value) {
    return [value](v1::StepStats* step) { step->add_layers()->set_activation_slope(value); };
  };

  EXPECT_THAT(SentencesOf(slope(0.03)), HasSubstr("Layer 0 is saturated: the slope of its "
                                                  "activation is 0.03 of its largest at the end."));
  EXPECT_THAT(SentencesOf(slope(0.03), v1::Model::CELL_RNN_RELU),
              HasSubstr("Layer 0 is all but dead: 3.0 % of its states are above 0 at the end."));
  EXPECT_THAT(SentencesOf(slope(0.06)), Not(HasSubstr("Layer 0")));
}

TEST(RunVerdictTest, SaysThatTheStateIgnoresItsInput) {
  const auto similarity = [](double value) {
    return [value](v1::StepStats* step) { step->add_layers()->set_state_similarity(value); };
  };
  RunFacts solved = ExampleRun(StepsWith(1), 100, similarity(0.995));
  solved.summary.job.mutable_latest_evaluation()->set_accuracy(1.0);

  EXPECT_THAT(SentencesOf(similarity(0.995)),
              HasSubstr("The state of layer 0 ignores its input (similarity 0.995 at the end)."));
  EXPECT_THAT(SentencesOf(similarity(0.98)), Not(HasSubstr("ignores")));
  EXPECT_THAT(Sentences(JudgeRun(solved)), Not(HasSubstr("ignores")));
}

TEST(RunVerdictTest, SaysHowLongTheUnitsRemember) {
  const auto longest = [](double value) {
    return [value](v1::StepStats* step) { step->add_layers()->set_keep_time_constant_max(value); };
  };

  EXPECT_THAT(SentencesOf(longest(4), v1::Model::CELL_LSTM),
              HasSubstr("Even the unit of layer 0 that remembers longest keeps its state for 4 of "
                        "50 time steps only."));
  EXPECT_THAT(SentencesOf(longest(6), v1::Model::CELL_LSTM), Not(HasSubstr("remembers")));
}

TEST(RunVerdictTest, SaysThatTheGradientOfTheLastStepFades) {
  const auto probe = [](double decay, bool loss_at_every_step) {
    return [=](v1::StepStats* step) {
      v1::LayerTimeStats* const layer = step->add_layers();
      if (!loss_at_every_step) layer->add_lag_profile(1);
      v1::ProbeStats* const stats = step->add_probe();
      for (int lag = 0; lag <= 40; ++lag) stats->add_lag_profile(1);
      stats->set_decay_factor(decay);
      stats->set_horizon(13);
    };
  };

  EXPECT_THAT(SentencesOf(probe(0.6, true)),
              HasSubstr("Sent back from the last time step alone, the gradient of layer 0 fades to "
                        "0.6 of itself with each time step; a thousandth of it is left up to lag "
                        "13."));
  EXPECT_THAT(SentencesOf(probe(0.95, true)), Not(HasSubstr("Sent back")));
  EXPECT_THAT(SentencesOf(probe(0.6, false)), Not(HasSubstr("Sent back")));
}

TEST(RunVerdictTest, SaysThatTheGradientIsMostlyNoise) {
  const auto noise = [](double scale) {
    return [scale](v1::StepStats* step) { step->mutable_noise()->set_noise_scale(scale); };
  };

  EXPECT_THAT(SentencesOf(noise(5000)), HasSubstr("The gradient is mostly noise: its noise scale "
                                                  "is 5000 rows, a batch has 32."));
  EXPECT_THAT(SentencesOf(noise(300)), Not(HasSubstr("noise")));
}

TEST(RunVerdictTest, TellsTheAdviceWhereTheJobDoesSomethingElse) {
  RunFacts run = ExampleRun(StepsWith(1));
  run.advice = ExampleAdvice();
  const std::string apart = Sentences(JudgeRun(run));
  run.advice->mutable_current()->set_max_norm(0.3);
  const std::string close = Sentences(JudgeRun(run));
  run.advice->clear_current();
  const std::string unclipped = Sentences(JudgeRun(run));
  run.advice->set_basis(v1::ClipAdvice::BASIS_NO_DATA);
  const std::string unknown = Sentences(JudgeRun(run));

  EXPECT_THAT(apart, HasSubstr("The norms call for a clip threshold of 0.2 instead of 0.5."));
  EXPECT_THAT(close, Not(HasSubstr("call for")));
  EXPECT_THAT(unclipped, HasSubstr("The norms call for a clip threshold of 0.2."));
  EXPECT_THAT(unknown, Not(HasSubstr("call for")));
  run.advice = ExampleAdvice();
  run.summary.job.mutable_latest_evaluation()->set_accuracy(1.0);
  EXPECT_THAT(Sentences(JudgeRun(run)), Not(HasSubstr("call for"))) << "solved";
}

}  // namespace
}  // namespace gradwatch::cli
