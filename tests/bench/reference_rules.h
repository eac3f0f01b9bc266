#ifndef GRADWATCH_TESTS_BENCH_REFERENCE_RULES_H_
#define GRADWATCH_TESTS_BENCH_REFERENCE_RULES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"

namespace gradwatch::bench {

// A rule that others ship, with their defaults, over our statistics at level FULL. It is asked at
// every step, more often than its makers would by default.
class ReferenceRule {
 public:
  virtual ~ReferenceRule() = default;
  // Whether its condition holds at this step. Steps come in order, each once.
  virtual bool Holds(const v1::StepStats& stats) = 0;
};

struct NamedReferenceRule {
  std::string group;  // "SageMaker", "Megatron", "ZClip", "Lightning"
  std::string name;   // "SMD_EXPLODING_TENSOR"
  std::unique_ptr<ReferenceRule> rule;
};

// One of each, new. `job` has its parameters.
//   SMD_EXPLODING_TENSOR        a NaN or an infinity in loss, state, gradient or weight
//   SMD_VANISHING_GRADIENT      mean magnitude of a tensor's gradient below 1e-7 (from the
//                               histogram: within a few percent)
//   SMD_WEIGHT_UPDATE_RATIO     change over weight of a tensor above 10 or below 1e-8
//   SMD_ALL_ZERO                every entry of a tensor's gradient is zero
//   SMD_UNCHANGED_TENSOR        change over weight of a tensor below 1e-5, three steps in a row
//   SMD_LOSS_NOT_DECREASING     loss not below that of 10 steps ago
//   MEGATRON_LARGE_LOSS         loss at least 10 times the largest of the first 100
//   MEGATRON_LARGE_NORM         the same of the gradient norm
//   ZCLIP                       norm 2.5 deviations above its moving mean (0.97), after 25 steps
//   LIGHTNING_FINITE            the loss is not finite
// Amazon's, by the texts of SageMaker Debugger's built-in rules and its published defaults;
// Megatron-LM's by rerun_state_machine.py; ZClip's by Kumar et al. 2025. Those of SageMaker's rules
// that look at activations' inputs (DeadRelu, SaturatedActivation, PoorWeightInitialization) cannot
// be computed from what we record.
std::vector<NamedReferenceRule> NewReferenceRules(const v1::Job& job);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_REFERENCE_RULES_H_
