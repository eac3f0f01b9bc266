#ifndef GRADWATCH_SERVER_CLIP_GLOBAL_NORM_CLIP_H_
#define GRADWATCH_SERVER_CLIP_GLOBAL_NORM_CLIP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/clip/policy.h"

namespace gradwatch::clip {

// Scales the gradient as a whole when its norm over all blocks passes the threshold.
// Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
// 2013, algorithm 1; torch.nn.utils.clip_grad_norm_. INVALID_ARGUMENT as NewClipPolicy.
absl::StatusOr<std::unique_ptr<ClipPolicy>> NewGlobalNormClip(const v1::GlobalNormClip& spec);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_GLOBAL_NORM_CLIP_H_
