#include "server/alerts/job_rules.h"

#include "server/alerts/custom_rule.h"
#include "server/alerts/rule_catalogue.h"
#include "server/alerts/rules.h"

namespace gradwatch::alerts {
namespace {

void SetSteps(const Settings& settings, v1::RuleSettings* message) {
  message->set_warmup_steps(settings.warmup_steps);
  message->set_for_steps(settings.for_steps);
  message->set_resolve_steps(settings.resolve_steps);
  message->set_cooldown_steps(settings.cooldown_steps);
}

// With the thresholds that the rule has by default.
v1::RuleSettings InForce(const v1::Rule& rule, const v1::Job& job) {
  const Settings settings = SettingsOf(rule.id(), job.rules());
  v1::RuleSettings message = rule.defaults();
  message.set_disabled(settings.disabled);
  if (message.has_threshold()) message.set_threshold(settings.threshold);
  if (message.has_second_threshold()) message.set_second_threshold(settings.second_threshold);
  message.set_severity(settings.severity);
  SetSteps(settings, &message);
  if (message.has_window_steps()) message.set_window_steps(settings.window_steps);
  return message;
}

v1::Rule CustomToRule(const v1::CustomRule& custom) {
  const Settings settings = SettingsOf(custom, *ParseExpression(custom.expression()));
  v1::Rule rule;
  rule.set_id(v1::RULE_ID_CUSTOM);
  rule.set_name(custom.name());
  rule.set_description("A rule of the job's own.");
  rule.set_condition(custom.expression());
  rule.set_severity(settings.severity);
  rule.mutable_defaults()->set_id(v1::RULE_ID_CUSTOM);
  rule.mutable_defaults()->set_threshold(settings.threshold);
  SetSteps(settings, rule.mutable_defaults());
  *rule.mutable_custom() = custom;
  return rule;
}

}  // namespace

std::vector<v1::Rule> RulesOf(const v1::Job& job) {
  std::vector<v1::Rule> rules = RuleCatalogue();
  for (v1::Rule& rule : rules) *rule.mutable_in_force() = InForce(rule, job);
  for (const v1::CustomRule& custom : job.custom_rules()) rules.push_back(CustomToRule(custom));
  return rules;
}

}  // namespace gradwatch::alerts
