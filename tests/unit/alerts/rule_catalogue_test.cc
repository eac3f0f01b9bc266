#include "server/alerts/rule_catalogue.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/alerts/rules.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<SettingsProblem> Check(const std::vector<v1::RuleSettings>& settings) {
  const google::protobuf::RepeatedPtrField<v1::RuleSettings> list(settings.begin(), settings.end());
  std::vector<SettingsProblem> problems;
  CheckRuleSettings(list, "rules", &problems);
  return problems;
}

v1::RuleSettings For(v1::RuleId id) {
  v1::RuleSettings settings;
  settings.set_id(id);
  return settings;
}

TEST(RuleCatalogue, IsInOrderAndComplete) {
  int last = 0;
  for (const v1::Rule& rule : RuleCatalogue()) {
    EXPECT_GT(rule.id(), last);
    last = rule.id();
    EXPECT_EQ("RULE_ID_" + rule.name(), v1::RuleId_Name(rule.id()));
    EXPECT_FALSE(rule.description().empty());
    EXPECT_FALSE(rule.condition().empty());
    EXPECT_NE(rule.severity(), v1::SEVERITY_UNSPECIFIED);
    EXPECT_EQ(rule.defaults().id(), rule.id());
    EXPECT_TRUE(rule.defaults().has_for_steps());
    EXPECT_TRUE(rule.defaults().has_resolve_steps());
  }
  EXPECT_EQ(RuleCatalogue().size(), 19U);
}

TEST(RuleCatalogue, DefaultsPassTheirOwnCheck) {
  std::vector<v1::RuleSettings> all;
  for (const v1::Rule& rule : RuleCatalogue()) all.push_back(rule.defaults());

  EXPECT_THAT(Check(all), IsEmpty());
}

TEST(RuleCatalogue, DefaultsAreWhatRulesUse) {
  for (const v1::Rule& rule : RuleCatalogue()) {
    google::protobuf::RepeatedPtrField<v1::RuleSettings> overrides;
    *overrides.Add() = rule.defaults();
    EXPECT_EQ(SettingsOf(rule.id(), overrides), SettingsOf(rule.id(), {})) << rule.name();
  }
}

struct BadSettings {
  const char* name;
  v1::RuleId id;
  std::function<void(v1::RuleSettings*)> spoil;
  const char* field;
  const char* says;
};

std::vector<BadSettings> BadOnes() {
  using S = v1::RuleSettings;
  const auto nan = kNotANumber;
  const auto infinite = kInfinite;
  return {
      {"unspecified", v1::RULE_ID_UNSPECIFIED, [](S*) {}, "rules[0].id", "0 is no rule"},
      {"unknown", static_cast<v1::RuleId>(99), [](S*) {}, "rules[0].id", "99 is no rule"},
      {"nan", v1::RULE_ID_EXPLODING_ABS, [nan](S* s) { s->set_threshold(nan); },
       "rules[0].threshold", "nan is not between 0 and"},
      {"infinite", v1::RULE_ID_EXPLODING_ABS, [infinite](S* s) { s->set_threshold(infinite); },
       "rules[0].threshold", "inf is not between"},
      {"zero norm", v1::RULE_ID_EXPLODING_ABS, [](S* s) { s->set_threshold(0); },
       "rules[0].threshold", "0 is not between"},
      {"growth of one", v1::RULE_ID_RECURRENT_EXPANSION, [](S* s) { s->set_threshold(1.0); },
       "rules[0].threshold", "1 is not between 1 and 10"},
      {"positive decades", v1::RULE_ID_VANISHING_THROUGH_TIME, [](S* s) { s->set_threshold(6.0); },
       "rules[0].threshold", "6 is not between -1000 and 0"},
      {"no threshold", v1::RULE_ID_NON_FINITE, [](S* s) { s->set_threshold(1.0); },
       "rules[0].threshold", "NON_FINITE has no threshold"},
      {"negative warm-up", v1::RULE_ID_EXPLODING_REL, [](S* s) { s->set_warmup_steps(-1); },
       "rules[0].warmup_steps", "-1 is not between 0 and 1000000"},
      {"zero for", v1::RULE_ID_EXPLODING_REL, [](S* s) { s->set_for_steps(0); },
       "rules[0].for_steps", "0 is not between 1 and 1000000"},
      {"zero resolve", v1::RULE_ID_EXPLODING_REL, [](S* s) { s->set_resolve_steps(0); },
       "rules[0].resolve_steps", "0 is not between 1 and 1000000"},
      {"huge cool-down", v1::RULE_ID_EXPLODING_REL, [](S* s) { s->set_cooldown_steps(1'000'001); },
       "rules[0].cooldown_steps", "1000001 is not between 0 and 1000000"},
      {"no second threshold", v1::RULE_ID_EXPLODING_ABS, [](S* s) { s->set_second_threshold(1.0); },
       "rules[0].second_threshold", "EXPLODING_ABS has no second_threshold"},
      {"share above one", v1::RULE_ID_DEAD_LAYER, [](S* s) { s->set_second_threshold(1.5); },
       "rules[0].second_threshold", "1.5 is not between 0 and 1"},
      {"custom", v1::RULE_ID_CUSTOM, [](S*) {}, "rules[0].id", "40 is no rule"},
      {"severity", v1::RULE_ID_DEAD_LAYER,
       [](S* s) { s->set_severity(static_cast<v1::Severity>(9)); }, "rules[0].severity",
       "9 is no severity"},
      {"muted", v1::RULE_ID_EXPLODING_ABS, [](S* s) { s->set_cooldown_steps(5); },
       "rules[0].cooldown_steps", "EXPLODING_ABS is never muted"},
  };
}

TEST(CheckRuleSettings, NamesEachBadField) {
  for (const BadSettings& bad : BadOnes()) {
    SCOPED_TRACE(bad.name);
    v1::RuleSettings settings = For(bad.id);
    bad.spoil(&settings);

    const std::vector<SettingsProblem> problems = Check({settings});

    ASSERT_THAT(problems, SizeIs(1));
    EXPECT_EQ(problems[0].field, bad.field);
    EXPECT_THAT(problems[0].description, HasSubstr(bad.says));
  }
}

TEST(CheckRuleSettings, ReportsEverythingAtOnce) {
  v1::RuleSettings bad = For(v1::RULE_ID_LOSS_DIVERGENCE);
  bad.set_threshold(-1);
  bad.set_for_steps(0);

  const std::vector<SettingsProblem> problems = Check({For(v1::RULE_ID_LOSS_DIVERGENCE), bad});

  ASSERT_THAT(problems, SizeIs(3));
  EXPECT_EQ(problems[0].field, "rules[1].threshold");
  EXPECT_EQ(problems[1].field, "rules[1].for_steps");
  EXPECT_EQ(problems[2].field, "rules[1].id");
}

}  // namespace
}  // namespace gradwatch::alerts
