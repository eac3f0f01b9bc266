#include "server/clip/global_norm_clip.h"

#include "server/clip/norm_rule.h"

namespace gradwatch::clip {
namespace {

class GlobalNormClip final : public ClipPolicy {
 public:
  explicit GlobalNormClip(const NormRule& rule) : rule_(rule) {}

  absl::string_view name() const override { return "global_norm"; }
  PolicyReport Clip(const ClipContext<float>& context) override { return Apply(context); }
  PolicyReport Clip(const ClipContext<double>& context) override { return Apply(context); }
  PolicyReport Measure(const ClipContext<float>& context) const override { return Look(context); }
  PolicyReport Measure(const ClipContext<double>& context) const override { return Look(context); }

 private:
  template <typename S>
  PolicyReport Look(const ClipContext<S>& context) const {
    PolicyReport report;
    report.norm = NormOfAll(context);
    report.coefficient = rule_.Coefficient(*report.norm);
    report.changed = *report.coefficient < 1.0;
    return report;
  }

  template <typename S>
  PolicyReport Apply(const ClipContext<S>& context) const {
    const PolicyReport report = Look(context);
    if (!report.changed) return report;
    if (context.factor != nullptr) {
      *context.factor *= *report.coefficient;
    } else {
      for (const Block<S>& block : context.blocks) Scale(block.gradient, *report.coefficient);
    }
    return report;
  }

  template <typename S>
  double NormOfAll(const ClipContext<S>& context) const {
    if (rule_.order != Norm::kL2 || context.norms.empty()) {
      return NormOf(rule_.order, context.blocks);
    }
    double norm = 0.0;
    for (const double of_block : context.norms) norm = JoinNorms(Norm::kL2, norm, of_block);
    return norm;
  }

  const NormRule rule_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClipPolicy>> NewGlobalNormClip(const v1::GlobalNormClip& spec) {
  ASSIGN_OR_RETURN(const NormRule rule, NormRuleFromProto(spec, "global_norm"));
  return std::make_unique<GlobalNormClip>(rule);
}

}  // namespace gradwatch::clip
