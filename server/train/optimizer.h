#ifndef GRADWATCH_SERVER_TRAIN_OPTIMIZER_H_
#define GRADWATCH_SERVER_TRAIN_OPTIMIZER_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "gradwatch/v1/job.pb.h"
#include "server/base/thread_team.h"
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
// Allocates in the constructor only. Threads: one at a time, and a team's members on its behalf.
template <typename S>
class Optimizer {
 public:
  // `spec` has its defaults filled in; `parameters` lay out the flat buffers. The threads of `team`
  // (null: the calling thread alone) share the work; their number changes no bit.
  Optimizer(const v1::Optimizer& spec, const std::vector<nn::Parameter>& parameters,
            ThreadTeam* team = nullptr);

  // What an update works on. All spans have one entry for each weight.
  struct Update {
    absl::Span<S> weights;
    absl::Span<const S> gradients;
    // At least the largest magnitude in `gradients`, times `factor`, such as
    // their norm; NaN or infinite if one of them is not finite.
    double gradient_bound = 0.0;
    double rate = 0.0;
    int64_t number = 1;  // Updates applied, this one included: Adam's t.
    // The gradients are multiplied by this first, in double, rounded once.
    double factor = 1.0;
    // What Apply measures on its way.
    bool measure_gradients = false;
    bool measure_weights = true;
    // One for each weight, or empty: the distance from them is measured.
    absl::Span<const S> first_weights;
  };

  // L2 norms of one parameter; 0 where not measured. Those of the gradient and the distance are
  // summed in double. The other two decide nothing about the training and are good to 1e-6 of
  // themselves for floats.
  struct Norms {
    double gradient = 0.0;  // After the factor, as rounded.
    double weight = 0.0;    // Before the update.
    double change = 0.0;    // Of the weights, as rounded.
    double distance = 0.0;  // From the first weights, after the update.
  };

  // Index of the first parameter that would get a weight, or an entry of the
  // optimizer's state, that is not finite; -1 if there is none. Changes neither
  // weights nor state.
  int FirstNonFinite(const Update& update);

  // Applies the update that FirstNonFinite looked at last. `norms` gets one
  // entry for each parameter.
  void Apply(const Update& update, absl::Span<Norms> norms);

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

  // Entries [begin, begin + size) of the flat buffers, within one parameter.
  struct Chunk {
    size_t parameter = 0;
    int64_t begin = 0;
    int64_t size = 0;
    // What Apply found there.
    double gradients = 0.0;  // Sums of squares, as the other three.
    double weights = 0.0;
    double changes = 0.0;
    double distances = 0.0;
    double largest_weight = 0.0;  // Where nothing else says it.
  };

  bool SurelyFinite(const Update& update) const;
  void FollowState(const Update& update);
  template <typename Rule>
  int Search(const Rule& rule, const Update& update);
  template <typename Rule>
  void ApplyRule(const Rule& rule, const Update& update);
  template <typename Rule>
  void ApplyToChunk(const Rule& rule, const Update& update, Chunk* chunk);
  void Finish(const Update& update, absl::Span<Norms> norms);
  template <typename Visitor>
  auto WithRule(const Update& update, Visitor&& visitor) const;

  const v1::Optimizer spec_;
  const std::vector<nn::Parameter> parameters_;
  ThreadTeam* const team_;
  int64_t weight_count_ = 0;
  nn::Buffer<S> state_;
  std::vector<Chunk> chunks_;
  Bounds bounds_;
  Bounds after_;               // By the last FirstNonFinite, once its update is applied.
  double change_scale_ = 1.0;  // A power of two that keeps squared changes in range.
};

// Vectors of one entry for each weight that an optimizer keeps: 0, 1 or 2.
int OptimizerVectorsOf(const v1::Optimizer& spec);

extern template class Optimizer<float>;
extern template class Optimizer<double>;

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_OPTIMIZER_H_
