#include "server/alerts/rules.h"

#include "server/alerts/describe.h"
#include "server/alerts/observe.h"

namespace gradwatch::alerts {
namespace {

constexpr RuleKind kRules[] = {
    {.id = v1::RULE_ID_NON_FINITE,
     .scope = Scope::kJob,
     .sees_nonfinite = true,
     .observe = ObserveNonFinite,
     .describe = DescribeNonFinite},
    {.id = v1::RULE_ID_EXPLODING_ABS,
     .scope = Scope::kJob,
     .sees_nonfinite = true,
     .observe = ObserveExplodingAbs,
     .describe = DescribeExplodingAbs},
    {.id = v1::RULE_ID_LOSS_DIVERGENCE,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveLossDivergence,
     .describe = DescribeLossDivergence},
    {.id = v1::RULE_ID_EXPLODING_REL,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveExplodingRel,
     .describe = DescribeExplodingRel},
    {.id = v1::RULE_ID_RECURRENT_EXPANSION,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveRecurrentExpansion,
     .describe = DescribeRecurrentExpansion},
    {.id = v1::RULE_ID_VANISHING_THROUGH_TIME,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveVanishingThroughTime,
     .describe = DescribeVanishingThroughTime},
    {.id = v1::RULE_ID_VANISHING_ABS,
     .scope = Scope::kLayers,
     .sees_nonfinite = false,
     .observe = ObserveVanishingAbs,
     .describe = DescribeVanishingAbs},
    {.id = v1::RULE_ID_DEAD_LAYER,
     .scope = Scope::kGroups,
     .sees_nonfinite = false,
     .observe = ObserveDeadLayer,
     .describe = DescribeDeadLayer},
    {.id = v1::RULE_ID_CLIP_SATURATED,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveClipSaturated,
     .describe = DescribeClipSaturated},
    {.id = v1::RULE_ID_LOSS_PLATEAU,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveLossPlateau,
     .describe = DescribeLossPlateau},
    {.id = v1::RULE_ID_GATES_STUCK,
     .scope = Scope::kLayers,
     .sees_nonfinite = false,
     .observe = ObserveGatesStuck,
     .describe = DescribeGatesStuck},
    {.id = v1::RULE_ID_DEAD_OR_SATURATED_UNITS,
     .scope = Scope::kLayers,
     .sees_nonfinite = false,
     .observe = ObserveDeadOrSaturatedUnits,
     .describe = DescribeDeadOrSaturatedUnits},
    {.id = v1::RULE_ID_UPDATE_RATIO,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveUpdateRatio,
     .describe = DescribeUpdateRatio},
    {.id = v1::RULE_ID_HIDDEN_GROWTH,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveHiddenGrowth,
     .describe = DescribeHiddenGrowth},
    {.id = v1::RULE_ID_WEIGHT_BLOWUP,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveWeightBlowup,
     .describe = DescribeWeightBlowup},
    {.id = v1::RULE_ID_OSCILLATION,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveOscillation,
     .describe = DescribeOscillation},
    {.id = v1::RULE_ID_STALLED_JOB,
     .scope = Scope::kJob,
     .sees_nonfinite = true,
     .observe = ObserveStalledJob,
     .describe = DescribeStalledJob},
    {.id = v1::RULE_ID_CLIP_TOO_LOOSE,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveClipTooLoose,
     .describe = DescribeClipTooLoose},
    {.id = v1::RULE_ID_UPDATE_SPIKE,
     .scope = Scope::kJob,
     .sees_nonfinite = false,
     .observe = ObserveUpdateSpike,
     .describe = DescribeUpdateSpike},
};

}  // namespace

int Observation::FirstThatHolds() const {
  for (size_t i = 0; i < clauses.size(); ++i) {
    if (clauses[i].holds) return static_cast<int>(i);
  }
  return -1;
}

absl::Span<const RuleKind> Rules() { return kRules; }

}  // namespace gradwatch::alerts
