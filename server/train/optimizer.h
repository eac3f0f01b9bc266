#ifndef GRADWATCH_SERVER_TRAIN_OPTIMIZER_H_
#define GRADWATCH_SERVER_TRAIN_OPTIMIZER_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "gradwatch/v1/job.pb.h"
#include "server/nn/buffer.h"
#include "server/nn/network_config.h"

namespace gradwatch::train {

// SGD (with momentum, Nesterov) or Adam over flat buffers, in PyTorch's forms:
//   SGD:  v = momentum * v + g;  w -= rate * v, or with Nesterov w -= rate * (g
//   + momentum * v). Adam: m = b1 * m + (1 - b1) * g;  v = b2 * v + (1 - b2) *
//   g^2;
//         w -= rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + epsilon).
// The mean is b1 * m + (1 - b1) * g as in PyTorch 1.13; newer releases
// interpolate, m + (1 - b1) * (g - m), which differs by rounding only.
//
// An update has two parts: FirstNonFinite looks at what would be, Apply makes
// it so. As a rule the first costs nothing: bounds on weights, state and
// gradient prove that nothing can overflow. Only where they do not it computes
// the update, without storing it. So there is no second copy of the weights and
// a skipped step leaves every bit as it was.
//
// Allocates in the constructor only. Threads: one at a time.
template <typename S>
class Optimizer {
 public:
  // `spec` has its defaults filled in; `parameters` lay out the flat buffers.
  Optimizer(const v1::Optimizer& spec, const std::vector<nn::Parameter>& parameters);

  // What an update works on. All spans have one entry for each weight.
  struct Update {
    absl::Span<S> weights;
    absl::Span<const S> gradients;
    // At least the largest magnitude in `gradients`, such as their norm; NaN or
    // infinite if one of them is not finite.
    double gradient_bound = 0.0;
    double rate = 0.0;
    int64_t number = 1;  // Updates applied, this one included: Adam's t.
  };

  // Index of the first parameter that would get a weight, or an entry of the
  // optimizer's state, that is not finite; -1 if there is none. Changes neither
  // weights nor state.
  int FirstNonFinite(const Update& update);

  // Applies the update that FirstNonFinite looked at last. `change_norms` gets
  // one entry for each parameter: the L2 norm of its weights' change, as
  // rounded, summed in double.
  void Apply(const Update& update, absl::Span<double> change_norms);

  // The optimizer's own vectors, each as long as the weights: none, v, or m and
  // v. Whoever writes here or to the weights from outside calls ForgetBounds.
  absl::Span<S> state() { return absl::MakeSpan(state_.data(), state_.size()); }
  absl::Span<const S> state() const { return absl::MakeConstSpan(state_.data(), state_.size()); }
  void ForgetBounds() { bounds_ = Bounds(); }

 private:
  // No finite entry is larger in magnitude; infinite when nothing is known.
  struct Bounds {
    double weights = std::numeric_limits<double>::infinity();
    double state[2] = {std::numeric_limits<double>::infinity(),
                       std::numeric_limits<double>::infinity()};
  };

  bool SurelyFinite(const Update& update) const;
  template <typename Rule>
  int Search(const Rule& rule, const Update& update);
  template <typename Rule>
  void ApplyRule(const Rule& rule, const Update& update, absl::Span<double> change_norms);
  template <typename Visitor>
  auto WithRule(const Update& update, Visitor&& visitor) const;

  const v1::Optimizer spec_;
  const std::vector<nn::Parameter> parameters_;
  int64_t weight_count_ = 0;
  nn::Buffer<S> state_;
  Bounds bounds_;
  bool found_nonfinite_ = false;  // By the last FirstNonFinite.
  double change_scale_ = 1.0;     // A power of two that keeps squared changes in range.
};

// Vectors of one entry for each weight that an optimizer keeps: 0, 1 or 2.
int OptimizerVectorsOf(const v1::Optimizer& spec);

extern template class Optimizer<float>;
extern template class Optimizer<double>;

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_OPTIMIZER_H_
