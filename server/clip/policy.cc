#include "server/clip/policy.h"

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/clip/global_norm_clip.h"
#include "server/clip/parameter_norm_clip.h"
#include "server/clip/value_clip.h"

namespace gradwatch::clip {

absl::Status ClipPolicy::LoadState(absl::string_view state) {
  if (state.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("policy ", name(), " keeps no state, got ", state.size(), " bytes"));
}

absl::StatusOr<std::unique_ptr<ClipPolicy>> NewClipPolicy(const v1::ClipPolicy& spec) {
  switch (spec.kind_case()) {
    case v1::ClipPolicy::kValue:
      return NewValueClip(spec.value());
    case v1::ClipPolicy::kParameterNorm:
      return NewParameterNormClip(spec.parameter_norm());
    case v1::ClipPolicy::kGlobalNorm:
      return NewGlobalNormClip(spec.global_norm());
    case v1::ClipPolicy::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "kind: is missing, must be one of value, parameter_norm, global_norm");
}

absl::StatusOr<std::unique_ptr<ClipChain>> ClipChain::New(const v1::Clipping& spec) {
  if (spec.policies_size() > kPoliciesMax) {
    return absl::InvalidArgumentError(absl::StrCat("clipping.policies: got ", spec.policies_size(),
                                                   " policies, at most ", kPoliciesMax,
                                                   " are allowed"));
  }
  std::unique_ptr<ClipChain> chain(new ClipChain);
  for (int i = 0; i < spec.policies_size(); ++i) {
    auto policy = NewClipPolicy(spec.policies(i));
    if (!policy.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("clipping.policies[", i, "].", policy.status().message()));
    }
    chain->policies_.push_back(*std::move(policy));
  }
  chain->reports_.resize(chain->policies_.size());
  return chain;
}

template <typename S>
absl::Span<const PolicyReport> ClipChain::Clip(const ClipContext<S>& context) {
  clipped_ = false;
  for (size_t i = 0; i < policies_.size(); ++i) {
    ClipContext<S> seen = context;
    if (i > 0) seen.norms = {};
    if (i + 1 < policies_.size()) seen.factor = nullptr;
    reports_[i] = policies_[i]->Clip(seen);
    clipped_ |= reports_[i].changed;
  }
  return reports_;
}

template absl::Span<const PolicyReport> ClipChain::Clip(const ClipContext<float>&);
template absl::Span<const PolicyReport> ClipChain::Clip(const ClipContext<double>&);

void ClipChain::FillReport(int i, v1::ClipReport* report) const {
  const PolicyReport& from = reports_[static_cast<size_t>(i)];
  report->Clear();
  report->set_policy(std::string(policy(i).name()));
  if (from.norm.has_value()) report->set_norm(*from.norm);
  if (from.coefficient.has_value()) report->set_coefficient(*from.coefficient);
  report->set_clamped(from.clamped);
  if (from.cosine.has_value()) report->set_cosine(*from.cosine);
}

std::vector<std::string> ClipChain::SaveStates() const {
  std::vector<std::string> states;
  for (const auto& policy : policies_) states.push_back(policy->SaveState());
  return states;
}

absl::Status ClipChain::LoadStates(absl::Span<const std::string> states) {
  if (states.size() != policies_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", states.size(), " clip states for ", policies_.size(), " policies"));
  }
  for (size_t i = 0; i < states.size(); ++i) RETURN_IF_ERROR(policies_[i]->LoadState(states[i]));
  return absl::OkStatus();
}

}  // namespace gradwatch::clip
