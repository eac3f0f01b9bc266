#include "server/clip/parameter_norm_clip.h"

#include <algorithm>

#include "server/clip/norm_rule.h"

namespace gradwatch::clip {
namespace {

class ParameterNormClip final : public ClipPolicy {
 public:
  explicit ParameterNormClip(const NormRule& rule) : rule_(rule) {}

  absl::string_view name() const override { return "parameter_norm"; }
  PolicyReport Clip(const ClipContext<float>& context) override { return Run(context, true); }
  PolicyReport Clip(const ClipContext<double>& context) override { return Run(context, true); }
  PolicyReport Measure(const ClipContext<float>& context) const override {
    return Run(context, false);
  }
  PolicyReport Measure(const ClipContext<double>& context) const override {
    return Run(context, false);
  }

 private:
  template <typename S>
  PolicyReport Run(const ClipContext<S>& context, bool apply) const {
    double largest = 0.0, smallest_coefficient = 1.0;
    // Each block keeps its direction, so its norm and factor are all that the cosine needs.
    double dot = 0.0, before = 0.0, after = 0.0;
    PolicyReport report;
    for (size_t i = 0; i < context.blocks.size(); ++i) {
      const Block<S>& block = context.blocks[i];
      const double l2 = L2Of(context, i);
      const double norm =
          rule_.order == Norm::kL2 ? l2 : NormOf(rule_.order, absl::Span<const S>(block.gradient));
      const double coefficient = rule_.Coefficient(norm);
      largest = JoinNorms(Norm::kInf, largest, norm);
      smallest_coefficient = std::min(smallest_coefficient, coefficient);
      dot += coefficient * l2 * l2;
      before += l2 * l2;
      after += coefficient * l2 * coefficient * l2;
      if (coefficient < 1.0) {
        if (apply) Scale(block.gradient, coefficient);
        ++report.clamped;
      }
    }
    report.norm = largest;
    report.coefficient = smallest_coefficient;
    report.changed = report.clamped > 0;
    report.cosine = Cosine(dot, before, after);
    if (!report.changed && report.cosine.has_value()) report.cosine = 1.0;
    return report;
  }

  template <typename S>
  static double L2Of(const ClipContext<S>& context, size_t block) {
    return context.norms.empty()
               ? NormOf(Norm::kL2, absl::Span<const S>(context.blocks[block].gradient))
               : context.norms[block];
  }

  const NormRule rule_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClipPolicy>> NewParameterNormClip(
    const v1::ParameterNormClip& spec) {
  ASSIGN_OR_RETURN(const NormRule rule, NormRuleFromProto(spec, "parameter_norm"));
  return std::make_unique<ParameterNormClip>(rule);
}

}  // namespace gradwatch::clip
