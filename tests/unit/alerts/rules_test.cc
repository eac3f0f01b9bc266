#include "server/alerts/rules.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "server/alerts/rule_catalogue.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

// A number over many orders of magnitude, around `middle`.
double Spread(double middle, double decades, std::mt19937* random) {
  std::normal_distribution<double> normal(0.0, decades);
  return middle * std::pow(10.0, normal(*random));
}

v1::StepStats RandomStep(int64_t step, double restlessness, std::mt19937* random) {
  if ((*random)() % 50 == 0) return MakeNonFiniteStep(step);
  v1::StepStats stats = MakeStep(step);
  stats.set_loss(Spread(1.0, restlessness, random));
  stats.set_norm_before(Spread(30.0, 2 * restlessness, random));
  stats.mutable_growth()->set_growth_factor(Spread(0.9, 0.3 * restlessness, random));
  v1::LayerTimeStats& layer = *stats.mutable_layers(0);
  const double slope = std::log(Spread(1.0, 0.02, random));
  const double end = Spread(8.0, restlessness, random);
  for (int t = 0; t < 50; ++t) {
    layer.set_hidden_rms(t, static_cast<float>(end * std::exp(slope * (t - 49))));
  }
  layer.set_hidden_max_abs(Spread(500.0, restlessness, random));
  return stats;
}

// Settings that CheckRuleSettings accepts, near the edges too.
Settings RandomSettings(v1::RuleId id, std::mt19937* random) {
  Settings settings = SettingsOf(id, {});
  if (id == v1::RULE_ID_NON_FINITE) return settings;
  std::uniform_real_distribution<double> uniform(0.2, 3.0);
  const bool above_one = id == v1::RULE_ID_LOSS_DIVERGENCE || id == v1::RULE_ID_RECURRENT_EXPANSION;
  const double base = above_one ? 1.0 : 0.0;
  settings.threshold = base + (settings.threshold - base) * uniform(*random);
  return settings;
}

TEST(Rules, ResolveConditionExcludesTheConditionOnRandomStreams) {
  int held[16] = {};
  int cleared[16] = {};
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const double restlessness = 0.05 + 0.02 * seed;
    const v1::Job job = MakeJob(seed % 2 == 0);
    Baselines baselines;
    std::vector<Settings> settings;
    for (const RuleKind& rule : Rules()) settings.push_back(RandomSettings(rule.id, &random));
    for (int64_t step = 0; step < 300; ++step) {
      const v1::StepStats stats = RandomStep(step, restlessness, &random);
      baselines.Observe(stats);
      for (size_t i = 0; i < Rules().size(); ++i) {
        const Observation seen = Rules()[i].observe({job, stats, baselines, settings[i]});
        if (!seen.known) continue;
        ASSERT_FALSE(seen.clear && seen.holds())
            << RuleCatalogue()[i].name() << " seed " << seed << " step " << step;
        held[Rules()[i].id] += seen.holds() ? 1 : 0;
        cleared[Rules()[i].id] += seen.clear ? 1 : 0;
      }
    }
  }
  for (const RuleKind& rule : Rules()) {
    EXPECT_GT(held[rule.id], 0) << rule.id;
    EXPECT_GT(cleared[rule.id], 0) << rule.id;
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
                                              static_cast<float>(20 * std::exp(0.03 * (t - 49))));
  }
  Baselines baselines;
  baselines.Observe(between);
  for (const v1::RuleId id :
       {v1::RULE_ID_EXPLODING_ABS, v1::RULE_ID_RECURRENT_EXPANSION, v1::RULE_ID_HIDDEN_GROWTH}) {
    for (const RuleKind& rule : Rules()) {
      if (rule.id != id) continue;
      const Settings settings = SettingsOf(id, {});
      const Observation seen = rule.observe({job, between, baselines, settings});
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
