#include "server/alerts/rule_catalogue.h"

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/alerts/rules.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

using ::testing::ElementsAre;
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

TEST(RuleCatalogue, TenRulesLookBackOverAWindow) {
  std::vector<std::string> names;
  for (const v1::Rule& rule : RuleCatalogue()) {
    if (!rule.defaults().has_window_steps()) continue;
    names.push_back(absl::StrCat(rule.name(), " ", rule.defaults().window_steps()));
    EXPECT_THAT(rule.condition(), HasSubstr("window_steps")) << rule.name();
  }

  EXPECT_THAT(names, ElementsAre("LOSS_DIVERGENCE 20", "EXPLODING_REL 128",
                                 "RECURRENT_EXPANSION 50", "VANISHING_THROUGH_TIME 50",
                                 "CLIP_SATURATED 200", "LOSS_PLATEAU 500", "UPDATE_RATIO 50",
                                 "OSCILLATION 50", "CLIP_TOO_LOOSE 200", "UPDATE_SPIKE 128"));
}

TEST(WindowsOf, AreThoseOfTheRules) {
  google::protobuf::RepeatedPtrField<v1::RuleSettings> list;
  int64_t window = 30;
  for (const v1::Rule& rule : RuleCatalogue()) {
    if (!rule.defaults().has_window_steps()) continue;
    v1::RuleSettings& settings = *list.Add();
    settings.set_id(rule.id());
    settings.set_window_steps(window++);
  }

  const Windows windows = WindowsOf(list);

  EXPECT_EQ(windows.loss_divergence, 30);
  EXPECT_EQ(windows.exploding_rel, 31);
  EXPECT_EQ(windows.recurrent_expansion, 32);
  EXPECT_EQ(windows.vanishing_through_time, 33);
  EXPECT_EQ(windows.clip_saturated, 34);
  EXPECT_EQ(windows.loss_plateau, 35);
  EXPECT_EQ(windows.update_ratio, 36);
  EXPECT_EQ(windows.oscillation, 37);
  EXPECT_EQ(windows.clip_too_loose, 38);
  EXPECT_EQ(windows.update_spike, 39);
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
      {"no window", v1::RULE_ID_DEAD_LAYER, [](S* s) { s->set_window_steps(50); },
       "rules[0].window_steps",
       "50: DEAD_LAYER has no window_steps; it judges each step by itself"},
      {"zero window", v1::RULE_ID_OSCILLATION, [](S* s) { s->set_window_steps(0); },
       "rules[0].window_steps", "0 is not between 1 and 10000"},
      {"window too short for a spread", v1::RULE_ID_EXPLODING_REL,
       [](S* s) { s->set_window_steps(15); }, "rules[0].window_steps",
       "15 is not between 16 and 1000"},
      {"window too long to keep", v1::RULE_ID_CLIP_SATURATED,
       [](S* s) { s->set_window_steps(1001); }, "rules[0].window_steps",
       "1001 is not between 10 and 1000"},
      {"halves too long to keep", v1::RULE_ID_LOSS_PLATEAU,
       [](S* s) { s->set_window_steps(10'001); }, "rules[0].window_steps",
       "10001 is not between 20 and 10000"},
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
