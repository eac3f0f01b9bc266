#ifndef GRADWATCH_SERVER_ALERTS_RULE_CATALOGUE_H_
#define GRADWATCH_SERVER_ALERTS_RULE_CATALOGUE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "gradwatch/v1/alert.pb.h"

namespace gradwatch::alerts {

// The built-in rules in order of id, with their defaults. Safe from any thread.
const std::vector<v1::Rule>& RuleCatalogue();

// One thing that is wrong with a job's rule settings.
struct SettingsProblem {
  std::string field;        // "rules[2].threshold"
  std::string description;  // With the value and what is allowed.
};

// Appends what is wrong: unknown rule, a rule named twice, threshold not finite or out of range,
// steps out of range, a field that the rule does not have. `field` is the path of `settings`.
void CheckRuleSettings(const google::protobuf::RepeatedPtrField<v1::RuleSettings>& settings,
                       absl::string_view field, std::vector<SettingsProblem>* problems);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_RULE_CATALOGUE_H_
