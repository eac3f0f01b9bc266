#include "server/alerts/custom_rule.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

v1::CustomRule RuleOf(const std::string& expression) {
  v1::CustomRule rule;
  rule.set_name("OWN");
  rule.set_expression(expression);
  rule.set_warmup_steps(0);
  return rule;
}

v1::Job JobWith(const std::string& expression) {
  v1::Job job = MakeJob();
  *job.add_custom_rules() = RuleOf(expression);
  return job;
}

std::vector<SettingsProblem> Check(const v1::Job& job) {
  std::vector<SettingsProblem> problems;
  CheckCustomRules(job, "custom_rules", &problems);
  return problems;
}

// What the rule sees in one step.
Observation Look(const std::string& expression, const v1::StepStats& stats) {
  const v1::Job job = JobWith(expression);
  CustomCondition condition(job.custom_rules(0), job);
  return condition.Observe(stats, LayoutOf(job));
}

TEST(Expression, ReadsEveryPart) {
  const auto expression =
      ParseExpression(" tensor.norm[ rnn.weight_hh_* ]>=2.5e-1*median for 3 resolve 40 ");

  ASSERT_TRUE(expression.ok()) << expression.status();
  EXPECT_EQ(expression->selector, "rnn.weight_hh_*");
  EXPECT_EQ(expression->comparison, Expression::Operator::kGreaterOrEqual);
  EXPECT_EQ(expression->number, 0.25);
  EXPECT_EQ(expression->baseline, Expression::Baseline::kMedian);
  EXPECT_EQ(expression->for_steps, 3);
  EXPECT_EQ(expression->resolve_steps, 40);
}

TEST(Expression, NeedsNoMoreThanAComparison) {
  const auto expression = ParseExpression("loss<-1");

  ASSERT_TRUE(expression.ok()) << expression.status();
  EXPECT_TRUE(expression->smaller_is_worse());
  EXPECT_EQ(expression->number, -1.0);
  EXPECT_EQ(expression->baseline, Expression::Baseline::kNone);
  EXPECT_EQ(expression->for_steps, 1);
  EXPECT_EQ(expression->resolve_steps, 1);
}

TEST(Expression, ErrorsNameTheColumn) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "column 1: wants a statistic (loss, "},
      {"lost > 1", "column 1: wants a statistic"},
      {"loss[0] > 1", "column 6: loss has no selector"},
      {"tensor.norm[a > 1", "column 13: wants a selector and ']'"},
      {"tensor.norm[] > 1", "column 13: wants letters"},
      {"tensor.norm[a/b] > 1", "column 13: wants letters"},
      {"loss = 1", "column 6: wants >, >=, < or <=, not '= 1'"},
      {"loss > ", "column 8: wants a finite number, not the end"},
      {"loss > 1e999", "column 8: wants a finite number"},
      {"loss > nan", "column 8: wants a finite number"},
      {"loss > 2 * mean", "column 12: wants a baseline (median, average, first, min, max)"},
      {"loss > 2 for", "column 13: wants a number of steps, 1 to 1000000"},
      {"loss > 2 for 0", "column 14: wants a number of steps"},
      {"loss > 2 for 3 resolve 1000001", "column 24: wants a number of steps"},
      {"loss > 2 resolve 3 for 1", "column 20: wants 'for', 'resolve' (in this order) or the end"},
      {"loss > 2 and norm_before > 3", "column 10: wants 'for'"},
  };
  for (const auto& [text, error] : bad) {
    const auto expression = ParseExpression(text);
    EXPECT_EQ(expression.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(expression.status().message()), StartsWith(error)) << text;
  }
}

TEST(Expression, AnyTextIsAnswered) {
  uint32_t state = 1;
  const std::string letters = "loss>tenr.m[]*<=0123e-+ fo\t\xff";
  for (int i = 0; i < 20000; ++i) {
    std::string text = i % 2 == 0 ? "loss > 1" : "tensor.norm[*] < 2 * median for 3";
    for (int k = 0; k < 4; ++k) {
      state = state * 1664525u + 1013904223u;
      text[(state >> 8) % text.size()] = letters[(state >> 20) % letters.size()];
    }
    const auto expression = ParseExpression(text);
    if (expression.ok()) {
      EXPECT_GE(expression->for_steps, 1);
    }
  }
}

TEST(CustomCondition, TakesTheWorstOfWhatIsSelected) {
  v1::StepStats stats = MakeStep(0);  // Norms 0.1, 0.9, 0.4, 0.2, 0.1.

  const Observation largest = Look("tensor.norm > 0.5", stats);
  const Observation smallest = Look("tensor.norm[rnn.weight_hh_*] < 0.5", stats);
  const Observation one = Look("tensor.norm[readout.weight] >= 0.2", stats);
  const Observation none = Look("tensor.norm[*_hh_l1] > 0.4", stats);

  EXPECT_TRUE(largest.holds());
  EXPECT_EQ(largest.clauses[0].value, 0.9);
  EXPECT_TRUE(smallest.holds());
  EXPECT_EQ(smallest.clauses[0].value, 0.4);
  EXPECT_TRUE(smallest.clauses[0].smaller_is_worse);
  EXPECT_TRUE(one.holds());
  EXPECT_TRUE(none.known);
  EXPECT_FALSE(none.holds());
}

TEST(CustomCondition, KnowsEveryStatisticThatIsRecorded) {
  v1::StepStats stats = MakeStep(3);
  stats.set_duration_us(1000);
  stats.mutable_growth()->set_horizon(49.0);
  stats.mutable_growth()->set_decades(-0.5);
  stats.mutable_growth()->add_layer_growth_factors(0.9);
  stats.mutable_growth()->add_layer_growth_factors(0.95);
  for (const char* name : {"loss",
                           "learning_rate",
                           "norm_before",
                           "norm_after",
                           "clip_coefficient",
                           "duration_us",
                           "update_norm",
                           "update_ratio",
                           "growth_factor",
                           "horizon",
                           "decades",
                           "tensor.norm",
                           "tensor.max_abs",
                           "tensor.zero_share",
                           "tensor.weight_norm",
                           "tensor.update_ratio",
                           "layer.growth_factor",
                           "layer.saturated_share",
                           "layer.hidden_max_abs",
                           "layer.hidden_rms"}) {
    const Observation seen = Look(std::string(name) + " >= -1", stats);
    EXPECT_TRUE(seen.known && seen.holds()) << name;
    EXPECT_FALSE(Look(std::string(name) + " > 1e9", stats).holds()) << name;
  }
  EXPECT_EQ(Look("layer.growth_factor[1] > 0", stats).clauses[0].value, 0.95);
}

TEST(CustomCondition, StandsStillWithoutItsStatistic) {
  v1::StepStats stats = MakeStep(0);
  stats.clear_growth();
  stats.clear_tensors();

  EXPECT_FALSE(Look("growth_factor > 0", stats).known);
  EXPECT_FALSE(Look("tensor.norm > 0", stats).known);
}

TEST(CustomCondition, ComparesWithThePastWithoutTheStepItself) {
  const v1::Job job = JobWith("norm_before > 10 * median");
  CustomCondition condition(job.custom_rules(0), job);
  const Layout layout = LayoutOf(job);
  v1::StepStats stats = MakeStep(0);

  for (int i = 0; i < 15; ++i) condition.Observe(stats, layout);
  EXPECT_FALSE(condition.Observe(stats, layout).known);
  stats.set_norm_before(11.0);
  const Observation spike = condition.Observe(stats, layout);

  EXPECT_TRUE(spike.holds());
  EXPECT_EQ(spike.clauses[0].threshold, 10.0);
}

TEST(CustomCondition, BaselinesAreWhatTheyAreCalled) {
  const auto limit = [](const std::string& baseline) {
    const v1::Job job = JobWith("loss > 1 * " + baseline);
    CustomCondition condition(job.custom_rules(0), job);
    v1::StepStats stats = MakeStep(0);
    Observation seen;
    for (int i = 0; i <= 40; ++i) {
      stats.set_loss(i == 0 ? 5.0 : i < 30 ? 2.0 : 7.0);
      seen = condition.Observe(stats, LayoutOf(job));
    }
    return seen.clauses[0].threshold;
  };

  EXPECT_EQ(limit("first"), 5.0);
  EXPECT_EQ(limit("min"), 2.0);
  EXPECT_EQ(limit("max"), 7.0);
  EXPECT_EQ(limit("median"), 2.0);
  EXPECT_GT(limit("average"), 2.0);
  EXPECT_LT(limit("average"), 7.0);
}

TEST(CheckCustomRules, GoodOnesPass) {
  EXPECT_THAT(Check(JobWith("tensor.norm[rnn.weight_hh_*] < 1e-6 for 50 resolve 20")), IsEmpty());
  EXPECT_THAT(Check(JobWith("layer.hidden_rms[1] > 3")), IsEmpty());
}

TEST(CheckCustomRules, SelectorsAreCheckedBeforeTheJobHasTensors) {
  v1::Job job = JobWith("tensor.norm[rnn.weight_hh_l1] > 1");
  job.clear_parameters();
  EXPECT_THAT(Check(job), IsEmpty());

  job.mutable_model()->set_layers(1);

  ASSERT_THAT(Check(job), SizeIs(1));
  EXPECT_THAT(Check(job)[0].description,
              HasSubstr("column 13: rnn.weight_hh_l1 selects nothing; there are rnn.weight_ih_l0"));
}

TEST(CheckCustomRules, NamesEachBadField) {
  v1::Job job = MakeJob();
  job.set_statistics_level(v1::STATISTICS_LEVEL_OFF);
  for (int i = 0; i < 4; ++i) *job.add_custom_rules() = RuleOf("loss > 1");
  job.mutable_custom_rules(0)->set_name("lower");
  job.mutable_custom_rules(1)->set_name("NON_FINITE");
  job.mutable_custom_rules(2)->set_expression("update_norm > 1");
  job.mutable_custom_rules(3)->set_cooldown_steps(-1);

  const std::vector<SettingsProblem> problems = Check(job);

  ASSERT_THAT(problems, SizeIs(5));
  EXPECT_EQ(problems[0].field, "custom_rules[0].name");
  EXPECT_THAT(problems[0].description, HasSubstr("'lower' is not a name"));
  EXPECT_EQ(problems[1].field, "custom_rules[1].name");
  EXPECT_THAT(problems[1].description, HasSubstr("is a built-in rule"));
  EXPECT_EQ(problems[2].field, "custom_rules[2].expression");
  EXPECT_THAT(problems[2].description, HasSubstr("recorded from STATISTICS_LEVEL_BASIC on"));
  EXPECT_EQ(problems[3].field, "custom_rules[3].name");
  EXPECT_THAT(problems[3].description, HasSubstr("OWN is there already"));
  EXPECT_EQ(problems[4].field, "custom_rules[3].cooldown_steps");
}

TEST(CheckCustomRules, SomeStatisticsNeedADiagnostic) {
  v1::Job job = MakeJob();
  for (const char* expression :
       {"gradient_cosine < -0.5", "layer.sigma_max > 2", "noise_scale > 100",
        "signal_to_noise < 0.01", "step_curvature > 50"}) {
    *job.add_custom_rules() = RuleOf(expression);
    job.mutable_custom_rules()->rbegin()->set_name(absl::StrCat("OWN", job.custom_rules_size()));
  }

  const std::vector<SettingsProblem> problems = Check(job);

  ASSERT_THAT(problems, SizeIs(5));
  EXPECT_EQ(problems[0].description,
            "column 1: gradient_cosine is recorded only with diagnostics.compare_steps");
  EXPECT_EQ(problems[1].description,
            "column 1: layer.sigma_max is recorded only with diagnostics.recurrent_every_steps");
  EXPECT_EQ(problems[2].description,
            "column 1: noise_scale is recorded only with diagnostics.noise_every_steps");
  EXPECT_EQ(problems[3].description,
            "column 1: signal_to_noise is recorded only with diagnostics.noise_every_steps");
  EXPECT_EQ(problems[4].description,
            "column 1: step_curvature is recorded only with diagnostics.compare_steps");
  job.mutable_diagnostics()->set_compare_steps(true);
  job.mutable_diagnostics()->set_recurrent_every_steps(10);
  job.mutable_diagnostics()->set_noise_every_steps(10);
  EXPECT_THAT(Check(job), IsEmpty());
}

TEST(CheckCustomRules, TheirNumberAndLengthAreBounded) {
  v1::Job many = MakeJob();
  for (int i = 0; i < 17; ++i) *many.add_custom_rules() = RuleOf("loss > 1");
  const v1::Job stars = JobWith("tensor.norm[" + std::string(180, '*') + "x] > 1");
  const v1::Job longest = JobWith("loss > 1" + std::string(200, ' '));

  ASSERT_THAT(Check(many), SizeIs(1));
  EXPECT_EQ(Check(many)[0].field, "custom_rules");
  EXPECT_THAT(Check(stars), SizeIs(1));
  ASSERT_THAT(Check(longest), SizeIs(1));
  EXPECT_THAT(Check(longest)[0].description, HasSubstr("at most 200"));
}

// --- In the engine.

TEST(CustomRule, FiresResolvesAndSaysWhere) {
  v1::Job job = JobWith("tensor.norm[rnn.weight_hh_*] > 5 for 3 resolve 4");
  job.mutable_custom_rules(0)->set_severity(v1::SEVERITY_CRIT);
  job.mutable_custom_rules(0)->set_advice("look at layer 1");
  Stream stream(job);

  stream.Feed(10);
  stream.Feed(3, [](v1::StepStats* stats) { stats->mutable_tensors(2)->set_norm(6.0); });
  ASSERT_THAT(stream.changed, SizeIs(1));
  const v1::Alert fired = stream.changed[0];
  stream.Feed(4);

  EXPECT_EQ(fired.rule(), v1::RULE_ID_CUSTOM);
  EXPECT_EQ(fired.rule_name(), "OWN");
  EXPECT_EQ(fired.severity(), v1::SEVERITY_CRIT);
  EXPECT_EQ(fired.tensor(), "rnn.weight_hh_l1");
  EXPECT_EQ(fired.firing_step(), 12);
  EXPECT_EQ(fired.message(),
            "tensor.norm of rnn.weight_hh_l1 is 6 (limit 5) at step 12: "
            "tensor.norm[rnn.weight_hh_*] > 5 for 3 resolve 4.");
  EXPECT_EQ(fired.advice(), "look at layer 1");
  ASSERT_THAT(stream.changed, SizeIs(2));
  EXPECT_EQ(stream.changed[1].resolved_step(), 16);
}

TEST(CustomRule, BuildsItsBaselineDuringWarmUp) {
  v1::Job job = JobWith("norm_before > 5 * median");
  job.mutable_custom_rules(0)->set_warmup_steps(20);
  Stream stream(job);

  stream.Feed(20);
  stream.Feed(1, [](v1::StepStats* stats) { stats->set_norm_before(6.0); });

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule_name(), "OWN");
}

TEST(CustomRule, ContinuesExactlyFromItsState) {
  const v1::Job job = JobWith("norm_before > 3 * average for 2");
  const auto play = [](int64_t from, int64_t to, Stream* stream) {
    stream->next_step = from;
    for (int64_t step = from; step < to; ++step) {
      stream->Feed(1, [](v1::StepStats* stats) {
        stats->set_norm_before(stats->step() % 40 > 36 ? 9.0 : 1.0);
      });
    }
  };
  Stream whole(job), first(job), second(job);
  play(0, 200, &whole);
  play(0, 78, &first);

  ASSERT_TRUE(second.engine.LoadState(first.engine.SaveState()).ok());
  play(78, 200, &second);

  EXPECT_EQ(second.engine.SaveState(), whole.engine.SaveState());
  EXPECT_FALSE(whole.engine.alerts().empty());
}

TEST(CustomRule, OnlyAChangedOneStartsAnew) {
  v1::Job job = JobWith("loss > 0");
  *job.add_custom_rules() = RuleOf("norm_before > 0");
  job.mutable_custom_rules(1)->set_name("OTHER");
  Stream stream(job);
  stream.Feed(1);
  ASSERT_EQ(stream.engine.firing(), 2);
  stream.changed.clear();

  job.mutable_custom_rules(1)->set_expression("norm_before > 7");
  stream.engine.SetRules(job, absl::UnixEpoch(), &stream.changed);

  ASSERT_THAT(stream.changed, SizeIs(1));
  EXPECT_EQ(stream.changed[0].rule_name(), "OTHER");
  EXPECT_EQ(stream.changed[0].resolve_reason(), v1::Alert::RESOLVE_REASON_RULE_CHANGED);
  EXPECT_EQ(stream.engine.firing(), 1);
}

}  // namespace
}  // namespace gradwatch::alerts
