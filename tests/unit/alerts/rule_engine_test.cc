#include "server/alerts/rule_engine.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/alerts/life_cycle.h"
#include "server/alerts/thresholds.h"
#include "server/stats/state_bytes.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Symptom Norm(double norm) {
  return [norm](v1::StepStats* stats) { stats->set_norm_before(norm); };
}

Symptom Loss(double loss) {
  return [loss](v1::StepStats* stats) { stats->set_loss(loss); };
}

Symptom GrowthFactor(double factor) {
  return [factor](v1::StepStats* stats) {
    stats->mutable_growth()->set_growth_factor(factor);
    if (factor < 1.0) stats->mutable_growth()->set_horizon(-1.0 / std::log(factor));
  };
}

// Hidden states whose RMS grows by `slope` (of the logarithm) per time step, up to `end`.
Symptom Surge(double slope, double end) {
  return [slope, end](v1::StepStats* stats) {
    v1::LayerTimeStats& layer = *stats->mutable_layers(0);
    const int time_steps = layer.hidden_rms_size();
    for (int t = 0; t < time_steps; ++t) {
      layer.set_hidden_rms(t, static_cast<float>(end * std::exp(slope * (t + 1 - time_steps))));
    }
    layer.set_hidden_max_abs(2 * end);
  };
}

// How one rule is brought to fire: `quiet` healthy steps first, then `symptom` for `steps` steps,
// the last of which fires.
struct Case {
  v1::RuleId rule;
  const char* name;
  int quiet;
  Symptom symptom;
  int steps;
  v1::Severity severity;
  // A symptom that stays just short of the condition.
  Symptom harmless;
  // Healthy steps until it resolves, the resolving one included.
  int steps_to_resolve;
  // A threshold for the job under which `symptom` does not fire.
  double mild_threshold;
  int64_t cooldown;
  bool clips = false;  // The rule is about jobs that clip.
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

// Three spikes in ten steps.
Symptom Spikes(double norm) {
  return [norm](v1::StepStats* stats) {
    if (stats->step() % 3 == 0) stats->set_norm_before(norm);
  };
}

// Changes of one tensor, or of the first layer.
Symptom Tensor(int index, const std::function<void(v1::TensorStats*)>& change) {
  return [=](v1::StepStats* stats) { change(stats->mutable_tensors(index)); };
}

Symptom Layer(const std::function<void(v1::LayerTimeStats*)>& change) {
  return [=](v1::StepStats* stats) { change(stats->mutable_layers(0)); };
}

Symptom GradientOf(int index, double norm) {
  return Tensor(index, [norm](v1::TensorStats* tensor) { tensor->set_norm(norm); });
}

Symptom WeightsOf(int index, double norm) {
  return Tensor(index, [norm](v1::TensorStats* tensor) { tensor->set_weight_norm(norm); });
}

// All but one step of 200.
Symptom Clipped(double coefficient) {
  return [coefficient](v1::StepStats* stats) {
    if (stats->step() % 200 == 50) return;
    stats->set_clipped(true);
    stats->set_clip_coefficient(coefficient);
  };
}

// Explodes, and is clipped in one step of 200 only.
void ExplodesUnclipped(v1::StepStats* stats) {
  stats->set_norm_before(2000.0);
  stats->set_clipped(stats->step() % 200 == 0);
}

void FallsSteadily(v1::StepStats* stats) {
  stats->set_loss(1.0 - 1e-4 * static_cast<double>(stats->step()));
}

Symptom UpdateRatios(double ratio) {
  return [ratio](v1::StepStats* stats) {
    for (v1::TensorStats& tensor : *stats->mutable_tensors()) tensor.set_update_ratio(ratio);
  };
}

Symptom UpdateSpikes(double norm) {
  return [norm](v1::StepStats* stats) {
    if (stats->step() % 3 == 0) stats->set_update_norm(norm);
  };
}

Symptom KeepGateClosed(double share) {
  return Layer([share](v1::LayerTimeStats* layer) { layer->set_gate_closed_share(1, share); });
}

// While the loss stands still.
Symptom Cosine(double cosine) {
  return [cosine](v1::StepStats* stats) {
    stats->set_gradient_cosine(cosine);
    stats->set_loss(1.0);
  };
}

// The largest singular values of two layers, the second one a gated layer's.
Symptom Sigmas(double first, double second) {
  return [=](v1::StepStats* stats) {
    stats->add_recurrent()->add_sigma_max(first);
    v1::RecurrentStats& layer = *stats->add_recurrent();
    for (const double gate : {0.2, second}) layer.add_sigma_max(gate);
  };
}

Symptom Saturated(double share) {
  return Layer([share](v1::LayerTimeStats* layer) { layer->set_saturated_share(share); });
}

std::vector<Case> Cases() {
  return {
      {v1::RULE_ID_EXPLODING_ABS, "EXPLODING_ABS", 3, Norm(1500), 1, v1::SEVERITY_CRIT, Norm(999),
       50, 2000, 0},
      {v1::RULE_ID_LOSS_DIVERGENCE, "LOSS_DIVERGENCE", 3, Loss(11), 2, v1::SEVERITY_CRIT, Loss(1.5),
       0, 20, 100},
      {v1::RULE_ID_EXPLODING_REL, "EXPLODING_REL", 75, Spikes(40), 7, v1::SEVERITY_WARN, Spikes(9),
       50, 100, 100},
      {v1::RULE_ID_RECURRENT_EXPANSION, "RECURRENT_EXPANSION", 0, GrowthFactor(1.1), 40,
       v1::SEVERITY_WARN, GrowthFactor(1.05), 0, 1.5, 100},
      {v1::RULE_ID_VANISHING_THROUGH_TIME, "VANISHING_THROUGH_TIME", 0, GrowthFactor(0.5), 120,
       v1::SEVERITY_INFO, GrowthFactor(0.6), 0, -20, 100},
      {v1::RULE_ID_HIDDEN_GROWTH, "HIDDEN_GROWTH", 20, Surge(0.08, 100), 5, v1::SEVERITY_WARN,
       Surge(0.08, 1.5), 20, 0.1, 100},
      {v1::RULE_ID_VANISHING_ABS, "VANISHING_ABS", 20, GradientOf(1, 1e-7), 50, v1::SEVERITY_WARN,
       GradientOf(1, 5e-6), 50, 1e-9, 100},
      {v1::RULE_ID_DEAD_LAYER, "DEAD_LAYER", 20, GradientOf(3, 1e-8), 100, v1::SEVERITY_WARN,
       GradientOf(3, 5e-6), 50, 1e-9, 100},
      {v1::RULE_ID_CLIP_SATURATED, "CLIP_SATURATED", 0, Clipped(0.05), 399, v1::SEVERITY_INFO,
       Clipped(0.2), 0, 0.999, 100, true},
      {v1::RULE_ID_LOSS_PLATEAU, "LOSS_PLATEAU", 0, Loss(1.0), 599, v1::SEVERITY_INFO,
       FallsSteadily, 0, 1.5, 100},
      {v1::RULE_ID_GATES_STUCK, "GATES_STUCK", 20, KeepGateClosed(0.8), 100, v1::SEVERITY_WARN,
       KeepGateClosed(0.45), 50, 0.9, 100},
      {v1::RULE_ID_DEAD_OR_SATURATED_UNITS, "DEAD_OR_SATURATED_UNITS", 20, Saturated(0.7), 100,
       v1::SEVERITY_WARN, Saturated(0.45), 50, 0.9, 100},
      {v1::RULE_ID_UPDATE_RATIO, "UPDATE_RATIO", 0, UpdateRatios(2 * kUpdateRatioHigh), 70,
       v1::SEVERITY_WARN, UpdateRatios(0.5 * kUpdateRatioHigh), 0, 10 * kUpdateRatioHigh, 100},
      {v1::RULE_ID_WEIGHT_BLOWUP, "WEIGHT_BLOWUP", 20, WeightsOf(1, 40.0), 10, v1::SEVERITY_WARN,
       WeightsOf(1, 25.0), 50, 20, 100},
      {v1::RULE_ID_OSCILLATION, "OSCILLATION", 0, Cosine(-0.5), 70, v1::SEVERITY_INFO, Cosine(-0.2),
       0, -0.9, 100},
      {v1::RULE_ID_CLIP_TOO_LOOSE, "CLIP_TOO_LOOSE", 200, ExplodesUnclipped, 2, v1::SEVERITY_WARN,
       Norm(5), 0, 0.004, 100, true},
      {v1::RULE_ID_UPDATE_SPIKE, "UPDATE_SPIKE", 75, UpdateSpikes(4.0), 4, v1::SEVERITY_INFO,
       UpdateSpikes(0.3), 50, 100, 100},
  };
}

class EveryRule : public testing::TestWithParam<Case> {
 protected:
  // The alerts of the rule that the case is about, without those on a single event.
  static std::vector<v1::Alert> AlertsOf(const RuleEngine& engine) {
    std::vector<v1::Alert> alerts;
    for (const v1::Alert& alert : engine.alerts()) {
      if (alert.rule() == GetParam().rule && !alert.single_event()) alerts.push_back(alert);
    }
    return alerts;
  }

  static v1::Job OwnJob() { return MakeJob(GetParam().clips); }

  static v1::Job JobWith(const std::function<void(v1::RuleSettings*)>& change) {
    v1::Job job = OwnJob();
    v1::RuleSettings& settings = *job.add_rules();
    settings.set_id(GetParam().rule);
    change(&settings);
    return job;
  }

  static void MakeItFire(Stream* stream) {
    stream->Feed(GetParam().quiet);
    stream->Feed(GetParam().steps, GetParam().symptom);
  }

  // Feeds healthy steps until nothing of this rule fires.
  static void LetItResolve(Stream* stream) {
    for (int i = 0; i < 1000; ++i) {
      stream->Feed(1);
      if (AlertsOf(stream->engine).back().state() == v1::Alert::STATE_RESOLVED) return;
    }
    FAIL() << "never resolved";
  }
};

INSTANTIATE_TEST_SUITE_P(Rules, EveryRule, testing::ValuesIn(Cases()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(EveryRule, FiresWhenTheConditionHeldLongEnough) {
  const Case& c = GetParam();
  Stream stream(OwnJob());

  stream.Feed(c.quiet);
  stream.Feed(c.steps - 1, c.symptom);
  EXPECT_THAT(AlertsOf(stream.engine), IsEmpty());
  stream.Feed(1, c.symptom);

  const std::vector<v1::Alert> alerts = AlertsOf(stream.engine);
  ASSERT_THAT(alerts, SizeIs(1));
  EXPECT_EQ(alerts[0].state(), v1::Alert::STATE_FIRING);
  EXPECT_EQ(alerts[0].rule_name(), c.name);
  EXPECT_EQ(alerts[0].severity(), c.severity);
  EXPECT_EQ(alerts[0].firing_step(), c.quiet + c.steps - 1);
  EXPECT_EQ(alerts[0].last_step(), c.quiet + c.steps - 1);
  EXPECT_EQ(alerts[0].count(), 1);
  EXPECT_EQ(alerts[0].fire_time().seconds(), 1000 + c.quiet + c.steps - 1);
  EXPECT_THAT(alerts[0].message(), HasSubstr(std::to_string(alerts[0].firing_step())));
  EXPECT_THAT(alerts[0].advice(), testing::Not(IsEmpty()));
  EXPECT_GE(stream.engine.firing(), 1);
}

TEST_P(EveryRule, StaysQuietShortOfTheCondition) {
  Stream stream(OwnJob());

  stream.Feed(GetParam().quiet);
  stream.Feed(GetParam().steps + 300, GetParam().harmless);

  EXPECT_THAT(AlertsOf(stream.engine), IsEmpty());
}

TEST_P(EveryRule, StaysQuietOnHealthySteps) {
  Stream stream(OwnJob());

  stream.Feed(500);

  EXPECT_THAT(stream.engine.alerts(), IsEmpty());
  EXPECT_THAT(stream.engine.pending(), IsEmpty());
  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST_P(EveryRule, ResolvesAfterTheResolveSteps) {
  const Case& c = GetParam();
  Stream stream(OwnJob());
  MakeItFire(&stream);
  const int64_t last_step = stream.next_step - 1;

  LetItResolve(&stream);

  const v1::Alert alert = AlertsOf(stream.engine)[0];
  EXPECT_EQ(alert.resolve_reason(), v1::Alert::RESOLVE_REASON_CONDITION);
  EXPECT_EQ(alert.resolved_step(), stream.next_step - 1);
  EXPECT_EQ(alert.resolve_time().seconds(), 1000 + stream.next_step - 1);
  EXPECT_GE(alert.last_step(), last_step);
  if (c.steps_to_resolve > 0) {
    EXPECT_EQ(alert.resolved_step() - alert.last_step(), c.steps_to_resolve);
  }
}

TEST_P(EveryRule, HitWithinCooldownReopensTheSameAlert) {
  const Case& c = GetParam();
  Stream stream(JobWith([&c](v1::RuleSettings* settings) {
    if (c.cooldown > 0) settings->set_cooldown_steps(100000);
  }));
  MakeItFire(&stream);
  LetItResolve(&stream);

  stream.Feed(c.steps + 300, c.symptom);

  const std::vector<v1::Alert> alerts = AlertsOf(stream.engine);
  if (c.cooldown == 0) {  // Never muted.
    ASSERT_THAT(alerts, SizeIs(2));
    EXPECT_EQ(alerts[1].count(), 1);
    return;
  }
  ASSERT_THAT(alerts, SizeIs(1));
  EXPECT_EQ(alerts[0].state(), v1::Alert::STATE_FIRING);
  EXPECT_EQ(alerts[0].count(), 2);
  EXPECT_EQ(alerts[0].resolve_reason(), v1::Alert::RESOLVE_REASON_UNSPECIFIED);
  EXPECT_FALSE(alerts[0].has_resolve_time());
}

TEST_P(EveryRule, HitAfterCooldownIsAnotherAlert) {
  const Case& c = GetParam();
  Stream stream(OwnJob());
  MakeItFire(&stream);
  LetItResolve(&stream);

  stream.Feed(static_cast<int>(c.cooldown) + 1);
  stream.Feed(c.steps + 300, c.symptom);

  const std::vector<v1::Alert> alerts = AlertsOf(stream.engine);
  ASSERT_THAT(alerts, SizeIs(2));
  EXPECT_EQ(alerts[0].state(), v1::Alert::STATE_RESOLVED);
  EXPECT_EQ(alerts[1].count(), 1);
  EXPECT_GT(alerts[1].firing_step(), alerts[0].resolved_step());
}

TEST_P(EveryRule, HasAThresholdForEachJob) {
  const Case& c = GetParam();
  Stream stream(
      JobWith([&c](v1::RuleSettings* settings) { settings->set_threshold(c.mild_threshold); }));

  MakeItFire(&stream);

  EXPECT_THAT(AlertsOf(stream.engine), IsEmpty());
}

TEST_P(EveryRule, IsSilentWhenDisabled) {
  Stream stream(JobWith([](v1::RuleSettings* settings) { settings->set_disabled(true); }));

  MakeItFire(&stream);
  stream.Feed(200, GetParam().symptom);

  EXPECT_THAT(AlertsOf(stream.engine), IsEmpty());
}

TEST_P(EveryRule, IsSilentDuringWarmUp) {
  const Case& c = GetParam();
  Stream stream(JobWith([](v1::RuleSettings* settings) { settings->set_warmup_steps(1000); }));

  MakeItFire(&stream);
  stream.Feed(1000 - static_cast<int>(stream.next_step), c.symptom);

  EXPECT_THAT(AlertsOf(stream.engine), IsEmpty());
}

TEST_P(EveryRule, NonFiniteStepsFreezeIt) {
  // Fed under the number of the step that follows, so that only their content can tell.
  const Case& c = GetParam();
  const auto play = [&c](bool with_nonfinite) {
    auto stream = std::make_unique<Stream>(OwnJob());
    for (int i = 0; i < c.quiet + c.steps + 500; ++i) {
      if (with_nonfinite && i % 7 == 3) {
        stream->FeedNonFinite(1);
        --stream->next_step;
      }
      stream->Feed(1, i >= c.quiet && i < c.quiet + c.steps + 30 ? c.symptom : nullptr);
    }
    return stream;
  };

  const std::vector<v1::Alert> plain = AlertsOf(play(false)->engine);
  const std::vector<v1::Alert> frozen = AlertsOf(play(true)->engine);

  ASSERT_THAT(plain, SizeIs(1));
  ASSERT_THAT(frozen, SizeIs(1));
  EXPECT_EQ(frozen[0].pending_step(), plain[0].pending_step());
  EXPECT_EQ(frozen[0].firing_step(), plain[0].firing_step());
  EXPECT_EQ(frozen[0].resolved_step(), plain[0].resolved_step());
  EXPECT_EQ(frozen[0].message(), plain[0].message());
}

// Rules that look at the step itself, not at an average that takes long to turn, and that tell
// nothing before the time.
class PromptRule : public EveryRule {};

INSTANTIATE_TEST_SUITE_P(Rules, PromptRule, testing::ValuesIn([] {
                           std::vector<Case> prompt;
                           for (const Case& c : Cases()) {
                             const bool slow = c.rule == v1::RULE_ID_RECURRENT_EXPANSION ||
                                               c.rule == v1::RULE_ID_VANISHING_THROUGH_TIME ||
                                               c.rule == v1::RULE_ID_CLIP_SATURATED ||
                                               c.rule == v1::RULE_ID_CLIP_TOO_LOOSE ||
                                               c.rule == v1::RULE_ID_LOSS_PLATEAU ||
                                               c.rule == v1::RULE_ID_UPDATE_RATIO ||
                                               c.rule == v1::RULE_ID_OSCILLATION;
                             const bool eager = c.rule == v1::RULE_ID_EXPLODING_REL;
                             if (!slow && !eager) prompt.push_back(c);
                           }
                           return prompt;
                         }()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(PromptRule, PendingDropsAtTheFirstFalse) {
  const Case& c = GetParam();
  Stream stream(JobWith([](v1::RuleSettings* settings) { settings->set_for_steps(30); }));
  stream.Feed(c.quiet);

  for (int i = 0; i < 6; ++i) {
    stream.Feed(20, c.symptom);
    EXPECT_THAT(stream.engine.pending(), testing::Not(IsEmpty()));
    stream.Feed(12);
  }

  EXPECT_THAT(AlertsOf(stream.engine), IsEmpty());
}

TEST_P(EveryRule, EndOfTheJobResolvesIt) {
  Stream stream(OwnJob());
  MakeItFire(&stream);
  stream.changed.clear();

  stream.engine.EndJob(absl::FromUnixSeconds(9000), &stream.changed);

  const v1::Alert alert = AlertsOf(stream.engine)[0];
  EXPECT_EQ(alert.state(), v1::Alert::STATE_RESOLVED);
  EXPECT_EQ(alert.resolve_reason(), v1::Alert::RESOLVE_REASON_JOB_ENDED);
  EXPECT_EQ(alert.resolve_time().seconds(), 9000);
  EXPECT_EQ(stream.engine.firing(), 0);
  EXPECT_FALSE(stream.changed.empty());
}

TEST_P(EveryRule, ContinuesExactlyFromItsState) {
  const Case& c = GetParam();
  const auto play = [&c](int64_t from, int64_t to, Stream* stream) {
    for (int64_t step = from; step < to; ++step) {
      v1::StepStats stats = MakeStep(step);
      const bool bad = step >= c.quiet && (step / 130) % 2 == 0;
      if (bad) c.symptom(&stats);
      stream->next_step = step;
      stream->FeedStep(step % 37 == 5 ? MakeNonFiniteStep(step) : stats);
    }
  };
  Stream whole(OwnJob());
  play(0, 900, &whole);
  for (const int64_t cut : {1, c.quiet + 3, 77, 131, 260, 333, 612}) {
    SCOPED_TRACE(cut);
    Stream first(OwnJob());
    play(0, cut, &first);
    Stream second(OwnJob());

    ASSERT_TRUE(second.engine.LoadState(first.engine.SaveState()).ok());
    play(cut, 900, &second);

    ASSERT_EQ(second.engine.alerts().size(), whole.engine.alerts().size());
    for (size_t i = 0; i < whole.engine.alerts().size(); ++i) {
      EXPECT_EQ(second.engine.alerts()[i].DebugString(), whole.engine.alerts()[i].DebugString());
    }
    EXPECT_EQ(second.engine.firing(), whole.engine.firing());
    EXPECT_EQ(second.engine.SaveState(), whole.engine.SaveState());
  }
}

TEST(NonFiniteRule, FiresAtOnceAndNamesTheFirstBadTensor) {
  Stream stream(MakeJob());
  stream.FeedNonFinite(1);

  ASSERT_THAT(stream.changed, SizeIs(1));
  const v1::Alert& alert = stream.changed[0];
  EXPECT_EQ(alert.name(), "jobs/boom/alerts/1");
  EXPECT_EQ(alert.rule(), v1::RULE_ID_NON_FINITE);
  EXPECT_EQ(alert.severity(), v1::SEVERITY_CRIT);
  EXPECT_EQ(alert.tensor(), "h");
  EXPECT_EQ(alert.time_step(), 31);
  EXPECT_EQ(alert.first_value(), 1.0);
  EXPECT_EQ(alert.message(),
            "NaN or infinity at step 0, first in h of layer 0 at time step 31; 17 gradient entries "
            "are not finite, steps of this kind in a row: 1, last finite norm 1. The update was "
            "skipped.");
  EXPECT_THAT(alert.advice(), HasSubstr("gradwatch update boom --clip 1"));
}

TEST(NonFiniteRule, ResolvesAfterTwentyCleanStepsAndIsNeverMuted) {
  Stream stream(MakeJob());
  stream.FeedNonFinite(3);
  EXPECT_EQ(stream.engine.alerts()[0].peak_value(), 3.0);

  stream.Feed(19);
  EXPECT_EQ(stream.engine.firing(), 1);
  stream.Feed(1);
  EXPECT_EQ(stream.engine.firing(), 0);
  stream.FeedNonFinite(1);

  EXPECT_THAT(stream.engine.alerts(), SizeIs(2));
  EXPECT_EQ(stream.engine.alerts()[1].name(), "jobs/boom/alerts/2");
}

TEST(NonFiniteRule, SeesAnInfiniteLossAlone) {
  Stream stream(MakeJob());

  stream.Feed(1, Loss(kInfinite));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_NON_FINITE);
}

TEST(ExplodingAbs, NamesTensorStepValueAndThreshold) {
  Stream stream(MakeJob());

  stream.Feed(4);
  stream.Feed(1, Norm(1234.5));

  ASSERT_THAT(stream.changed, SizeIs(1));
  const v1::Alert& alert = stream.changed[0];
  EXPECT_EQ(alert.tensor(), "rnn.weight_hh_l0");
  EXPECT_EQ(alert.first_value(), 1234.5);
  EXPECT_EQ(alert.threshold(), 1000.0);
  EXPECT_EQ(alert.message(),
            "Gradient norm 1234 passed 1000 at step 4; largest in rnn.weight_hh_l0 (0.9). "
            "Clipping is off.");
  EXPECT_THAT(alert.advice(), HasSubstr("clipping.policies to global_norm with max_norm 1 "));
  EXPECT_THAT(alert.advice(), HasSubstr("orthogonal_gain 1.0 instead of 1.2"));
}

TEST(ExplodingAbs, IsOnlyAWarningWhenTheJobClips) {
  Stream stream(MakeJob(/*clips=*/true));

  stream.Feed(1, Norm(1234.5));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_WARN);
}

TEST(ExplodingAbs, RisesWhenClippingIsSwitchedOff) {
  Stream stream(MakeJob(/*clips=*/true));
  stream.Feed(1, Norm(2000));
  stream.changed.clear();

  stream.engine.SetRules(MakeJob(/*clips=*/false), absl::UnixEpoch(), &stream.changed);
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(1, Norm(2000));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_CRIT);
  EXPECT_EQ(stream.changed[0].count(), 1);
}

TEST(ExplodingAbs, InfiniteNormIsAboveTheLimitAndNanTellsNothing) {
  Stream stream(MakeJob());

  stream.Feed(1, Norm(kNotANumber));
  EXPECT_EQ(stream.engine.firing(), 1);  // R1 alone.
  stream.Feed(1, Norm(kInfinite));

  EXPECT_EQ(stream.engine.firing(), 2);
}

TEST(ExplodingAbs, BetweenResolveLevelAndLimitItKeepsFiring) {
  Stream stream(MakeJob());
  stream.Feed(1, Norm(2000));

  stream.Feed(500, Norm(150));
  EXPECT_EQ(stream.engine.firing(), 1);
  stream.Feed(49, Norm(99));
  stream.Feed(1, Norm(150));
  stream.Feed(49, Norm(99));
  EXPECT_EQ(stream.engine.firing(), 1);
  stream.Feed(1, Norm(99));

  EXPECT_EQ(stream.engine.firing(), 0);
  EXPECT_EQ(stream.engine.alerts()[0].peak_value(), 2000);
  EXPECT_EQ(stream.engine.alerts()[0].last_value(), 99);
}

TEST(LossDivergence, RelapseBelowTheFirstLossIsAWarning) {
  Stream stream(MakeJob());
  stream.Feed(20, Loss(1.0));
  stream.Feed(200, Loss(0.01));

  stream.Feed(60, Loss(0.9));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_LOSS_DIVERGENCE);
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_WARN);
  EXPECT_EQ(stream.changed[0].threshold(), 0.5);
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("Relapse"));
}

TEST(LossDivergence, WobblesNearZeroAreNoRelapse) {
  Stream stream(MakeJob());
  stream.Feed(20, Loss(1.0));
  stream.Feed(200, Loss(0.001));

  stream.Feed(300, Loss(0.2));  // 200 times the best, but below half of the first loss.

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(LossDivergence, AverageAboveTheFirstLossIsCritical) {
  Stream stream(MakeJob());
  stream.Feed(20, Loss(1.0));

  stream.Feed(60, Loss(5.0));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_CRIT);
}

TEST(LossDivergence, RelapseThatPassesTheFirstLossRises) {
  Stream stream(MakeJob());
  stream.Feed(20, Loss(1.0));
  stream.Feed(200, Loss(0.01));
  stream.Feed(60, Loss(0.9));
  stream.changed.clear();

  stream.Feed(60, Loss(1.5));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_CRIT);
}

TEST(ExplodingRel, NeedsSixtyFourNorms) {
  Stream stream(MakeJob());

  stream.Feed(60);
  stream.Feed(4, Norm(50));

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(ExplodingRel, SingleSpikesAreToldOnceAndForInformation) {
  Stream stream(MakeJob());
  stream.Feed(100);

  for (int i = 0; i < 20; ++i) {
    stream.Feed(1, Norm(500));
    stream.Feed(9);
  }

  ASSERT_THAT(stream.changed, SizeIs(1));
  const v1::Alert& alert = stream.changed[0];
  EXPECT_EQ(alert.rule(), v1::RULE_ID_EXPLODING_REL);
  EXPECT_EQ(alert.severity(), v1::SEVERITY_INFO);
  EXPECT_TRUE(alert.single_event());
  EXPECT_EQ(alert.firing_step(), 100);
  EXPECT_THAT(alert.message(), HasSubstr("A single spike: gradient norm 500 at step 100, 500 "
                                         "times the recent median 1"));
  EXPECT_THAT(alert.message(), HasSubstr("largest in rnn.weight_hh_l0"));
  EXPECT_THAT(alert.advice(), HasSubstr("gradwatch batch boom 100"));
  EXPECT_EQ(stream.engine.firing(), 1);
}

TEST(ExplodingRel, SingleSpikeResolvesAndWithinCooldownComesAgainUnderTheSameName) {
  Stream stream(MakeJob());
  stream.Feed(100);
  stream.Feed(1, Norm(500));
  stream.Feed(49);
  EXPECT_EQ(stream.engine.firing(), 1);
  stream.Feed(1);  // The fiftieth.
  EXPECT_EQ(stream.engine.firing(), 0);

  stream.Feed(99);
  stream.Feed(1, Norm(500));
  ASSERT_THAT(stream.engine.alerts(), SizeIs(1));
  EXPECT_EQ(stream.engine.alerts()[0].count(), 2);
  EXPECT_TRUE(stream.engine.alerts()[0].single_event());
  stream.Feed(50 + 101);
  stream.Feed(1, Norm(500));

  ASSERT_THAT(stream.engine.alerts(), SizeIs(2));
  EXPECT_EQ(stream.engine.alerts()[1].count(), 1);
}

TEST(ExplodingRel, SpikesAgainAndAgainTakeOverTheAlertOfTheFirst) {
  Stream stream(MakeJob());
  stream.Feed(75);
  stream.Feed(1, Norm(400));
  const v1::Acknowledgement seen = [] {
    v1::Acknowledgement acknowledgement;
    acknowledgement.set_author("ann");
    return acknowledgement;
  }();
  ASSERT_TRUE(stream.engine.Acknowledge(1, seen, &stream.changed).ok());
  stream.Feed(2);
  stream.changed.clear();

  stream.Feed(6, Spikes(40));  // At 78 and 81.
  ASSERT_THAT(stream.changed, SizeIs(1));
  stream.Feed(30, Spikes(40));

  ASSERT_THAT(stream.changed, SizeIs(1));
  const v1::Alert& alert = stream.changed[0];
  EXPECT_EQ(alert.name(), "jobs/boom/alerts/1");
  EXPECT_EQ(alert.severity(), v1::SEVERITY_WARN);
  EXPECT_FALSE(alert.single_event());
  EXPECT_EQ(alert.pending_step(), 75);
  EXPECT_EQ(alert.firing_step(), 81);
  EXPECT_EQ(alert.fire_time().seconds(), 1081);
  EXPECT_EQ(alert.count(), 1);
  EXPECT_FALSE(alert.has_acknowledgement());
  EXPECT_NEAR(alert.peak_value(), std::log(400.0) / 0.1, 1e-9);
  EXPECT_THAT(alert.message(), HasSubstr("3 of the last 10 steps"));
}

TEST(ExplodingRel, SingleSpikeAfterManyIsNotToldWithinTheCooldown) {
  Stream stream(MakeJob());
  stream.Feed(75);
  stream.Feed(7, Spikes(40));
  stream.Feed(60);
  ASSERT_THAT(stream.engine.alerts(), SizeIs(1));
  ASSERT_EQ(stream.engine.alerts()[0].state(), v1::Alert::STATE_RESOLVED);
  stream.changed.clear();

  stream.Feed(1, Norm(500));
  stream.Feed(100);
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(1, Norm(500));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].name(), "jobs/boom/alerts/2");
  EXPECT_TRUE(stream.changed[0].single_event());
}

TEST(ExplodingRel, ForAndSeverityOfTheJobAreNotThoseOfASingleSpike) {
  v1::Job job = MakeJob();
  v1::RuleSettings& settings = *job.add_rules();
  settings.set_id(v1::RULE_ID_EXPLODING_REL);
  settings.set_for_steps(30);
  settings.set_severity(v1::SEVERITY_CRIT);
  Stream stream(job);
  stream.Feed(75);

  stream.Feed(7 + 28, Spikes(40));  // The third at 81; 28 more steps.
  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_INFO);
  EXPECT_EQ(stream.changed[0].firing_step(), 75);
  stream.Feed(1, Spikes(40));

  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[1].severity(), v1::SEVERITY_CRIT);
  EXPECT_EQ(stream.changed[1].firing_step(), 81 + 29);
}

TEST(RecurrentExpansion, LongWindowFiresByDecades) {
  const auto grows = [](v1::StepStats* stats) {
    stats->mutable_growth()->set_growth_factor(1.04);
    stats->mutable_growth()->set_window(200);  // 200 * log10(1.04) = 3.4 decades.
  };
  Stream stream(MakeJob());

  stream.Feed(40, grows);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_RECURRENT_EXPANSION);
  EXPECT_EQ(stream.changed[0].tensor(), "rnn.weight_hh_l1");
  EXPECT_NEAR(stream.changed[0].threshold(), std::pow(10.0, 3.0 / 200.0), 1e-12);
}

TEST(Vanishing, ShortWindowsNeverFire) {
  const auto vanishes = [](v1::StepStats* stats) {
    stats->mutable_growth()->set_growth_factor(0.1);
    stats->mutable_growth()->set_window(19);
  };
  Stream stream(MakeJob());

  stream.Feed(300, vanishes);

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(Vanishing, SaysHorizonAndThatClippingCannotHelp) {
  Stream stream(MakeJob());

  stream.Feed(130, GrowthFactor(0.47));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("fades to 1/e within 1.324 time steps"));
  EXPECT_THAT(stream.changed[0].advice(), HasSubstr("Clipping cannot help"));
  EXPECT_LT(stream.changed[0].first_value(), -16.0);
}

TEST(HiddenGrowth, SingleHugeStateFires) {
  Stream stream(MakeJob());

  stream.Feed(25, [](v1::StepStats* stats) { stats->mutable_layers(0)->set_hidden_max_abs(2000); });

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_HIDDEN_GROWTH);
  EXPECT_EQ(stream.changed[0].threshold(), 1000.0);
  EXPECT_EQ(stream.changed[0].first_value(), 2000.0);
}

TEST(HiddenGrowth, LinearAccumulationIsNoSurge) {
  Stream stream(MakeJob());

  stream.Feed(100, [](v1::StepStats* stats) {
    v1::LayerTimeStats& layer = *stats->mutable_layers(0);
    for (int t = 0; t < layer.hidden_rms_size(); ++t) {
      layer.set_hidden_rms(t, 0.1F * static_cast<float>(t + 1));
    }
  });

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(VanishingAbs, EachLayerHasAnAlertOfItsOwn) {
  Stream stream(MakeJob());
  stream.Feed(20);

  stream.Feed(50, GradientOf(1, 1e-7));
  stream.Feed(50, [](v1::StepStats* stats) {
    stats->mutable_tensors(1)->set_norm(1e-7);
    stats->mutable_tensors(2)->set_norm(2e-7);
  });

  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[0].tensor(), "rnn.weight_hh_l0");
  EXPECT_EQ(stream.changed[1].tensor(), "rnn.weight_hh_l1");
  EXPECT_EQ(stream.changed[1].firing_step(), 119);
}

TEST(DeadLayer, ExactZerosInEachTensorAreDead) {
  Stream stream(MakeJob());
  stream.Feed(20);
  const auto dead = [](v1::StepStats* stats) {
    stats->mutable_tensors(0)->set_zeros(20);
    stats->mutable_tensors(1)->set_zeros(100);
    stats->mutable_tensors(4)->set_zeros(10);
  };

  stream.Feed(100, [&](v1::StepStats* stats) {
    dead(stats);
    stats->mutable_tensors(4)->set_zeros(5);  // Half of the units live.
  });
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(100, dead);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_DEAD_LAYER);
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("most of layer 0"));
}

TEST(DeadUnits, ReluUnitsWithoutGradientAreDead) {
  v1::Job job = MakeJob();
  job.mutable_model()->set_cell(v1::Model::CELL_RNN_RELU);
  Stream stream(job);
  stream.Feed(20);

  stream.Feed(100, Tensor(4, [](v1::TensorStats* tensor) { tensor->set_zeros(6); }));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_DEAD_OR_SATURATED_UNITS);
  EXPECT_EQ(stream.changed[0].first_value(), 0.6);
}

TEST(GatesStuck, InputAndOutputGatesMustBothBeClosed) {
  v1::Job job = MakeJob();
  job.mutable_model()->set_cell(v1::Model::CELL_LSTM);
  Stream stream(job);
  stream.Feed(20);

  stream.Feed(100, Layer([](v1::LayerTimeStats* layer) { layer->set_gate_closed_share(0, 0.99); }));
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(100, Layer([](v1::LayerTimeStats* layer) {
                layer->set_gate_closed_share(0, 0.99);
                layer->set_gate_closed_share(3, 0.95);
              }));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].tensor(), "i_l0");
  EXPECT_EQ(stream.changed[0].first_value(), 0.95);
}

TEST(UpdateRatio, TooSmallAdvisesAHigherRate) {
  Stream stream(MakeJob());

  stream.Feed(70, UpdateRatios(1e-6));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("too small"));
  EXPECT_THAT(stream.changed[0].advice(),
              HasSubstr("raise optimizer.learning_rate, for instance from 0.1 to 100 "));
  EXPECT_EQ(stream.changed[0].threshold(), kUpdateRatioLow);
}

TEST(UpdateRatio, FarTooLargeIsCritical) {
  Stream stream(MakeJob());

  stream.Feed(70, UpdateRatios(2 * kUpdateRatioCritical * kUpdateRatioHigh));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_CRIT);
}

TEST(WeightBlowup, SteadyGrowthFiresBeforeTheTotalDoes) {
  Stream stream(MakeJob());
  stream.Feed(20);

  double norm = 3.0;
  for (int i = 0; i < 10; ++i) {
    norm *= 1.06;
    stream.Feed(1, WeightsOf(1, norm));
  }

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_WEIGHT_BLOWUP);
  EXPECT_EQ(stream.changed[0].tensor(), "rnn.weight_hh_l0");
  EXPECT_NEAR(stream.changed[0].first_value(), 1.06, 1e-9);
}

TEST(WeightBlowup, WeightsThatBeganTinyMayGrowToTheUsualSize) {
  Stream stream(MakeJob());
  stream.Feed(20, WeightsOf(1, 0.01));

  double norm = 0.01;
  for (int i = 0; i < 60; ++i) {
    norm = std::min(1.8, norm * 1.1);  // PyTorch's would be sqrt(100 / 30) = 1.83.
    stream.Feed(1, WeightsOf(1, norm));
  }

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(WeightBlowup, SpectrumThatGrowsFiresAndNamesTheLayer) {
  Stream stream(MakeJob());
  stream.Feed(20, Sigmas(1.0, 0.5));

  stream.Feed(30, Sigmas(1.1, 1.4));
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(1, Sigmas(1.1, 1.6));
  stream.Feed(9);  // What is measured now and then holds until it is measured again.

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_WEIGHT_BLOWUP);
  EXPECT_EQ(stream.changed[0].tensor(), "rnn.weight_hh_l1");
  EXPECT_NEAR(stream.changed[0].first_value(), 3.2, 1e-9);
  EXPECT_EQ(stream.changed[0].threshold(), 3.0);
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("largest singular value is 3.2 times"));
  stream.Feed(50, Sigmas(1.1, 1.0));
  EXPECT_EQ(stream.changed.back().state(), v1::Alert::STATE_RESOLVED);
}

TEST(DeadOrSaturatedUnits, FlatStatesFireAlthoughFewAreBeyondTheLimit) {
  const Symptom flat = Layer([](v1::LayerTimeStats* layer) { layer->set_activation_slope(0.03); });
  Stream stream(MakeJob());
  stream.Feed(20);

  stream.Feed(100, flat);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_DEAD_OR_SATURATED_UNITS);
  EXPECT_EQ(stream.changed[0].first_value(), 0.03);
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("slope"));
  v1::Job relu = MakeJob();
  relu.mutable_model()->set_cell(v1::Model::CELL_RNN_RELU);
  Stream sparse(relu);
  sparse.Feed(200, flat);
  EXPECT_THAT(sparse.changed, IsEmpty());
}

TEST(Oscillation, NeedsGradientsThatAreCompared) {
  Stream stream(MakeJob());
  stream.Feed(40, Cosine(-0.5));

  stream.Feed(500, [](v1::StepStats* stats) { stats->clear_gradient_cosine(); });

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(Oscillation, IsNoneWhileTheLossFalls) {
  Stream stream(MakeJob());

  stream.Feed(200, [](v1::StepStats* stats) {
    stats->set_gradient_cosine(-0.9);
    stats->set_loss(std::exp(-0.005 * static_cast<double>(stats->step())));
  });

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(LossPlateau, CreepingAtTheFloorOfTheTaskIsOneTooUntilItIsLeft) {
  v1::Job job = MakeJob();
  job.mutable_task()->mutable_temporal_order()->set_time_steps(50);
  Stream stream(job);
  const auto creep = [](v1::StepStats* stats) {
    stats->set_loss(1.41 - 6e-5 * static_cast<double>(stats->step()));
  };

  stream.Feed(800, creep);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_LOSS_PLATEAU);
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_INFO);
  EXPECT_THAT(
      stream.changed[0].message(),
      HasSubstr("Nothing of the task's memory is learnt: the median of the last 250 steps"));
  EXPECT_THAT(stream.changed[0].message(),
              HasSubstr("That is chance among the four classes (1.386)."));
  stream.Feed(300, Loss(1.2));
  EXPECT_EQ(stream.changed.back().state(), v1::Alert::STATE_RESOLVED);
}

TEST(LossPlateau, AtTheFloorOfTheTaskForLongItIsAWarningThatSaysSo) {
  v1::Job job = MakeJob();
  job.mutable_task()->mutable_adding()->set_time_steps(50);
  Stream stream(job);

  stream.Feed(2001, Loss(0.1672));

  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_INFO);
  EXPECT_EQ(stream.changed[1].severity(), v1::SEVERITY_WARN);
  EXPECT_THAT(stream.changed[1].message(), HasSubstr("what always answering 1 gives (0.1667)"));
}

TEST(LossPlateau, WithAVanishingGradientBothAreWarnings) {
  Stream stream(MakeJob());

  stream.Feed(610, [](v1::StepStats* stats) {
    stats->set_loss(1.0);
    stats->mutable_growth()->set_growth_factor(0.5);
  });

  std::map<v1::RuleId, v1::Severity> severities;
  for (const v1::Alert& alert : stream.engine.alerts()) severities[alert.rule()] = alert.severity();
  EXPECT_EQ(severities[v1::RULE_ID_LOSS_PLATEAU], v1::SEVERITY_WARN);
  EXPECT_EQ(severities[v1::RULE_ID_VANISHING_THROUGH_TIME], v1::SEVERITY_WARN);
}

TEST(ClipTooLoose, SilentWhenNothingIsWrong) {
  Stream stream(MakeJob(/*clips=*/true));

  stream.Feed(400);

  EXPECT_THAT(stream.changed, IsEmpty());
}

bool Fired(const Stream& stream, v1::RuleId rule) {
  return std::any_of(stream.engine.alerts().begin(), stream.engine.alerts().end(),
                     [rule](const v1::Alert& alert) { return alert.rule() == rule; });
}

TEST(ExplodingRel, SpikesThatWereClippedAreForInformation) {
  Stream stream(MakeJob(/*clips=*/true));
  stream.Feed(75);

  stream.Feed(10, [](v1::StepStats* stats) {
    Spikes(40)(stats);
    stats->set_clipped(stats->norm_before() > 1.0);
  });

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_EXPLODING_REL);
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_INFO);
  EXPECT_FALSE(stream.changed[0].single_event());
}

TEST(ExplodingRel, SingleSpikeThatWasClippedIsNotTold) {
  Stream stream(MakeJob(/*clips=*/true));
  stream.Feed(75);

  stream.Feed(1, [](v1::StepStats* stats) {
    stats->set_norm_before(40);
    stats->set_clipped(true);
  });
  stream.Feed(20);
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(1, Norm(40));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_TRUE(stream.changed[0].single_event());
  EXPECT_THAT(stream.changed[0].message(), HasSubstr("It was not clipped."));
}

TEST(ExplodingRel, SpikesThatWereClippedTakeOverForInformationFirst) {
  Stream stream(MakeJob(/*clips=*/true));
  stream.Feed(75);
  stream.Feed(1, Norm(40));
  const auto clipped = [](v1::StepStats* stats) {
    stats->set_norm_before(40);
    stats->set_clipped(true);
  };

  stream.Feed(2, clipped);
  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[1].severity(), v1::SEVERITY_INFO);
  EXPECT_FALSE(stream.changed[1].single_event());
  stream.Feed(1, Norm(40));

  ASSERT_THAT(stream.changed, SizeIs(3));
  EXPECT_EQ(stream.changed[2].name(), stream.changed[0].name());
  EXPECT_EQ(stream.changed[2].severity(), v1::SEVERITY_WARN);
}

TEST(ExplodingRel, SilentWhileTheLossFallsFast) {
  Stream stream(MakeJob());
  stream.Feed(75);
  stream.Feed(60, Loss(0.5));

  stream.Feed(10, [](v1::StepStats* stats) {
    stats->set_loss(0.5);
    Spikes(40)(stats);
  });

  EXPECT_FALSE(Fired(stream, v1::RULE_ID_EXPLODING_REL));
}

TEST(ExplodingRel, SilentOnceTheLossIsNearNothing) {
  Stream stream(MakeJob());
  stream.Feed(75);
  stream.Feed(400, Loss(0.01));

  stream.Feed(10, [](v1::StepStats* stats) {
    stats->set_loss(0.01);
    Spikes(40)(stats);
  });

  EXPECT_FALSE(Fired(stream, v1::RULE_ID_EXPLODING_REL));
}

TEST(RecurrentExpansion, SilentWhereItIsLittleInAll) {
  Stream stream(MakeJob());

  stream.Feed(100, [](v1::StepStats* stats) {
    stats->mutable_growth()->set_growth_factor(1.1);
    stats->mutable_growth()->set_window(15);  // 0.6 decades.
  });

  EXPECT_FALSE(Fired(stream, v1::RULE_ID_RECURRENT_EXPANSION));
}

TEST(VanishingAbs, AfterAnExplosionItWaits) {
  Stream stream(MakeJob());
  stream.Feed(20);
  stream.Feed(2, Norm(1500));

  stream.Feed(900, GradientOf(1, 1e-7));

  EXPECT_FALSE(Fired(stream, v1::RULE_ID_VANISHING_ABS));
  stream.Feed(400, GradientOf(1, 1e-7));
  EXPECT_TRUE(Fired(stream, v1::RULE_ID_VANISHING_ABS));
}

TEST(ClipTooLoose, FiresForAThresholdThatActsOnlyInTheExplosion) {
  v1::Job job = MakeJob();
  job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(1000.0);
  Stream stream(job);
  stream.Feed(100, [](v1::StepStats* stats) {
    stats->set_norm_before(0.7);
    stats->set_clipped(stats->step() % 10 == 0);
  });

  stream.Feed(2, [](v1::StepStats* stats) {
    stats->set_norm_before(2000);
    stats->set_clipped(true);
  });

  const v1::Alert& alert = stream.engine.alerts().back();
  EXPECT_EQ(alert.rule(), v1::RULE_ID_CLIP_TOO_LOOSE);
  EXPECT_THAT(alert.message(), HasSubstr("only once all is lost"));
}

TEST(ClipTooLoose, NamesTheMedianAsThreshold) {
  Stream stream(MakeJob(/*clips=*/true));
  stream.Feed(100, Norm(0.7));

  stream.Feed(2, Norm(2000));

  const v1::Alert& alert = stream.engine.alerts().back();
  EXPECT_EQ(alert.rule(), v1::RULE_ID_CLIP_TOO_LOOSE);
  EXPECT_THAT(alert.advice(), HasSubstr("--clip 0.5"));
}

TEST(UpdateSpike, AScheduleIsNoSpike) {
  Stream stream(MakeJob());
  stream.Feed(80);

  stream.Feed(60, [](v1::StepStats* stats) {
    stats->set_learning_rate(10.0);  // 100 times as high, and so the updates.
    stats->set_update_norm(10.0);
  });

  EXPECT_THAT(stream.changed, IsEmpty());
}

TEST(Stalled, CountsFromTheLastStepAndResolvesWithTheNext) {
  Stream stream(MakeJob());
  stream.Feed(3);  // The last one at 1002 s.

  stream.engine.CheckProgress(absl::FromUnixSeconds(1062), &stream.changed);
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.engine.CheckProgress(absl::FromUnixSeconds(1063), &stream.changed);
  stream.engine.CheckProgress(absl::FromUnixSeconds(1099), &stream.changed);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_STALLED_JOB);
  EXPECT_EQ(stream.changed[0].firing_step(), 3);
  EXPECT_FALSE(stream.changed[0].has_batch_origin());
  stream.Feed(1);
  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[1].state(), v1::Alert::STATE_RESOLVED);
}

TEST(Stalled, TimeBeforeItWentOnDoesNotCount) {
  Stream before(MakeJob());
  before.Feed(3);
  Stream stream(MakeJob());
  ASSERT_TRUE(stream.engine.LoadState(before.engine.SaveState()).ok());

  stream.engine.CheckProgress(absl::FromUnixSeconds(5000), &stream.changed);
  stream.engine.CheckProgress(absl::FromUnixSeconds(5060), &stream.changed);
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.engine.CheckProgress(absl::FromUnixSeconds(5061), &stream.changed);

  EXPECT_THAT(stream.changed, SizeIs(1));
}

TEST(RuleEngine, SeverityAndSecondThresholdAreTheJobs) {
  v1::Job job = MakeJob();
  v1::RuleSettings& settings = *job.add_rules();
  settings.set_id(v1::RULE_ID_HIDDEN_GROWTH);
  settings.set_second_threshold(10.0);
  settings.set_severity(v1::SEVERITY_CRIT);
  Stream stream(job);

  stream.Feed(5, Layer([](v1::LayerTimeStats* layer) { layer->set_hidden_max_abs(11.0); }));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].severity(), v1::SEVERITY_CRIT);
  EXPECT_EQ(stream.changed[0].threshold(), 10.0);
}

TEST(RuleEngine, AlertsNameTheBatch) {
  Stream stream(MakeJob());

  stream.Feed(1, [](v1::StepStats* stats) {
    stats->set_norm_before(5000.0);
    stats->set_batch_origin(320);
  });

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].batch_origin(), 320);
}

TEST(RuleEngine, AlertsNameTheLastGoodStepOfTheirFiring) {
  const auto step = [](double norm, int64_t good) {
    return [norm, good](v1::StepStats* stats) {
      stats->set_norm_before(norm);
      if (good >= 0) stats->set_last_good_step(good);
    };
  };
  Stream guarded(MakeJob()), alone(MakeJob());

  guarded.Feed(1, step(5000.0, 40));
  guarded.Feed(1, step(5000.0, 60));
  alone.Feed(1, step(5000.0, -1));

  ASSERT_THAT(guarded.changed, SizeIs(1));
  EXPECT_EQ(guarded.engine.alerts().back().last_good_step(), 40);
  ASSERT_THAT(alone.changed, SizeIs(1));
  EXPECT_FALSE(alone.changed[0].has_last_good_step());
}

v1::Acknowledgement NoteOf(const char* author) {
  v1::Acknowledgement note;
  note.set_author(author);
  return note;
}

TEST(Acknowledgement, IsGoneWhenTheAlertGrowsWorse) {
  Stream stream(MakeJob(/*clips=*/true));
  stream.Feed(1, Norm(2000));
  ASSERT_TRUE(stream.engine.Acknowledge(1, NoteOf("ann"), &stream.changed).ok());
  EXPECT_EQ(stream.changed.back().acknowledgement().author(), "ann");

  stream.Feed(5, Norm(3000));
  EXPECT_TRUE(stream.engine.alerts()[0].has_acknowledgement());
  stream.engine.SetRules(MakeJob(/*clips=*/false), absl::UnixEpoch(), &stream.changed);
  stream.Feed(1, Norm(3000));

  EXPECT_FALSE(stream.engine.alerts()[0].has_acknowledgement());
}

TEST(Acknowledgement, OnlyWhatFiresIsAcknowledged) {
  Stream stream(MakeJob());
  stream.Feed(1, Norm(2000));
  stream.Feed(60);

  EXPECT_EQ(stream.engine.Acknowledge(1, NoteOf("ann"), &stream.changed).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream.engine.Acknowledge(2, NoteOf("ann"), &stream.changed).status().code(),
            absl::StatusCode::kNotFound);
}

v1::Silence SilenceOf(const char* rule, int64_t until) {
  v1::Silence silence;
  silence.set_rule_name(rule);
  silence.mutable_expire_time()->set_seconds(until);
  return silence;
}

TEST(Silence, MarksWhatFiresUntilItEnds) {
  Stream stream(MakeJob());
  stream.Feed(1, Norm(2000));
  stream.changed.clear();

  ASSERT_TRUE(stream.engine.Silence(SilenceOf("EXPLODING_ABS", 1003), &stream.changed).ok());
  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].silenced_until().seconds(), 1003);
  stream.Feed(2, Norm(2000));
  EXPECT_TRUE(stream.engine.alerts()[0].has_silenced_until());
  stream.Feed(1, Norm(2000));  // At 1003 s.

  EXPECT_THAT(stream.engine.silences(), IsEmpty());
  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_FALSE(stream.changed[1].has_silenced_until());
}

TEST(Silence, MarksWhatBeginsToFireAndSurvivesItsState) {
  Stream first(MakeJob());
  ASSERT_TRUE(first.engine.Silence(SilenceOf("EXPLODING_ABS", 5000), &first.changed).ok());
  ASSERT_TRUE(first.engine.Silence(SilenceOf("EXPLODING_ABS", 6000), &first.changed).ok());
  Stream stream(MakeJob());
  ASSERT_TRUE(stream.engine.LoadState(first.engine.SaveState()).ok());

  stream.Feed(1, Norm(2000));

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].silenced_until().seconds(), 6000);
  ASSERT_TRUE(stream.engine.Unsilence("EXPLODING_ABS", &stream.changed).ok());
  EXPECT_FALSE(stream.changed[1].has_silenced_until());
  EXPECT_EQ(stream.engine.Unsilence("EXPLODING_ABS", &stream.changed).code(),
            absl::StatusCode::kNotFound);
}

TEST(RuleEngine, WithoutThroughTimeStatisticsTheRestStillWorks) {
  Stream stream(MakeJob());

  stream.Feed(200, [](v1::StepStats* stats) {
    stats->clear_growth();
    stats->clear_layers();
    stats->clear_tensors();
  });
  EXPECT_THAT(stream.changed, IsEmpty());
  stream.Feed(1, [](v1::StepStats* stats) {
    stats->clear_tensors();
    stats->set_norm_before(5000);
  });

  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[0].rule(), v1::RULE_ID_EXPLODING_ABS);
  EXPECT_EQ(stream.changed[0].tensor(), "");
  EXPECT_EQ(stream.changed[1].rule(), v1::RULE_ID_EXPLODING_REL);
  EXPECT_EQ(stream.changed[1].tensor(), "");
}

TEST(RuleEngine, ListsWhatIsPendingApart) {
  Stream stream(MakeJob());
  stream.Feed(20);

  stream.Feed(1, Surge(0.08, 100));

  EXPECT_THAT(stream.engine.alerts(), IsEmpty());
  EXPECT_THAT(stream.changed, IsEmpty());
  ASSERT_THAT(stream.engine.pending(), SizeIs(1));
  EXPECT_EQ(stream.engine.pending()[0].state(), v1::Alert::STATE_PENDING);
  EXPECT_EQ(stream.engine.pending()[0].rule_name(), "HIDDEN_GROWTH");
  EXPECT_EQ(stream.engine.pending()[0].pending_step(), 20);
  stream.Feed(1);
  EXPECT_THAT(stream.engine.pending(), IsEmpty());
}

TEST(RuleEngine, ChangedSettingsResolveAndStartAnew) {
  Stream stream(MakeJob());
  stream.Feed(1, Norm(2000));
  stream.changed.clear();
  v1::Job job = MakeJob();
  job.add_rules()->set_id(v1::RULE_ID_EXPLODING_ABS);
  job.mutable_rules(0)->set_threshold(500);

  stream.engine.SetRules(job, absl::FromUnixSeconds(50), &stream.changed);
  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].state(), v1::Alert::STATE_RESOLVED);
  EXPECT_EQ(stream.changed[0].resolve_reason(), v1::Alert::RESOLVE_REASON_RULE_CHANGED);
  stream.Feed(1, Norm(600));

  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[1].name(), "jobs/boom/alerts/2");
  EXPECT_EQ(stream.changed[1].threshold(), 500);
}

// --- window_steps.

v1::Job JobWithWindow(v1::RuleId rule, int64_t window, bool clips = false) {
  v1::Job job = MakeJob(clips);
  v1::RuleSettings& settings = *job.add_rules();
  settings.set_id(rule);
  settings.set_window_steps(window);
  return job;
}

// The newest alert of the rule that is about more than a single event; an empty one when there is
// none.
v1::Alert LatestOf(const Stream& stream, v1::RuleId rule) {
  v1::Alert latest;
  for (const v1::Alert& alert : stream.engine.alerts()) {
    if (alert.rule() == rule && !alert.single_event()) latest = alert;
  }
  return latest;
}

// Steps of the symptom, after a healthy past, until the rule fires.
int64_t StepsToFire(const Case& c, int64_t window, const Symptom& symptom) {
  Stream stream(JobWithWindow(c.rule, window, c.clips));
  stream.Feed(600);
  stream.Feed(1500, symptom);
  return LatestOf(stream, c.rule).firing_step() - 600;
}

class SlowRule : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Rules, SlowRule, testing::ValuesIn([] {
                           std::vector<Case> slow;
                           for (const Case& c : Cases()) {
                             const bool turns = c.rule == v1::RULE_ID_RECURRENT_EXPANSION ||
                                                c.rule == v1::RULE_ID_VANISHING_THROUGH_TIME ||
                                                c.rule == v1::RULE_ID_CLIP_SATURATED ||
                                                c.rule == v1::RULE_ID_LOSS_PLATEAU ||
                                                c.rule == v1::RULE_ID_UPDATE_RATIO ||
                                                c.rule == v1::RULE_ID_OSCILLATION;
                             if (turns) slow.push_back(c);
                           }
                           return slow;
                         }()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(SlowRule, TurnsSoonerTheShorterItsWindow) {
  const Case& c = GetParam();
  int64_t usual = 0;
  for (const v1::Rule& rule : RuleCatalogue()) {
    if (rule.id() == c.rule) usual = rule.defaults().window_steps();
  }
  ASSERT_GT(usual, 0);

  const int64_t shorter = StepsToFire(c, usual / 2, c.symptom);
  const int64_t same = StepsToFire(c, usual, c.symptom);
  const int64_t longer = StepsToFire(c, 2 * usual, c.symptom);

  EXPECT_GT(shorter, 0);
  EXPECT_LT(shorter, same);
  EXPECT_LT(same, longer);
}

TEST(LossDivergence, TurnsSoonerTheShorterItsWindow) {
  // Above twice the best average, below ten times the first loss.
  const Case c = {.rule = v1::RULE_ID_LOSS_DIVERGENCE};

  const int64_t shorter = StepsToFire(c, 5, Loss(3.0));
  const int64_t longer = StepsToFire(c, 80, Loss(3.0));

  EXPECT_GT(shorter, 0);
  EXPECT_LT(shorter, longer);
}

TEST(ClipTooLoose, ForgetsAnExplosionSoonerTheShorterItsWindow) {
  std::vector<int64_t> resolved;
  for (const int64_t window : {50, 200}) {
    Stream stream(JobWithWindow(v1::RULE_ID_CLIP_TOO_LOOSE, window, /*clips=*/true));
    stream.Feed(200);
    stream.Feed(3, ExplodesUnclipped);
    stream.Feed(500);
    resolved.push_back(LatestOf(stream, v1::RULE_ID_CLIP_TOO_LOOSE).resolved_step());
  }

  // As long as EXPLODING_ABS fires it is no past; that is the same in both.
  EXPECT_GT(resolved[0], 0);
  EXPECT_EQ(resolved[1] - resolved[0], 150);
}

TEST(SpikeRules, GetUsedToANewLevelSoonerTheShorterTheirWindow) {
  const auto level = [](v1::StepStats* stats) {
    stats->set_norm_before(40.0);
    stats->set_update_norm(4.0);
  };
  for (const v1::RuleId rule : {v1::RULE_ID_EXPLODING_REL, v1::RULE_ID_UPDATE_SPIKE}) {
    std::vector<int64_t> last;
    for (const int64_t window : {16, 128}) {
      Stream stream(JobWithWindow(rule, window));
      stream.Feed(128);
      stream.Feed(300, level);
      last.push_back(LatestOf(stream, rule).last_step());
    }

    // The median is the new level once half of the window is; the last hits count for ten steps.
    EXPECT_NEAR(static_cast<double>(last[0]), 128 + 8 + 8, 2.0);
    EXPECT_NEAR(static_cast<double>(last[1]), 128 + 64 + 8, 2.0);
  }
}

TEST(SpikeRules, ArmWithHalfOfAShortWindow) {
  Stream stream(JobWithWindow(v1::RULE_ID_EXPLODING_REL, 40));
  stream.Feed(20);

  stream.Feed(3, Norm(50));

  EXPECT_EQ(LatestOf(stream, v1::RULE_ID_EXPLODING_REL).firing_step(), 22);
}

TEST(WindowChange, AShorterOneKeepsTheNewestValues) {
  Stream stream(MakeJob());
  stream.Feed(100);
  stream.engine.SetRules(JobWithWindow(v1::RULE_ID_EXPLODING_REL, 16), absl::UnixEpoch(),
                         &stream.changed);

  stream.Feed(3, Norm(50));

  EXPECT_EQ(LatestOf(stream, v1::RULE_ID_EXPLODING_REL).firing_step(), 102);
}

TEST(WindowChange, ALongerOneFillsUpFirst) {
  Stream stream(JobWithWindow(v1::RULE_ID_EXPLODING_REL, 16));
  stream.Feed(100);
  stream.engine.SetRules(JobWithWindow(v1::RULE_ID_EXPLODING_REL, 1000), absl::UnixEpoch(),
                         &stream.changed);

  // 16 norms are left, 64 are needed: the first spike is none.
  stream.Feed(47);
  stream.Feed(3, Norm(50));
  EXPECT_EQ(LatestOf(stream, v1::RULE_ID_EXPLODING_REL).name(), "");
  stream.Feed(1, Norm(50));

  EXPECT_EQ(LatestOf(stream, v1::RULE_ID_EXPLODING_REL).firing_step(), 150);
}

TEST(WindowChange, HalvesOfLossesAreDividedAnew) {
  Stream shorter(MakeJob()), longer(MakeJob());
  shorter.Feed(120, Loss(1.0));
  longer.Feed(550, Loss(1.0));
  shorter.engine.SetRules(JobWithWindow(v1::RULE_ID_LOSS_PLATEAU, 100), absl::UnixEpoch(),
                          &shorter.changed);
  longer.engine.SetRules(JobWithWindow(v1::RULE_ID_LOSS_PLATEAU, 1000), absl::UnixEpoch(),
                         &longer.changed);
  EXPECT_THAT(longer.engine.pending(), IsEmpty());

  shorter.Feed(200, Loss(1.0));
  longer.Feed(1000, Loss(1.0));

  // The newest 100 losses are there; it must hold for 100 steps.
  const v1::Alert soon = LatestOf(shorter, v1::RULE_ID_LOSS_PLATEAU);
  EXPECT_EQ(soon.pending_step(), 120);
  EXPECT_EQ(soon.firing_step(), 219);
  EXPECT_THAT(soon.message(), HasSubstr("the median of the last 50 steps"));
  // 500 losses were kept, and 500 more make a thousand.
  const v1::Alert late = LatestOf(longer, v1::RULE_ID_LOSS_PLATEAU);
  EXPECT_EQ(late.pending_step(), 550 + 499);
  EXPECT_EQ(late.firing_step(), 550 + 499 + 99);
}

TEST(WindowChange, AnAverageGoesOnFromWhereItIs) {
  Stream stream(MakeJob());
  stream.Feed(300, GrowthFactor(1.06));  // Just short of the limit.
  stream.engine.SetRules(JobWithWindow(v1::RULE_ID_RECURRENT_EXPANSION, 1), absl::UnixEpoch(),
                         &stream.changed);
  stream.Feed(20, GrowthFactor(1.1));

  const v1::Alert alert = LatestOf(stream, v1::RULE_ID_RECURRENT_EXPANSION);
  EXPECT_EQ(alert.pending_step(), 300);
  EXPECT_NEAR(alert.first_value(), 1.1, 1e-9);
}

TEST(WindowChange, IsOfThatRuleAlone) {
  // Both look at the growth factor; after the change only one of them does so step by step.
  Stream stream(MakeJob());
  stream.Feed(100, GrowthFactor(0.9));
  stream.engine.SetRules(JobWithWindow(v1::RULE_ID_RECURRENT_EXPANSION, 1), absl::UnixEpoch(),
                         &stream.changed);

  stream.Feed(5, GrowthFactor(0.1));

  ASSERT_THAT(stream.engine.pending(), IsEmpty());
}

TEST(WindowChange, ResolvesWhatFires) {
  Stream stream(MakeJob());
  stream.Feed(75);
  stream.Feed(7, Spikes(40));
  stream.changed.clear();

  stream.engine.SetRules(JobWithWindow(v1::RULE_ID_EXPLODING_REL, 64), absl::UnixEpoch(),
                         &stream.changed);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].resolve_reason(), v1::Alert::RESOLVE_REASON_RULE_CHANGED);
}

TEST(WindowChange, StatesOfOtherWindowsAreKeptAndRead) {
  v1::Job job = JobWithWindow(v1::RULE_ID_EXPLODING_REL, 300);
  v1::RuleSettings& plateau = *job.add_rules();
  plateau.set_id(v1::RULE_ID_LOSS_PLATEAU);
  plateau.set_window_steps(1000);
  Stream whole(job), second(job), usual(MakeJob());
  whole.Feed(1100);

  ASSERT_TRUE(second.engine.LoadState(whole.engine.SaveState()).ok());
  second.next_step = whole.next_step;
  EXPECT_FALSE(usual.engine.LoadState(whole.engine.SaveState()).ok());
  for (Stream* stream : {&whole, &second}) {
    stream->Feed(40, Spikes(40));
    stream->Feed(300, Loss(2.0));
  }

  EXPECT_EQ(second.engine.SaveState(), whole.engine.SaveState());
}

TEST(RuleEngine, SettingsThatSayTheSameChangeNothing) {
  Stream stream(MakeJob());
  stream.Feed(1, Norm(2000));
  stream.changed.clear();
  v1::Job job = MakeJob();
  job.add_rules()->set_id(v1::RULE_ID_EXPLODING_ABS);
  job.mutable_rules(0)->set_threshold(1000);

  stream.engine.SetRules(job, absl::UnixEpoch(), &stream.changed);

  EXPECT_THAT(stream.changed, IsEmpty());
  EXPECT_EQ(stream.engine.firing(), 1);
}

TEST(RuleEngine, ForgetsTheOldestResolvedAlertsAndCountsThem) {
  v1::Job job = MakeJob();
  v1::RuleSettings& quick = *job.add_rules();
  quick.set_id(v1::RULE_ID_NON_FINITE);
  quick.set_resolve_steps(1);
  Stream stream(job);
  stream.Feed(1, Norm(2000));  // R2 fires first and keeps firing.

  for (int i = 0; i < 1005; ++i) {
    stream.FeedNonFinite(1);
    stream.Feed(1, Norm(2000));
  }

  const auto& alerts = stream.engine.alerts();
  EXPECT_EQ(alerts.size(), 1000U);
  EXPECT_EQ(stream.engine.forgotten(), 6);
  EXPECT_EQ(alerts[0].name(), "jobs/boom/alerts/1");
  EXPECT_EQ(alerts[0].state(), v1::Alert::STATE_FIRING);
  EXPECT_EQ(alerts[1].name(), "jobs/boom/alerts/8");
  EXPECT_EQ(alerts.back().name(), "jobs/boom/alerts/1006");
}

TEST(RuleEngine, RefusesAStateThatIsNone) {
  Stream stream(MakeJob());
  stream.Feed(1, Norm(2000));
  const std::string good = stream.engine.SaveState();

  for (const std::string& bad : {std::string(), std::string("x"), good.substr(0, 100),
                                 good.substr(0, good.size() - 1), good + "x"}) {
    EXPECT_EQ(stream.engine.LoadState(bad).code(), absl::StatusCode::kInvalidArgument);
  }

  EXPECT_EQ(stream.engine.SaveState(), good);
}

TEST(RuleEngine, RefusesALifeWithRunsWhereNothingHolds) {
  const auto loads = [](Life::Phase phase, int64_t run) {
    Life life, loaded;
    life.phase = phase;
    life.runs[1] = run;
    stats::StateWriter writer;
    life.SaveState(&writer);
    stats::StateReader reader(writer.bytes());
    loaded.LoadState(&reader);
    return reader.ok() && reader.at_end() && loaded.phase == phase && loaded.runs == life.runs;
  };

  EXPECT_TRUE(loads(Life::Phase::kInactive, 0));
  EXPECT_TRUE(loads(Life::Phase::kPending, 3));
  EXPECT_TRUE(loads(Life::Phase::kFiring, 3));
  EXPECT_FALSE(loads(Life::Phase::kInactive, 3));
}

}  // namespace
}  // namespace gradwatch::alerts
