#include "server/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "Eigen/Core"

namespace gradwatch::train {
namespace {

// Weights are worked on in blocks that stay in the first-level cache.
constexpr int kBlock = 256;
template <typename S>
using Block = Eigen::Array<S, Eigen::Dynamic, 1, Eigen::ColMajor, kBlock, 1>;
template <typename S>
using View = Eigen::Map<const Eigen::Array<S, Eigen::Dynamic, 1>>;

// The update of one block, not yet stored.
template <typename S, int kVectors>
struct Proposal {
  Block<S> weights;
  Block<S> state[kVectors == 0 ? 1 : kVectors];
};

template <typename S>
struct PlainSgd {
  static constexpr int kVectors = 0;
  S rate;

  void Propose(const View<S>& w, const View<S>& g, const S* const*, Proposal<S, 0>* out) const {
    out->weights = w - rate * g;
  }
};

template <typename S>
struct MomentumSgd {
  static constexpr int kVectors = 1;
  S rate;
  S momentum;
  bool nesterov;

  void Propose(const View<S>& w, const View<S>& g, const S* const* state,
               Proposal<S, 1>* out) const {
    const View<S> v(state[0], w.size());
    out->state[0] = momentum * v + g;
    if (nesterov) {
      out->weights = w - rate * (g + momentum * out->state[0]);
    } else {
      out->weights = w - rate * out->state[0];
    }
  }
};

template <typename S>
struct AdamRule {
  static constexpr int kVectors = 2;
  S beta1, one_minus_beta1;
  S beta2, one_minus_beta2;
  S rate;             // rate / (1 - beta1^t)
  S root_correction;  // sqrt(1 - beta2^t)
  S epsilon;

  void Propose(const View<S>& w, const View<S>& g, const S* const* state,
               Proposal<S, 2>* out) const {
    const View<S> m(state[0], w.size());
    const View<S> v(state[1], w.size());
    out->state[0] = beta1 * m + one_minus_beta1 * g;
    out->state[1] = beta2 * v + one_minus_beta2 * g * g;
    out->weights = w - rate * (out->state[0] / (out->state[1].sqrt() / root_correction + epsilon));
  }
};

template <typename S>
AdamRule<S> MakeAdamRule(const v1::Adam& adam, double rate, int64_t number) {
  const double t = static_cast<double>(number);
  AdamRule<S> rule;
  rule.beta1 = static_cast<S>(adam.beta1());
  rule.one_minus_beta1 = static_cast<S>(1.0 - adam.beta1());
  rule.beta2 = static_cast<S>(adam.beta2());
  rule.one_minus_beta2 = static_cast<S>(1.0 - adam.beta2());
  rule.rate = static_cast<S>(rate / (1.0 - std::pow(adam.beta1(), t)));
  rule.root_correction = static_cast<S>(std::sqrt(1.0 - std::pow(adam.beta2(), t)));
  rule.epsilon = static_cast<S>(adam.epsilon());
  return rule;
}

template <typename S>
bool AllFinite(const Block<S>& values) {
  return values.isFinite().all();
}

// Sum of (scale * (after - before))^2 in double, in a fixed order.
template <typename S>
double SumOfSquaredChanges(const S* after, const S* before, int64_t n, double scale) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const double change =
          scale * (static_cast<double>(after[i + k]) - static_cast<double>(before[i + k]));
      lanes[k] += change * change;
    }
  }
  double sum = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
               ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  for (; i < n; ++i) {
    const double change = scale * (static_cast<double>(after[i]) - static_cast<double>(before[i]));
    sum += change * change;
  }
  return sum;
}

// Calls body(begin, size) for the blocks of one parameter.
template <typename Body>
void ForBlocks(const nn::Parameter& parameter, Body&& body) {
  const int64_t end = parameter.offset + parameter.size;
  for (int64_t begin = parameter.offset; begin < end; begin += kBlock) {
    body(begin, std::min<int64_t>(kBlock, end - begin));
  }
}

}  // namespace

int OptimizerVectorsOf(const v1::Optimizer& spec) {
  if (spec.has_adam()) return 2;
  return spec.sgd().momentum() > 0.0 ? 1 : 0;
}

template <typename S>
Optimizer<S>::Optimizer(const v1::Optimizer& spec, const std::vector<nn::Parameter>& parameters)
    : spec_(spec), parameters_(parameters) {
  for (const nn::Parameter& parameter : parameters_) weight_count_ += parameter.size;
  state_ = nn::Buffer<S>(weight_count_ * OptimizerVectorsOf(spec_));
}

template <typename S>
template <typename Visitor>
auto Optimizer<S>::WithRule(const Update& update, Visitor&& visitor) const {
  if (spec_.has_adam()) {
    return visitor(MakeAdamRule<S>(spec_.adam(), update.rate, update.number));
  }
  const S rate = static_cast<S>(update.rate);
  if (spec_.sgd().momentum() > 0.0) {
    return visitor(
        MomentumSgd<S>{rate, static_cast<S>(spec_.sgd().momentum()), spec_.sgd().nesterov()});
  }
  return visitor(PlainSgd<S>{rate});
}

// Generous: a factor of 8 to the largest number swallows every rounding. In
// double the limit also keeps the squares of changes in range.
template <typename S>
bool Optimizer<S>::SurelyFinite(const Update& update) const {
  const double limit = sizeof(S) == sizeof(float)
                           ? static_cast<double>(std::numeric_limits<float>::max()) / 8.0
                           : 1e140;
  const double g = update.gradient_bound;
  if (!(g <= limit)) return false;  // NaN too, which std::max would lose.
  double change;
  if (spec_.has_adam()) {
    const AdamRule<S> rule = MakeAdamRule<S>(spec_.adam(), update.rate, update.number);
    const double mean = std::max(bounds_.state[0], g);
    const double square = std::max(bounds_.state[1], g * g);
    if (!(mean <= limit && square <= limit)) return false;
    change = static_cast<double>(rule.rate) * (mean / static_cast<double>(rule.epsilon));
  } else {
    const double velocity = OptimizerVectorsOf(spec_) == 0 ? g : bounds_.state[0] + g;
    change = update.rate * 2.0 * velocity;
    if (!(2.0 * velocity <= limit)) return false;
  }
  return bounds_.weights + change <= limit;
}

template <typename S>
int Optimizer<S>::FirstNonFinite(const Update& update) {
  change_scale_ = 1.0;
  found_nonfinite_ = false;
  if (SurelyFinite(update)) return -1;
  const int found = WithRule(update, [&](const auto& rule) { return Search(rule, update); });
  found_nonfinite_ = found >= 0;
  return found;
}

template <typename S>
template <typename Rule>
int Optimizer<S>::Search(const Rule& rule, const Update& update) {
  Proposal<S, Rule::kVectors> proposal;
  double largest_change = 0.0;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    bool finite = true;
    ForBlocks(parameters_[p], [&](int64_t begin, int64_t n) {
      const S* state[2] = {};
      for (int v = 0; v < Rule::kVectors; ++v) state[v] = &state_[v * weight_count_ + begin];
      const View<S> w(update.weights.data() + begin, n);
      rule.Propose(w, View<S>(update.gradients.data() + begin, n), state, &proposal);
      finite = finite && AllFinite<S>(proposal.weights);
      for (int v = 0; v < Rule::kVectors; ++v) finite = finite && AllFinite<S>(proposal.state[v]);
      const S change = (proposal.weights - w).abs().template maxCoeff<Eigen::PropagateNumbers>();
      largest_change = std::max(largest_change, static_cast<double>(change));
    });
    if (!finite) return static_cast<int>(p);
  }
  if (sizeof(S) == sizeof(double) && largest_change > 1e140) {
    change_scale_ =
        std::ldexp(1.0, -std::ilogb(std::min(largest_change, std::numeric_limits<double>::max())));
  }
  return -1;
}

template <typename S>
void Optimizer<S>::Apply(const Update& update, absl::Span<double> change_norms) {
  WithRule(update, [&](const auto& rule) { ApplyRule(rule, update, change_norms); });
}

template <typename S>
template <typename Rule>
void Optimizer<S>::ApplyRule(const Rule& rule, const Update& update,
                             absl::Span<double> change_norms) {
  Proposal<S, Rule::kVectors> proposal;
  S largest_weight = 0;
  S largest_state[2] = {};
  for (size_t p = 0; p < parameters_.size(); ++p) {
    double squares = 0.0;
    ForBlocks(parameters_[p], [&](int64_t begin, int64_t n) {
      const S* state[2] = {};
      for (int v = 0; v < Rule::kVectors; ++v) state[v] = &state_[v * weight_count_ + begin];
      S* weights = update.weights.data() + begin;
      rule.Propose(View<S>(weights, n), View<S>(update.gradients.data() + begin, n), state,
                   &proposal);
      squares += SumOfSquaredChanges(proposal.weights.data(), weights, n, change_scale_);
      largest_weight = std::max(largest_weight, proposal.weights.abs().maxCoeff());
      std::copy_n(proposal.weights.data(), n, weights);
      for (int v = 0; v < Rule::kVectors; ++v) {
        largest_state[v] = std::max(largest_state[v], proposal.state[v].abs().maxCoeff());
        std::copy_n(proposal.state[v].data(), n, &state_[v * weight_count_ + begin]);
      }
    });
    change_norms[p] = std::sqrt(squares) / change_scale_;
  }
  bounds_ = Bounds();
  if (!found_nonfinite_) {
    bounds_.weights = static_cast<double>(largest_weight);
    for (int v = 0; v < 2; ++v) bounds_.state[v] = static_cast<double>(largest_state[v]);
  }
}

template class Optimizer<float>;
template class Optimizer<double>;

}  // namespace gradwatch::train
