#ifndef GRADWATCH_SERVER_ALERTS_JOB_RULES_H_
#define GRADWATCH_SERVER_ALERTS_JOB_RULES_H_

#include <vector>

#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::alerts {

// The rules of one job, for people: the catalogue with what is in force there, then its own rules
// with their settings as defaults. The job's rule settings are ones that CheckRuleSettings and
// CheckCustomRules accept.
std::vector<v1::Rule> RulesOf(const v1::Job& job);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_JOB_RULES_H_
