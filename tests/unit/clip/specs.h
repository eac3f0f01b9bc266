#ifndef GRADWATCH_TESTS_UNIT_CLIP_SPECS_H_
#define GRADWATCH_TESTS_UNIT_CLIP_SPECS_H_

#include <memory>
#include <optional>

#include "server/clip/policy.h"

namespace gradwatch::clip {

inline v1::ClipPolicy GlobalNormSpec(double max_norm, v1::NormOrder order = v1::NORM_ORDER_L2,
                                     v1::NormConvention convention = v1::NORM_CONVENTION_TORCH) {
  v1::ClipPolicy spec;
  spec.mutable_global_norm()->set_max_norm(max_norm);
  spec.mutable_global_norm()->set_order(order);
  spec.mutable_global_norm()->set_convention(convention);
  return spec;
}

inline v1::ClipPolicy ParameterNormSpec(double max_norm, v1::NormOrder order = v1::NORM_ORDER_L2,
                                        v1::NormConvention convention = v1::NORM_CONVENTION_TORCH) {
  v1::ClipPolicy spec;
  spec.mutable_parameter_norm()->set_max_norm(max_norm);
  spec.mutable_parameter_norm()->set_order(order);
  spec.mutable_parameter_norm()->set_convention(convention);
  return spec;
}

inline v1::ClipPolicy ValueSpec(std::optional<double> minimum, std::optional<double> maximum) {
  v1::ClipPolicy spec;
  spec.mutable_value();
  if (minimum.has_value()) spec.mutable_value()->set_minimum(*minimum);
  if (maximum.has_value()) spec.mutable_value()->set_maximum(*maximum);
  return spec;
}

// Of a specification that is right.
inline std::unique_ptr<ClipPolicy> Policy(const v1::ClipPolicy& spec) {
  return *NewClipPolicy(spec);
}

}  // namespace gradwatch::clip

#endif  // GRADWATCH_TESTS_UNIT_CLIP_SPECS_H_
