#include "server/alerts/rules.h"

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/alerts/rule_catalogue.h"
#include "server/alerts/thresholds.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

// A number over many orders of magnitude, around `middle`.
double Spread(double middle, double decades, std::mt19937* random) {
  std::normal_distribution<double> normal(0.0, decades);
  return middle * std::pow(10.0, normal(*random));
}

// What differs between two random streams.
struct Temper {
  double restlessness;  // 0: every step alike.
  double clipped;       // Share of the steps that are clipped.
};

v1::StepStats RandomStep(int64_t step, const Temper& temper, std::mt19937* random) {
  if ((*random)() % 50 == 0) return MakeNonFiniteStep(step);
  const double restlessness = temper.restlessness;
  const double burst = step % 60 >= 55 ? 1e4 : 1.0;
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  v1::StepStats stats = MakeStep(step);
  stats.set_loss(Spread(1.0, restlessness, random));
  stats.set_norm_before(burst * Spread(30.0, 2 * restlessness, random));
  stats.set_clipped(uniform(*random) < temper.clipped);
  stats.set_clip_coefficient(stats.clipped() ? 0.1 * uniform(*random) : 1.0);
  stats.set_update_norm(burst * Spread(0.1, restlessness, random));
  stats.mutable_growth()->set_growth_factor(Spread(0.9, 0.3 * restlessness, random));
  stats.set_gradient_cosine(std::cos(0.05 * static_cast<double>(step) * restlessness) *
                            std::min(1.0, restlessness));
  for (int layer = 0; layer < 2; ++layer) {
    stats.add_recurrent()->add_sigma_max(Spread(1.0, restlessness, random));
  }
  const double blowup = Spread(10.0, restlessness, random);
  const double ratio = Spread(1e-3, 6 * restlessness, random);
  for (v1::TensorStats& tensor : *stats.mutable_tensors()) {
    tensor.set_norm(Spread(1e-4, 4 * restlessness, random));
    tensor.set_zeros(static_cast<int64_t>(uniform(*random) < 0.5 ? 0 : 100));
    tensor.set_weight_norm(step == 0 ? 3.0 : blowup);
    tensor.set_update_ratio(ratio);
  }
  for (v1::LayerTimeStats& layer : *stats.mutable_layers()) {
    const double slope = std::log(Spread(1.0, 0.02, random));
    const double end = Spread(8.0, restlessness, random);
    for (int t = 0; t < 50; ++t) {
      layer.set_hidden_rms(t, static_cast<float>(end * std::exp(slope * (t - 49))));
    }
    layer.set_hidden_max_abs(Spread(500.0, restlessness, random));
    layer.set_saturated_share(uniform(*random));
    layer.set_activation_slope(std::min(1.0, Spread(0.05, restlessness, random)));
    for (int gate = 0; gate < 4; ++gate) layer.set_gate_closed_share(gate, uniform(*random));
  }
  return stats;
}

using RuleList = google::protobuf::RepeatedPtrField<v1::RuleSettings>;

bool Allowed(const v1::RuleSettings& settings) {
  RuleList list;
  *list.Add() = settings;
  std::vector<SettingsProblem> problems;
  CheckRuleSettings(list, "rules", &problems);
  return problems.empty();
}

// Settings that CheckRuleSettings accepts, near the edges too.
v1::RuleSettings RandomSettings(const v1::Rule& rule, std::mt19937* random) {
  const v1::RuleSettings& defaults = rule.defaults();
  std::uniform_real_distribution<double> uniform(0.2, 3.0);
  v1::RuleSettings settings;
  settings.set_id(rule.id());
  const auto keep = [&settings](const v1::RuleSettings& changed) {
    if (Allowed(changed)) settings = changed;
  };
  v1::RuleSettings changed = settings;
  changed.set_threshold(defaults.threshold() * uniform(*random));
  keep(changed);
  changed = settings;
  changed.set_second_threshold(defaults.second_threshold() * uniform(*random));
  keep(changed);
  // Down to a tenth: what is too little, as for rules without a window, is not allowed.
  changed = settings;
  changed.set_window_steps(static_cast<int64_t>(
      std::round(static_cast<double>(defaults.window_steps()) *
                 std::pow(10.0, (*random)() % 2 == 0 ? -1.0 : 0.3) * uniform(*random) / 3.0)));
  keep(changed);
  return settings;
}

RuleList RandomSettingsOfAll(std::mt19937* random) {
  RuleList list;
  for (const v1::Rule& rule : RuleCatalogue()) *list.Add() = RandomSettings(rule, random);
  return list;
}

std::vector<Settings> SettingsOfAll(const RuleList& list) {
  std::vector<Settings> all;
  for (const v1::Rule& rule : RuleCatalogue()) all.push_back(SettingsOf(rule.id(), list));
  return all;
}

int PartsOf(Scope scope, const Layout& layout) {
  if (scope == Scope::kJob) return 1;
  return scope == Scope::kLayers ? layout.layers : static_cast<int>(layout.groups.size());
}

TEST(Rules, ResolveConditionExcludesTheConditionOnRandomStreams) {
  std::map<v1::RuleId, int> held, cleared, windows;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const Temper temper = {0.05 + 0.02 * (seed / 2), seed % 4 == 0   ? 1.0
                                                     : seed % 4 == 2 ? 0.0
                                                                     : 0.3};
    const v1::Job job = MakeJob(seed % 2 == 0);
    const Layout layout = LayoutOf(job);
    RuleList list = RandomSettingsOfAll(&random);
    std::vector<Settings> settings = SettingsOfAll(list);
    Baselines baselines(WindowsOf(list));
    for (int64_t step = 0; step < 900; ++step) {
      if (step == 600) {  // Edited while the job runs.
        list = RandomSettingsOfAll(&random);
        settings = SettingsOfAll(list);
        baselines.SetWindows(WindowsOf(list));
        for (const v1::RuleSettings& changed : list) {
          windows[changed.id()] += changed.has_window_steps() ? 1 : 0;
        }
      }
      const v1::StepStats stats = RandomStep(step, temper, &random);
      baselines.Observe(stats, layout);
      const Others others = {.firing = random(),
                             .explosion_step = step - static_cast<int64_t>(random() % 400)};
      for (size_t i = 0; i < Rules().size(); ++i) {
        for (int part = 0; part < PartsOf(Rules()[i].scope, layout); ++part) {
          const Observation seen =
              Rules()[i].observe({job, layout, stats, baselines, others, settings[i], part});
          if (!seen.known) continue;
          ASSERT_FALSE(seen.clear && seen.holds())
              << RuleCatalogue()[i].name() << " seed " << seed << " step " << step;
          held[Rules()[i].id] += seen.holds() ? 1 : 0;
          cleared[Rules()[i].id] += seen.clear ? 1 : 0;
        }
      }
    }
  }
  for (const RuleKind& rule : Rules()) {
    if (rule.id != v1::RULE_ID_STALLED_JOB) {
      EXPECT_GT(held[rule.id], 0) << rule.id;
    }
    EXPECT_GT(cleared[rule.id], 0) << rule.id;
  }
  for (const v1::Rule& rule : RuleCatalogue()) {
    EXPECT_EQ(windows[rule.id()] > 0, rule.defaults().has_window_steps()) << rule.name();
  }
}

TEST(Rules, ResolveConditionIsStrictlyNarrowerThanNotFiring) {
  // For each rule with two levels, a step in between: it neither holds nor clears.
  const v1::Job job = MakeJob();
  v1::StepStats between = MakeStep(0);
  between.set_norm_before(500);
  between.mutable_growth()->set_growth_factor(1.03);
  for (int t = 0; t < 50; ++t) {
    between.mutable_layers(0)->set_hidden_rms(t,
                                              static_cast<float>(20 * std::exp(0.045 * (t - 49))));
  }
  for (v1::LayerTimeStats& layer : *between.mutable_layers()) {
    layer.set_saturated_share(0.45);
    layer.set_gate_closed_share(1, 0.45);
  }
  between.mutable_tensors(1)->set_norm(5e-6);  // Root mean square 5e-7.
  for (v1::TensorStats& tensor : *between.mutable_tensors())
    tensor.set_update_ratio(0.8 * kUpdateRatioHigh);
  const Layout layout = LayoutOf(job);
  Baselines baselines;
  baselines.Observe(between, layout);
  for (const v1::RuleId id :
       {v1::RULE_ID_EXPLODING_ABS, v1::RULE_ID_RECURRENT_EXPANSION, v1::RULE_ID_VANISHING_ABS,
        v1::RULE_ID_GATES_STUCK, v1::RULE_ID_DEAD_OR_SATURATED_UNITS, v1::RULE_ID_UPDATE_RATIO,
        v1::RULE_ID_HIDDEN_GROWTH}) {
    for (const RuleKind& rule : Rules()) {
      if (rule.id != id) continue;
      const Settings settings = SettingsOf(id, {});
      const Observation seen = rule.observe({job, layout, between, baselines, Others(), settings});
      EXPECT_TRUE(seen.known) << id;
      EXPECT_FALSE(seen.holds()) << id;
      EXPECT_FALSE(seen.clear) << id;
    }
  }
}

TEST(Rules, AreThoseOfTheCatalogueInItsOrder) {
  ASSERT_EQ(Rules().size(), RuleCatalogue().size());
  for (size_t i = 0; i < Rules().size(); ++i) EXPECT_EQ(Rules()[i].id, RuleCatalogue()[i].id());
}

}  // namespace
}  // namespace gradwatch::alerts
