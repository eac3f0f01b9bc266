#include "server/clip/clip_advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "server/base/philox.h"

namespace gradwatch::clip {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// `count` norms from `low` on, evenly spaced up to `high`, in an order that is not theirs.
NormHistory Even(double low, double high, int count) {
  NormHistory history;
  history.first_step = 100;
  history.last_step = 100 + count - 1;
  for (int i = 0; i < count; ++i) {
    const int shuffled = (i * 7) % count;  // 7 divides no count that is used here.
    history.norms.push_back(low + (high - low) * shuffled / (count - 1));
  }
  return history;
}

AdviceInputs Sgd(NormHistory window) {
  AdviceInputs inputs;
  inputs.job.set_name("jobs/x");
  inputs.job.mutable_optimizer()->mutable_sgd();
  inputs.job.mutable_clipping();
  inputs.kept = window;
  inputs.window = std::move(window);
  return inputs;
}

AdviceInputs Adam(NormHistory window) {
  AdviceInputs inputs = Sgd(std::move(window));
  inputs.job.mutable_optimizer()->mutable_adam()->set_epsilon(1e-8);
  return inputs;
}

// --- rounding -----------------------------------------------------------------------------------

TEST(Round125Test, LeavesOneTwoAndFiveTimesAPowerOfTen) {
  for (int exponent = -12; exponent <= 12; ++exponent) {
    for (const char* digit : {"1", "2", "5"}) {
      const double value = std::stod(std::string(digit) + "e" + std::to_string(exponent));

      EXPECT_EQ(RoundDown125(value), value);
      EXPECT_EQ(RoundUp125(value), value);
    }
  }
}

TEST(Round125Test, EnclosesWhatIsBetween) {
  EXPECT_EQ(RoundDown125(0.49), 0.2);
  EXPECT_EQ(RoundUp125(0.49), 0.5);
  EXPECT_EQ(RoundDown125(0.99), 0.5);
  EXPECT_EQ(RoundUp125(0.99), 1.0);
  EXPECT_EQ(RoundDown125(7.0), 5.0);
  EXPECT_EQ(RoundUp125(7.0), 10.0);
  EXPECT_EQ(RoundDown125(1.5e-7), 1e-7);
  EXPECT_EQ(RoundUp125(1.5e7), 2e7);
}

TEST(Round125Test, NeverCrossesTheValueNorSkipsOneBetween) {
  RandomStream random(1, 1, 0);
  for (int i = 0; i < 10'000; ++i) {
    const double value = std::pow(10.0, 24.0 * random.NextUniform() - 12.0);

    const double below = RoundDown125(value), above = RoundUp125(value);

    ASSERT_LE(below, value * (1 + 1e-9));
    ASSERT_GE(above, value * (1 - 1e-9));
    ASSERT_LE(above / below, 2.5 * (1 + 1e-12)) << value;
  }
}

// --- the distribution ---------------------------------------------------------------------------

TEST(DistributeTest, QuantilesAreThoseOfTheSortedNorms) {
  const v1::NormDistribution norms = Distribute(Even(0.0, 100.0, 101));

  EXPECT_EQ(norms.steps(), 101);
  EXPECT_EQ(norms.first_step(), 100);
  EXPECT_EQ(norms.last_step(), 200);
  EXPECT_EQ(norms.minimum(), 0.0);
  EXPECT_DOUBLE_EQ(norms.p10(), 10.0);
  EXPECT_DOUBLE_EQ(norms.p50(), 50.0);
  EXPECT_DOUBLE_EQ(norms.p90(), 90.0);
  EXPECT_DOUBLE_EQ(norms.p95(), 95.0);
  EXPECT_DOUBLE_EQ(norms.p99(), 99.0);
  EXPECT_EQ(norms.maximum(), 100.0);
  // A sum of 101 rounded terms.
  EXPECT_NEAR(norms.mean(), 50.0, 50.0 * 101 * 2.3e-16);
  EXPECT_DOUBLE_EQ(norms.tail_ratio(), 99.0 / 50.0);
}

TEST(DistributeTest, TheTrimmedMeanLeavesTheLargestHundredthOut) {
  NormHistory history;
  history.norms.assign(198, 1.0);
  history.norms.insert(history.norms.begin(), {1e6, 1e9});

  const v1::NormDistribution norms = Distribute(history);

  // A sum of 198 rounded terms.
  EXPECT_NEAR(norms.trimmed_mean(), 1.0, 198 * 2.3e-16);
  EXPECT_GT(norms.mean(), 1e6);
}

TEST(DistributeTest, TheMeanOfHugeNormsDoesNotOverflow) {
  NormHistory history;
  history.norms.assign(10, 1e308);

  EXPECT_NEAR(Distribute(history).mean() / 1e308, 1.0, 1e-14);
}

TEST(DistributeTest, BinsHoldEveryPositiveNormOnceAndTouch) {
  NormHistory history;
  RandomStream random(2, 1, 0);
  for (int i = 0; i < 1000; ++i) history.norms.push_back(std::exp(3.0 * random.NextNormal()));
  history.norms.push_back(1.0);  // An edge.
  history.norms.push_back(0.0);

  const v1::NormDistribution norms = Distribute(history);

  int64_t total = 0;
  for (int i = 0; i < norms.bins_size(); ++i) {
    const v1::NormBin& bin = norms.bins(i);
    const auto inside = std::count_if(history.norms.begin(), history.norms.end(), [&](double norm) {
      return norm >= bin.lower() && norm < bin.upper();
    });
    EXPECT_EQ(bin.steps(), inside);
    EXPECT_NEAR(bin.upper() / bin.lower(), std::exp2(0.25), 1e-12);
    if (i > 0) {
      EXPECT_EQ(bin.lower(), norms.bins(i - 1).upper());
    }
    total += bin.steps();
  }
  EXPECT_EQ(total, 1001);
  EXPECT_GT(norms.bins(0).steps(), 0);
  EXPECT_GT(norms.bins().rbegin()->steps(), 0);
}

TEST(DistributeTest, AMedianOfZeroHasNoTailRatio) {
  NormHistory history;
  history.norms = {0.0, 0.0, 5.0};

  EXPECT_FALSE(Distribute(history).has_tail_ratio());
}

// --- effects ------------------------------------------------------------------------------------

TEST(EffectOfTest, CountsWhatPassesTheThreshold) {
  const v1::ThresholdEffect effect = EffectOf(2.0, {1.0, 2.0, 4.0, 8.0});

  EXPECT_EQ(effect.max_norm(), 2.0);
  EXPECT_DOUBLE_EQ(effect.clip_rate(), 0.5);
  EXPECT_DOUBLE_EQ(effect.mean_coefficient(), (1.0 + 1.0 + 0.5 + 0.25) / 4);
  EXPECT_DOUBLE_EQ(effect.median_coefficient(), 0.75);
}

TEST(EffectOfTest, KnowsNothingWithoutNorms) { EXPECT_FALSE(EffectOf(2.0, {}).has_clip_rate()); }

// --- the threshold ------------------------------------------------------------------------------

TEST(AdviseOnClippingTest, SgdTakesTheTenthPercentileFirstAndTheMedianAsTheBolderChoice) {
  // p10 0.6, p50 1.4, p90 2.2.
  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(Even(0.4, 2.4, 501)));

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
  EXPECT_EQ(advice.recommended().max_norm(), 0.5);
  EXPECT_EQ(advice.alternative().max_norm(), 1.0);
  // 475 of 501 lie above 0.5: the first 26 are 0.4, 0.404, … 0.5.
  EXPECT_NEAR(advice.recommended().clip_rate(), 475.0 / 501, 1.5 / 501);
  EXPECT_THAT(advice.reason(), HasSubstr("10th percentile"));
  EXPECT_THAT(advice.reason(), HasSubstr("0.6,"));
}

TEST(AdviseOnClippingTest, SgdThatStandsStillUnclippedStartsWithTheUsualValue) {
  AdviceInputs stuck = Sgd(Even(1.6, 6.6, 501));  // p10 2.1.
  stuck.stands_still = true;
  AdviceInputs clipped = stuck;
  clipped.window.clipped_steps = 1;
  AdviceInputs small = Sgd(Even(0.2, 2.2, 501));  // p10 0.4.
  small.stands_still = true;

  const v1::ClipAdvice advice = AdviseOnClipping(stuck);

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
  EXPECT_EQ(advice.recommended().max_norm(), 0.5);
  EXPECT_EQ(advice.alternative().max_norm(), 1.0);
  EXPECT_THAT(advice.reason(), HasSubstr("not those of a network that learns"));
  EXPECT_EQ(AdviseOnClipping(clipped).recommended().max_norm(), 2.0);
  EXPECT_EQ(AdviseOnClipping(small).recommended().max_norm(), 0.2);
}

TEST(AdviseOnClippingTest, SgdNeverGoesAboveTheNinetiethPercentile) {
  RandomStream random(3, 1, 0);
  for (int run = 0; run < 300; ++run) {
    NormHistory history;
    const double scale = std::pow(10.0, 6.0 * random.NextUniform() - 3.0);
    const double spread = random.NextUniform();
    for (int i = 0; i < 200; ++i) {
      history.norms.push_back(scale * std::exp(spread * random.NextNormal()));
    }

    const v1::ClipAdvice advice = AdviseOnClipping(Sgd(history));

    ASSERT_EQ(advice.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
    const double chosen = advice.recommended().max_norm();
    EXPECT_LE(chosen, advice.window().p10() * (1 + 1e-9));
    EXPECT_GT(chosen * 2.5, advice.window().p10() * (1 - 1e-9));
    if (advice.has_alternative()) {
      EXPECT_LE(advice.alternative().max_norm(), advice.window().p90());
      EXPECT_NE(advice.alternative().max_norm(), chosen);
    }
  }
}

TEST(AdviseOnClippingTest, AdamGetsAGuardAgainstSpikes) {
  // p90 0.46, p95 0.48.
  const v1::ClipAdvice advice = AdviseOnClipping(Adam(Even(0.1, 0.5, 501)));

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_SPIKE_GUARD);
  EXPECT_EQ(advice.recommended().max_norm(), 0.5);
  EXPECT_FALSE(advice.has_alternative()) << "both are rounded up to 0.5";
  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("0.5 would have clipped no step")));
}

TEST(AdviseOnClippingTest, AHeavyTailIsAnExplosion) {
  NormHistory history = Even(2.0, 3.0, 500);
  for (int i = 0; i < 12; ++i) history.norms[static_cast<size_t>(i)] = 100.0;

  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(history));

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_EXPLODING);
  EXPECT_EQ(advice.recommended().max_norm(), 1.0) << "the median is above";
  EXPECT_EQ(advice.alternative().max_norm(), 0.5);
  EXPECT_THAT(advice.reason(), HasSubstr("200 steps"));
}

TEST(AdviseOnClippingTest, AnAlertOfAnExplosionIsOneToo) {
  AdviceInputs inputs = Adam(Even(0.3, 0.5, 500));
  inputs.explosion_alerts = 1;

  const v1::ClipAdvice advice = AdviseOnClipping(inputs);

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_EXPLODING);
  EXPECT_EQ(advice.explosion_alerts(), 1);
  EXPECT_EQ(advice.recommended().max_norm(), 0.2) << "the median, 0.4, rounded down";
  EXPECT_FALSE(advice.has_alternative());
}

TEST(AdviseOnClippingTest, FewerThanAHundredStepsAreNoData) {
  const v1::ClipAdvice few = AdviseOnClipping(Sgd(Even(10.0, 20.0, 99)));
  const v1::ClipAdvice enough = AdviseOnClipping(Sgd(Even(10.0, 20.0, 100)));

  EXPECT_EQ(few.basis(), v1::ClipAdvice::BASIS_NO_DATA);
  EXPECT_EQ(few.recommended().max_norm(), 1.0);
  EXPECT_EQ(few.alternative().max_norm(), 0.5);
  EXPECT_FALSE(few.has_allowed_min());
  EXPECT_GT(few.published_size(), 10);
  EXPECT_THAT(few.warnings(), Contains(HasSubstr("only 99 steps")));
  EXPECT_EQ(enough.basis(), v1::ClipAdvice::BASIS_STEP_SIZE);
  EXPECT_EQ(enough.published_size(), 0);
}

TEST(AdviseOnClippingTest, WithoutDataAnExplosionTakesTheLowerStartValue) {
  NormHistory history = Even(10.0, 20.0, 33);
  history.nonfinite_steps = 5;

  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(history));

  EXPECT_EQ(advice.recommended().max_norm(), 0.5);
  EXPECT_EQ(advice.alternative().max_norm(), 1.0);
  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("5 steps were not finite")));
}

TEST(AdviseOnClippingTest, AJobWithoutStepsGetsTheStartValue) {
  const v1::ClipAdvice advice = AdviseOnClipping(Sgd({}));

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_NO_DATA);
  EXPECT_FALSE(advice.has_window());
  EXPECT_FALSE(advice.recommended().has_clip_rate());
}

TEST(AdviseOnClippingTest, AGradientOfZeroIsNoData) {
  NormHistory history;
  history.norms.assign(200, 0.0);

  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(history));

  EXPECT_EQ(advice.basis(), v1::ClipAdvice::BASIS_NO_DATA);
  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("the gradient is 0")));
}

TEST(AdviseOnClippingTest, StaysAboveWhatAdamsEpsilonResolves) {
  AdviceInputs inputs = Adam(Even(1e-9, 2e-9, 500));
  const v1::ClipAdvice adam = AdviseOnClipping(inputs);
  inputs.job.mutable_optimizer()->mutable_sgd();
  const v1::ClipAdvice sgd = AdviseOnClipping(inputs);

  EXPECT_EQ(adam.recommended().max_norm(), 1e-7);
  EXPECT_THAT(adam.warnings(), Contains(HasSubstr("epsilon")));
  EXPECT_EQ(sgd.recommended().max_norm(), 1e-9);
  EXPECT_THAT(sgd.warnings(), Not(Contains(HasSubstr("epsilon"))));
}

TEST(AdviseOnClippingTest, TheAllowedRangeIsHalfToTenTimesTheTrimmedMean) {
  AdviceInputs inputs = Sgd(Even(1.0, 3.0, 500));
  inputs.window.clipped_steps = 400;

  const v1::ClipAdvice advice = AdviseOnClipping(inputs);

  EXPECT_DOUBLE_EQ(advice.allowed_min(), 0.5 * advice.window().trimmed_mean());
  EXPECT_DOUBLE_EQ(advice.allowed_max(), 10 * advice.window().trimmed_mean());
  EXPECT_DOUBLE_EQ(advice.clip_rate(), 0.8);
  EXPECT_THAT(advice.warnings(), Not(Contains(HasSubstr("no step of these was clipped"))));
}

TEST(AdviseOnClippingTest, WarnsThatTheRangeIsMeantForClippedRuns) {
  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(Even(1.0, 3.0, 500)));

  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("no step of these was clipped")));
}

TEST(AdviseOnClippingTest, WarnsOfAThresholdOutsideOfTheRange) {
  // Most norms are near 1, some far above: p10 0.2, mean about 3.
  NormHistory history = Even(0.2, 0.21, 100);
  for (int i = 0; i < 100; ++i) history.norms.push_back(6.0);

  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(history));

  EXPECT_EQ(advice.recommended().max_norm(), 0.2);
  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("0.2 lies outside of the allowed range")));
}

TEST(AdviseOnClippingTest, SaysWhenThereAreFewerStepsThanAskedFor) {
  const v1::ClipAdvice advice = AdviseOnClipping(Sgd(Even(1.0, 3.0, 120)));

  EXPECT_THAT(advice.warnings(), Contains(HasSubstr("only 120 steps")));
}

TEST(AdviseOnClippingTest, TellsTheEffectOfThePresentThresholdAndOfThoseAskedFor) {
  AdviceInputs inputs = Sgd(Even(1.0, 3.0, 500));
  v1::Clipping* clipping = inputs.job.mutable_clipping();
  clipping->add_policies()->mutable_value()->set_maximum(1.0);
  clipping->add_policies()->mutable_global_norm()->set_max_norm(2.0);
  inputs.thresholds = {0.25, 5.0};

  const v1::ClipAdvice advice = AdviseOnClipping(inputs);

  EXPECT_EQ(advice.current().max_norm(), 2.0);
  EXPECT_NEAR(advice.current().clip_rate(), 0.5, 0.01);
  ASSERT_EQ(advice.asked_size(), 2);
  EXPECT_EQ(advice.asked(0).clip_rate(), 1.0);
  EXPECT_EQ(advice.asked(1).clip_rate(), 0.0);
}

TEST(AdviseOnClippingTest, WarnsOfAThresholdThatScalesNearlyEveryStep) {
  AdviceInputs inputs = Sgd(Even(1.0, 3.0, 500));
  v1::GlobalNormClip* clip = inputs.job.mutable_clipping()->add_policies()->mutable_global_norm();
  clip->set_max_norm(0.1);
  const v1::ClipAdvice starved = AdviseOnClipping(inputs);
  clip->set_max_norm(0.5);
  const v1::ClipAdvice fed = AdviseOnClipping(inputs);

  EXPECT_THAT(starved.warnings(), Contains(HasSubstr("scales nearly every step")));
  EXPECT_THAT(fed.warnings(), Not(Contains(HasSubstr("scales nearly every step"))));
}

TEST(AdviseOnClippingTest, AnotherNormOfThePolicyIsNoPresentThreshold) {
  AdviceInputs inputs = Sgd(Even(1.0, 3.0, 500));
  v1::GlobalNormClip* clip = inputs.job.mutable_clipping()->add_policies()->mutable_global_norm();
  clip->set_max_norm(2.0);
  clip->set_order(v1::NORM_ORDER_INF);

  EXPECT_FALSE(AdviseOnClipping(inputs).has_current());
}

TEST(AdviseOnClippingTest, StatesHowTheLossIsReduced) {
  AdviceInputs inputs = Sgd(Even(1.0, 3.0, 500));
  inputs.job.mutable_task()->mutable_temporal_order();
  const v1::ClipAdvice last_step = AdviseOnClipping(inputs);
  inputs.job.mutable_task()->mutable_language();
  const v1::ClipAdvice each_step = AdviseOnClipping(inputs);

  EXPECT_THAT(last_step.assumptions(), Contains(HasSubstr("one loss at the last time step")));
  EXPECT_THAT(each_step.assumptions(), Contains(HasSubstr("time steps that count")));
}

TEST(AdviseOnClippingTest, AThresholdForEntriesComesFromTheirMagnitudes) {
  AdviceInputs inputs = Sgd(Even(1.0, 3.0, 500));
  inputs.magnitudes.bins = {{0.125, 9'980}, {0.25, 0}, {0.5, 15}, {2.0, 5}};
  const v1::ClipAdvice with = AdviseOnClipping(inputs);
  inputs.magnitudes = {};
  const v1::ClipAdvice without = AdviseOnClipping(inputs);

  EXPECT_EQ(with.value_threshold(), 0.5) << "the upper end of the bin that holds 99.9 %";
  EXPECT_THAT(with.warnings(), Contains(HasSubstr("turns the gradient's direction")));
  EXPECT_FALSE(without.has_value_threshold());
}

}  // namespace
}  // namespace gradwatch::clip
