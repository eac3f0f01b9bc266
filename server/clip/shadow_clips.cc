#include "server/clip/shadow_clips.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace gradwatch::clip {

absl::StatusOr<std::unique_ptr<ShadowClips>> ShadowClips::New(
    const google::protobuf::RepeatedPtrField<v1::ClipPolicy>& specs) {
  if (specs.size() > kShadowsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shadow_clips: got ", specs.size(), " policies, at most ", kShadowsMax, " are allowed"));
  }
  std::unique_ptr<ShadowClips> clips(new ShadowClips);
  for (int i = 0; i < specs.size(); ++i) {
    auto policy = NewClipPolicy(specs[i]);
    if (!policy.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("shadow_clips[", i, "].", policy.status().message()));
    }
    const v1::NormOrder order = specs[i].global_norm().order();
    const bool by_step_norm = specs[i].has_global_norm() &&
                              (order == v1::NORM_ORDER_L2 || order == v1::NORM_ORDER_UNSPECIFIED);
    clips->shadows_.push_back({*std::move(policy), by_step_norm});
  }
  return clips;
}

template <typename S>
void ShadowClips::Measure(const ClipContext<S>& context,
                          google::protobuf::RepeatedPtrField<v1::ShadowReport>* reports) const {
  for (const Shadow& shadow : shadows_) {
    const PolicyReport measured = shadow.policy->Measure(context);
    v1::ShadowReport* report = reports->Add();
    report->set_clipped(measured.changed);
    if (measured.coefficient.has_value()) report->set_coefficient(*measured.coefficient);
    if (measured.norm.has_value() && !shadow.by_step_norm) report->set_norm(*measured.norm);
    report->set_clamped(measured.clamped);
    if (measured.cosine.has_value()) report->set_cosine(*measured.cosine);
  }
}

template void ShadowClips::Measure(const ClipContext<float>&,
                                   google::protobuf::RepeatedPtrField<v1::ShadowReport>*) const;
template void ShadowClips::Measure(const ClipContext<double>&,
                                   google::protobuf::RepeatedPtrField<v1::ShadowReport>*) const;

}  // namespace gradwatch::clip
