#ifndef GRADWATCH_SERVER_CLIP_VALUE_CLIP_H_
#define GRADWATCH_SERVER_CLIP_VALUE_CLIP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/clip/policy.h"

namespace gradwatch::clip {

// Holds every entry between a minimum and a maximum. Source: torch.nn.utils.clip_grad_value_.
// INVALID_ARGUMENT as NewClipPolicy.
absl::StatusOr<std::unique_ptr<ClipPolicy>> NewValueClip(const v1::ValueClip& spec);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_VALUE_CLIP_H_
