#ifndef GRADWATCH_SERVER_CLIP_PARAMETER_NORM_CLIP_H_
#define GRADWATCH_SERVER_CLIP_PARAMETER_NORM_CLIP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/clip/policy.h"

namespace gradwatch::clip {

// Scales each block whose own norm passes the threshold, so it turns the gradient's direction.
// Source: the `clipnorm` of Keras; tf.clip_by_norm.
// INVALID_ARGUMENT as NewClipPolicy.
absl::StatusOr<std::unique_ptr<ClipPolicy>> NewParameterNormClip(const v1::ParameterNormClip& spec);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_PARAMETER_NORM_CLIP_H_
