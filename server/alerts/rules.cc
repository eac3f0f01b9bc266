#include "server/alerts/rules.h"

#include "server/alerts/describe.h"
#include "server/alerts/observe.h"

namespace gradwatch::alerts {
namespace {

constexpr RuleKind kRules[] = {
    {.id = v1::RULE_ID_NON_FINITE,
     .smaller_is_worse = false,
     .sees_nonfinite = true,
     .observe = ObserveNonFinite,
     .describe = DescribeNonFinite},
    {.id = v1::RULE_ID_EXPLODING_ABS,
     .smaller_is_worse = false,
     .sees_nonfinite = true,
     .observe = ObserveExplodingAbs,
     .describe = DescribeExplodingAbs},
    {.id = v1::RULE_ID_LOSS_DIVERGENCE,
     .smaller_is_worse = false,
     .sees_nonfinite = false,
     .observe = ObserveLossDivergence,
     .describe = DescribeLossDivergence},
    {.id = v1::RULE_ID_EXPLODING_REL,
     .smaller_is_worse = false,
     .sees_nonfinite = false,
     .observe = ObserveExplodingRel,
     .describe = DescribeExplodingRel},
    {.id = v1::RULE_ID_RECURRENT_EXPANSION,
     .smaller_is_worse = false,
     .sees_nonfinite = false,
     .observe = ObserveRecurrentExpansion,
     .describe = DescribeRecurrentExpansion},
    {.id = v1::RULE_ID_VANISHING_THROUGH_TIME,
     .smaller_is_worse = true,
     .sees_nonfinite = false,
     .observe = ObserveVanishingThroughTime,
     .describe = DescribeVanishingThroughTime},
    {.id = v1::RULE_ID_HIDDEN_GROWTH,
     .smaller_is_worse = false,
     .sees_nonfinite = false,
     .observe = ObserveHiddenGrowth,
     .describe = DescribeHiddenGrowth},
};

}  // namespace

absl::Span<const RuleKind> Rules() { return kRules; }

}  // namespace gradwatch::alerts
