#ifndef GRADWATCH_SERVER_CLIP_SHADOW_CLIPS_H_
#define GRADWATCH_SERVER_CLIP_SHADOW_CLIPS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"
#include "gradwatch/v1/clipping.pb.h"
#include "server/base/export.h"
#include "server/clip/policy.h"

namespace gradwatch::clip {

constexpr int kShadowsMax = 8;

// A job's shadow clips: policies whose effect is measured, each on the same gradient, and that
// change nothing. Threads: one at a time.
class GRADWATCH_ENGINE_API ShadowClips {
 public:
  // INVALID_ARGUMENT as NewClipPolicy, with "shadow_clips[1]." before the field; more than
  // kShadowsMax.
  static absl::StatusOr<std::unique_ptr<ShadowClips>> New(
      const google::protobuf::RepeatedPtrField<v1::ClipPolicy>& specs);

  // Adds one report for each policy, in order. The gradients stay as they are, bit for bit.
  template <typename S>
  void Measure(const ClipContext<S>& context,
               google::protobuf::RepeatedPtrField<v1::ShadowReport>* reports) const;

  int size() const { return static_cast<int>(shadows_.size()); }

 private:
  struct Shadow {
    std::unique_ptr<ClipPolicy> policy;
    bool by_step_norm;  // Its norm is the one that every step records.
  };

  ShadowClips() = default;

  std::vector<Shadow> shadows_;
};

extern template void ShadowClips::Measure(
    const ClipContext<float>&, google::protobuf::RepeatedPtrField<v1::ShadowReport>*) const;
extern template void ShadowClips::Measure(
    const ClipContext<double>&, google::protobuf::RepeatedPtrField<v1::ShadowReport>*) const;

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_SHADOW_CLIPS_H_
