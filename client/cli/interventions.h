#ifndef GRADWATCH_CLIENT_CLI_INTERVENTIONS_H_
#define GRADWATCH_CLIENT_CLI_INTERVENTIONS_H_

#include <string>

#include "gradwatch/v1/intervention.pb.h"

namespace gradwatch::cli {

// "EDIT", "ROLL_BACK", …
std::string InterventionKindName(v1::Intervention::Kind kind);

// What was done and why, without step and author:
// "clipping: norm 1 -> norm 0.5, optimizer.learning_rate: 0.01 -> 0.005".
std::string DescribeIntervention(const v1::Intervention& intervention);

// All of it: "EDIT at step 120 by ann: clipping: norm 1 -> norm 0.5".
std::string InterventionLine(const v1::Intervention& intervention);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_INTERVENTIONS_H_
