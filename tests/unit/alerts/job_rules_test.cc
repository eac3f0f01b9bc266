#include "server/alerts/job_rules.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/alerts/rule_catalogue.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

using ::testing::SizeIs;

const v1::Rule& RuleNamed(const std::vector<v1::Rule>& rules, const std::string& name) {
  for (const v1::Rule& rule : rules) {
    if (rule.name() == name) return rule;
  }
  ADD_FAILURE() << name;
  return rules.front();
}

TEST(RulesOf, AJobWithoutSettingsHasTheDefaults) {
  const std::vector<v1::Rule> rules = RulesOf(MakeJob());

  ASSERT_THAT(rules, SizeIs(RuleCatalogue().size()));
  for (const v1::Rule& rule : rules) {
    EXPECT_EQ(rule.in_force().SerializeAsString(), rule.defaults().SerializeAsString());
  }
}

TEST(RulesOf, ShowsWhatTheJobChanged) {
  v1::Job job = MakeJob();
  v1::RuleSettings* const norm = job.add_rules();
  norm->set_id(v1::RULE_ID_EXPLODING_ABS);
  norm->set_threshold(50.0);
  norm->set_severity(v1::SEVERITY_INFO);
  v1::RuleSettings* const dead = job.add_rules();
  dead->set_id(v1::RULE_ID_DEAD_LAYER);
  dead->set_disabled(true);
  dead->set_for_steps(7);
  v1::RuleSettings* const spikes = job.add_rules();
  spikes->set_id(v1::RULE_ID_EXPLODING_REL);
  spikes->set_window_steps(300);

  const std::vector<v1::Rule> rules = RulesOf(job);

  const v1::Rule& exploding = RuleNamed(rules, "EXPLODING_ABS");
  EXPECT_EQ(exploding.in_force().threshold(), 50.0);
  EXPECT_EQ(exploding.in_force().severity(), v1::SEVERITY_INFO);
  EXPECT_EQ(exploding.in_force().for_steps(), exploding.defaults().for_steps());
  EXPECT_EQ(exploding.defaults().threshold(), 1000.0);
  EXPECT_FALSE(exploding.in_force().has_second_threshold());
  const v1::Rule& layer = RuleNamed(rules, "DEAD_LAYER");
  EXPECT_TRUE(layer.in_force().disabled());
  EXPECT_EQ(layer.in_force().for_steps(), 7);
  EXPECT_FALSE(layer.in_force().has_window_steps());
  const v1::Rule& relative = RuleNamed(rules, "EXPLODING_REL");
  EXPECT_EQ(relative.in_force().window_steps(), 300);
  EXPECT_EQ(relative.defaults().window_steps(), 128);
}

TEST(RulesOf, OwnRulesComeLastWithTheirSettings) {
  v1::Job job = MakeJob();
  v1::CustomRule* const own = job.add_custom_rules();
  own->set_name("SPIKE");
  own->set_expression("update_norm > 5 * median for 3 resolve 4");
  own->set_cooldown_steps(9);

  const std::vector<v1::Rule> rules = RulesOf(job);

  ASSERT_THAT(rules, SizeIs(RuleCatalogue().size() + 1));
  const v1::Rule& rule = rules.back();
  EXPECT_EQ(rule.id(), v1::RULE_ID_CUSTOM);
  EXPECT_EQ(rule.name(), "SPIKE");
  EXPECT_EQ(rule.condition(), own->expression());
  EXPECT_EQ(rule.severity(), v1::SEVERITY_WARN);
  EXPECT_EQ(rule.custom().SerializeAsString(), own->SerializeAsString());
  EXPECT_FALSE(rule.has_in_force());
  EXPECT_EQ(rule.defaults().threshold(), 5.0);
  EXPECT_EQ(rule.defaults().for_steps(), 3);
  EXPECT_EQ(rule.defaults().resolve_steps(), 4);
  EXPECT_EQ(rule.defaults().warmup_steps(), 20);
  EXPECT_EQ(rule.defaults().cooldown_steps(), 9);
}

}  // namespace
}  // namespace gradwatch::alerts
