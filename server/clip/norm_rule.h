#ifndef GRADWATCH_SERVER_CLIP_NORM_RULE_H_
#define GRADWATCH_SERVER_CLIP_NORM_RULE_H_

#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradwatch/v1/clipping.pb.h"
#include "server/base/status.h"
#include "server/clip/norm.h"

namespace gradwatch::clip {

// A threshold on a norm: what the policies by norm have in common.
struct NormRule {
  double max_norm = 1.0;
  Norm order = Norm::kL2;
  bool exact = false;  // Convention; otherwise torch's.

  // The factor that a gradient of this norm gets, in (0, 1]; 1 where the norm is not finite.
  // Source: torch.nn.utils.clip_grad_norm_ for the convention of that name.
  double Coefficient(double norm) const {
    if (!std::isfinite(norm)) return 1.0;
    if (exact) return norm <= max_norm ? 1.0 : max_norm / norm;
    const double coefficient = max_norm / (norm + 1e-6);
    return coefficient < 1.0 ? coefficient : 1.0;
  }
};

absl::StatusOr<Norm> NormFromProto(v1::NormOrder order, absl::string_view field);
absl::StatusOr<bool> ExactFromProto(v1::NormConvention convention, absl::string_view field);
absl::Status CheckMaxNorm(std::optional<double> max_norm, absl::string_view field);

// Reads the fields that v1::GlobalNormClip and v1::ParameterNormClip share; `name` is the one of
// the message in v1::ClipPolicy.
template <typename Spec>
absl::StatusOr<NormRule> NormRuleFromProto(const Spec& spec, absl::string_view name) {
  const std::optional<double> max_norm =
      spec.has_max_norm() ? std::optional<double>(spec.max_norm()) : std::nullopt;
  RETURN_IF_ERROR(CheckMaxNorm(max_norm, absl::StrCat(name, ".max_norm")));
  NormRule rule;
  rule.max_norm = *max_norm;
  ASSIGN_OR_RETURN(rule.order, NormFromProto(spec.order(), absl::StrCat(name, ".order")));
  ASSIGN_OR_RETURN(rule.exact,
                   ExactFromProto(spec.convention(), absl::StrCat(name, ".convention")));
  return rule;
}

// Multiplies by `coefficient`, in double, rounded once: a coefficient of a gradient of 1e30 is
// nowhere near the precision limits of float.
template <typename S>
void Scale(absl::Span<S> values, double coefficient) {
  for (S& value : values) {
    value = static_cast<S>(static_cast<double>(value) * coefficient);
  }
}

// dot / sqrt(before * after), of a scalar product and two sums of squares; nothing where one of
// them is zero, not finite, or so small or large that it lost digits. Rounded: what was not touched
// has a cosine of 1 only to a few ulp, so callers set that themselves.
std::optional<double> Cosine(double dot, double before, double after);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_NORM_RULE_H_
