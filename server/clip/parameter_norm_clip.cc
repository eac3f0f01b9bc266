#include "server/clip/parameter_norm_clip.h"

#include <algorithm>

#include "server/clip/norm_rule.h"

namespace gradwatch::clip {
namespace {

class ParameterNormClip final : public ClipPolicy {
 public:
  explicit ParameterNormClip(const NormRule& rule) : rule_(rule) {}

  absl::string_view name() const override { return "parameter_norm"; }
  PolicyReport Clip(const ClipContext<float>& context) override { return Apply(context); }
  PolicyReport Clip(const ClipContext<double>& context) override { return Apply(context); }

 private:
  template <typename S>
  PolicyReport Apply(const ClipContext<S>& context) const {
    double largest = 0.0, smallest_coefficient = 1.0;
    // Each block keeps its direction, so its norm and factor are all that the cosine needs.
    double dot = 0.0, before = 0.0, after = 0.0;
    PolicyReport report;
    for (const Block<S>& block : context.blocks) {
      const absl::Span<const S> gradient = block.gradient;
      const double norm = NormOf(rule_.order, gradient);
      const double l2 = rule_.order == Norm::kL2 ? norm : NormOf(Norm::kL2, gradient);
      const double coefficient = rule_.Coefficient(norm);
      largest = JoinNorms(Norm::kInf, largest, norm);
      smallest_coefficient = std::min(smallest_coefficient, coefficient);
      dot += coefficient * l2 * l2;
      before += l2 * l2;
      after += coefficient * l2 * coefficient * l2;
      if (coefficient < 1.0) {
        Scale(block.gradient, coefficient);
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

  const NormRule rule_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClipPolicy>> NewParameterNormClip(
    const v1::ParameterNormClip& spec) {
  ASSIGN_OR_RETURN(const NormRule rule, NormRuleFromProto(spec, "parameter_norm"));
  return std::make_unique<ParameterNormClip>(rule);
}

}  // namespace gradwatch::clip
