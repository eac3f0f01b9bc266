#include "server/clip/norm_rule.h"

#include <algorithm>

namespace gradwatch::clip {

absl::StatusOr<Norm> NormFromProto(v1::NormOrder order, absl::string_view field) {
  switch (order) {
    case v1::NORM_ORDER_UNSPECIFIED:
    case v1::NORM_ORDER_L2:
      return Norm::kL2;
    case v1::NORM_ORDER_L1:
      return Norm::kL1;
    case v1::NORM_ORDER_INF:
      return Norm::kInf;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": got unknown value ", static_cast<int>(order),
                       ", must be NORM_ORDER_L1, NORM_ORDER_L2 or NORM_ORDER_INF"));
  }
}

absl::StatusOr<bool> ExactFromProto(v1::NormConvention convention, absl::string_view field) {
  switch (convention) {
    case v1::NORM_CONVENTION_UNSPECIFIED:
    case v1::NORM_CONVENTION_TORCH:
      return false;
    case v1::NORM_CONVENTION_EXACT:
      return true;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": got unknown value ", static_cast<int>(convention),
                       ", must be NORM_CONVENTION_TORCH or NORM_CONVENTION_EXACT"));
  }
}

absl::Status CheckMaxNorm(std::optional<double> max_norm, absl::string_view field) {
  if (!max_norm.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": is missing, must be finite and above 0"));
  }
  if (!std::isfinite(*max_norm) || *max_norm <= 0.0) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": got ", *max_norm, ", must be finite and above 0"));
  }
  return absl::OkStatus();
}

std::optional<double> Cosine(double dot, double before, double after) {
  constexpr double kSmall = 1e-290, kLarge = 1e290;
  const auto usable = [](double x) { return x >= kSmall && x <= kLarge; };
  if (!usable(before) || !usable(after)) return std::nullopt;
  return std::clamp(dot / (std::sqrt(before) * std::sqrt(after)), -1.0, 1.0);
}

}  // namespace gradwatch::clip
