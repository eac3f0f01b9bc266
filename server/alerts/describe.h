#ifndef GRADWATCH_SERVER_ALERTS_DESCRIBE_H_
#define GRADWATCH_SERVER_ALERTS_DESCRIBE_H_

#include "server/alerts/rules.h"

// What an alert of each rule says; see RuleKind::describe. Messages quote the step's numbers;
// advice names settings of v1.Job by their path and fills in numbers where they are known.
namespace gradwatch::alerts {

Description DescribeNonFinite(const Context& context, const Observation& seen, int clause);
Description DescribeExplodingAbs(const Context& context, const Observation& seen, int clause);
Description DescribeLossDivergence(const Context& context, const Observation& seen, int clause);
Description DescribeExplodingRel(const Context& context, const Observation& seen, int clause);
Description DescribeRecurrentExpansion(const Context& context, const Observation& seen, int clause);
Description DescribeVanishingThroughTime(const Context& context, const Observation& seen,
                                         int clause);
Description DescribeVanishingAbs(const Context& context, const Observation& seen, int clause);
Description DescribeDeadLayer(const Context& context, const Observation& seen, int clause);
Description DescribeClipSaturated(const Context& context, const Observation& seen, int clause);
Description DescribeLossPlateau(const Context& context, const Observation& seen, int clause);
Description DescribeGatesStuck(const Context& context, const Observation& seen, int clause);
Description DescribeDeadOrSaturatedUnits(const Context& context, const Observation& seen,
                                         int clause);
Description DescribeUpdateRatio(const Context& context, const Observation& seen, int clause);
Description DescribeHiddenGrowth(const Context& context, const Observation& seen, int clause);
Description DescribeWeightBlowup(const Context& context, const Observation& seen, int clause);
Description DescribeOscillation(const Context& context, const Observation& seen, int clause);
Description DescribeStalledJob(const Context& context, const Observation& seen, int clause);
Description DescribeClipTooLoose(const Context& context, const Observation& seen, int clause);
Description DescribeUpdateSpike(const Context& context, const Observation& seen, int clause);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_DESCRIBE_H_
