#ifndef GRADWATCH_SERVER_CLIP_POLICY_H_
#define GRADWATCH_SERVER_CLIP_POLICY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradwatch/v1/clipping.pb.h"
#include "server/base/export.h"

namespace gradwatch::clip {

// One parameter tensor as a policy sees it. A view: the network owns what it shows.
template <typename S>
struct Block {
  absl::string_view name;           // PyTorch's name, such as "rnn.weight_hh_l0".
  absl::Span<S> gradient;           // Flattened, row by row; changed in place.
  absl::Span<const S> weight;       // Same length as `gradient`.
  absl::Span<const int64_t> shape;  // PyTorch's shape.
};

// What a policy may look at in one step.
template <typename S>
struct ClipContext {
  absl::Span<const Block<S>> blocks;  // In the engine's fixed order; empty blocks are fine.
  int64_t step = 0;
  // The L2 norm of each block's gradient where the caller knows it: then it need not be measured
  // again. Empty where not.
  absl::Span<const double> norms = {};
  // Where set, a policy that would multiply every entry by one factor may leave the gradients as
  // they are and multiply this by it: the caller makes the product, in double, rounded once, when
  // it reads the gradients next.
  double* factor = nullptr;
};

// What one policy saw and did in one step; see v1::ClipReport for the meaning of each number.
struct PolicyReport {
  std::optional<double> norm;
  std::optional<double> coefficient;
  int64_t clamped = 0;
  std::optional<double> cosine;
  bool changed = false;  // Some entry is not what it was.
};

// Bounds one step's gradients before the optimizer sees them.
//
// Numbers: norms are summed in double, in a fixed order, and neither overflow nor underflow while
//          they fit a double. Products are formed in double and rounded once.
// Not finite: an ordinary event in training, no error. A policy by norm whose norm is NaN or
//          infinite changes nothing (coefficient 1, the norm as it is); for the policy of single
//          tensors that holds tensor by tensor. By value, NaN stays and infinity is clamped. To
//          skip the step is the trainer's decision.
// State:   policies may carry some from step to step; SaveState / LoadState resume it exactly.
// Threads: one at a time.
class GRADWATCH_ENGINE_API ClipPolicy {
 public:
  virtual ~ClipPolicy() = default;

  // Stable label for metrics and the API: "value", "parameter_norm", "global_norm".
  virtual absl::string_view name() const = 0;

  // Bounds the gradients in place. O(entries); allocates nothing.
  virtual PolicyReport Clip(const ClipContext<float>& context) = 0;
  virtual PolicyReport Clip(const ClipContext<double>& context) = 0;

  // What Clip would report, to the bit; changes neither gradients nor state. A pass over the
  // entries at most; none where a norm by L2 follows from the context's norms.
  virtual PolicyReport Measure(const ClipContext<float>& context) const = 0;
  virtual PolicyReport Measure(const ClipContext<double>& context) const = 0;

  // Bytes for a checkpoint; empty for a policy without state.
  virtual std::string SaveState() const { return std::string(); }
  // INVALID_ARGUMENT if the bytes are not from a policy of this kind; then nothing is changed.
  virtual absl::Status LoadState(absl::string_view state);
};

// INVALID_ARGUMENT names the field, the value and what is allowed, as
// "global_norm.max_norm: got -1, must be finite and above 0".
GRADWATCH_ENGINE_API absl::StatusOr<std::unique_ptr<ClipPolicy>> NewClipPolicy(
    const v1::ClipPolicy& spec);

constexpr int kPoliciesMax = 8;

// A job's policies, applied in order. Threads: one at a time.
class GRADWATCH_ENGINE_API ClipChain {
 public:
  // `spec` as it stands on a job whose defaults are filled in: without policies nothing is clipped.
  // INVALID_ARGUMENT as NewClipPolicy, with "clipping.policies[1]." before the field.
  static absl::StatusOr<std::unique_ptr<ClipChain>> New(const v1::Clipping& spec);

  // Applies every policy. The reports, in order of the policies, are valid until the next call.
  // Of the context, the first policy alone sees the norms and the last alone the factor.
  // Allocates nothing.
  template <typename S>
  absl::Span<const PolicyReport> Clip(const ClipContext<S>& context);

  // Whether some policy changed an entry in the last call.
  bool clipped() const { return clipped_; }

  int size() const { return static_cast<int>(policies_.size()); }
  const ClipPolicy& policy(int i) const { return *policies_[static_cast<size_t>(i)]; }

  // The last call's report of policy `i`.
  void FillReport(int i, v1::ClipReport* report) const;

  // One entry for each policy, in order.
  std::vector<std::string> SaveStates() const;
  // INVALID_ARGUMENT if the number differs or a policy refuses its state.
  absl::Status LoadStates(absl::Span<const std::string> states);

 private:
  ClipChain() = default;

  std::vector<std::unique_ptr<ClipPolicy>> policies_;
  std::vector<PolicyReport> reports_;
  bool clipped_ = false;
};

extern template absl::Span<const PolicyReport> ClipChain::Clip(const ClipContext<float>&);
extern template absl::Span<const PolicyReport> ClipChain::Clip(const ClipContext<double>&);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_POLICY_H_
