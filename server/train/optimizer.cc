#include "server/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "server/base/range.h"
#include "server/base/squares.h"
#include "server/nn/packet.h"
#include "server/stats/gradient_stats.h"

namespace gradwatch::train {
namespace {

using nn::Constant;
using nn::FirstLanes;
using nn::ForPackets;
using nn::Load;
using nn::Packet;
using nn::Store;
namespace packet = nn::packet;

// Weights are worked on in blocks that stay in the first-level cache.
constexpr int kBlock = 256;

// The update of one packet, not yet stored.
template <typename S>
struct Proposal {
  Packet<S> weights;
  Packet<S> state[2];
};

template <typename S>
struct PlainSgd {
  static constexpr int kVectors = 0;
  S rate;

  void Propose(const Packet<S>& w, const Packet<S>& g, const Packet<S>*, Proposal<S>* out) const {
    out->weights = packet::psub(w, packet::pmul(Constant<S>(rate), g));
  }
};

template <typename S>
struct MomentumSgd {
  static constexpr int kVectors = 1;
  S rate;
  S momentum;
  bool nesterov;

  void Propose(const Packet<S>& w, const Packet<S>& g, const Packet<S>* state,
               Proposal<S>* out) const {
    const Packet<S> by = Constant<S>(momentum);
    const Packet<S> v = packet::padd(packet::pmul(by, state[0]), g);
    const Packet<S> direction = nesterov ? packet::padd(g, packet::pmul(by, v)) : v;
    out->state[0] = v;
    out->weights = packet::psub(w, packet::pmul(Constant<S>(rate), direction));
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

  void Propose(const Packet<S>& w, const Packet<S>& g, const Packet<S>* state,
               Proposal<S>* out) const {
    using packet::padd;
    using packet::pdiv;
    using packet::pmul;
    const Packet<S> m =
        padd(pmul(Constant<S>(beta1), state[0]), pmul(Constant<S>(one_minus_beta1), g));
    const Packet<S> v =
        padd(pmul(Constant<S>(beta2), state[1]), pmul(pmul(Constant<S>(one_minus_beta2), g), g));
    const Packet<S> root = pdiv(packet::psqrt(v), Constant<S>(root_correction));
    out->state[0] = m;
    out->state[1] = v;
    out->weights =
        packet::psub(w, pmul(Constant<S>(rate), pdiv(m, padd(root, Constant<S>(epsilon)))));
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

// The largest magnitude and `largest`; infinite or NaN, and so from then on, if one is not finite.
template <typename S>
double LargestOf(const S* values, int64_t n, double largest) {
  for (int64_t i = 0; i < n; ++i) {
    const auto magnitude = static_cast<double>(std::abs(values[i]));
    if (!(magnitude <= largest)) largest = std::isnan(largest) ? largest : magnitude;
  }
  return largest;
}

// Entries of a block as they would be after the update.
template <typename S>
struct Work {
  S weights[kBlock];
  S state[2][kBlock];
};

// `gradients` or, in `scaled`, what they are times the factor.
template <typename S>
const S* Scaled(const S* gradients, double factor, int64_t n, S* scaled) {
  if (factor == 1.0) return gradients;
  for (int64_t i = 0; i < n; ++i) {
    scaled[i] = static_cast<S>(static_cast<double>(gradients[i]) * factor);
  }
  return scaled;
}

// Calls take(j, lanes, weights before, proposal) for the packets of one block. `state` has the
// block's entries of each vector.
template <typename S, typename Rule, typename Take>
void ProposeBlock(const Rule& rule, const S* weights, const S* gradients, const S* const* state,
                  int64_t n, Take take) {
  ForPackets<S>(n, [&](int64_t j, auto lanes) {
    Packet<S> before[2];
    for (int v = 0; v < Rule::kVectors; ++v) before[v] = Load<S>(state[v] + j, lanes);
    const Packet<S> weight = Load<S>(weights + j, lanes);
    Proposal<S> out;
    rule.Propose(weight, Load<S>(gradients + j, lanes), before, &out);
    take(j, lanes, weight, out);
  });
}

// The squares of the weights before an update and of scale * their change, as rounded.
struct Squares {
  double weights = 0.0;
  double changes = 0.0;
};

// Rare: not to be in the way of the others.
template <typename S>
[[gnu::noinline, gnu::cold]] Squares ExactSquares(const S* before, const S* after, int64_t n) {
  return {SumOfSquares(before, n), SumOfSquaredDifferences(after, before, n, 1.0)};
}

// Updates one block in place. Either measures it or, in `largest`, looks for the largest magnitude
// of its weights, which may pass over NaN.
template <bool measure, typename S, typename Rule>
Squares UpdateBlock(const Rule& shared_rule, S* weights, const S* gradients, S* const* state,
                    int64_t n, double scale, Packet<S>* largest) {
  const Rule rule = shared_rule;  // No store changes this one: its constants stay in registers.
  S before[kBlock];
  Packet<S> squares = Constant<S>(0.0);
  Packet<S> changes = squares;
  ProposeBlock(rule, weights, gradients, state, n,
               [&](int64_t j, auto lanes, const Packet<S>& weight, const Proposal<S>& out) {
                 Store<S>(weights + j, out.weights, lanes);
                 for (int v = 0; v < Rule::kVectors; ++v) {
                   Store<S>(state[v] + j, out.state[v], lanes);
                 }
                 if constexpr (measure) {
                   Store<S>(before + j, weight, lanes);
                   Packet<S> change = packet::psub(out.weights, weight);
                   // No change of floats needs a scale.
                   if constexpr (std::is_same_v<S, double>) {
                     change = packet::pmul(change, Constant<S>(scale));
                   }
                   change = FirstLanes<S>(change, lanes);
                   squares = packet::pmadd(weight, weight, squares);
                   changes = packet::pmadd(change, change, changes);
                 } else {
                   const Packet<S> after = FirstLanes<S>(out.weights, lanes);
                   *largest = packet::pmax(*largest, packet::pabs(after));
                 }
               });
  if constexpr (!measure) return {};
  const S of_weights = packet::predux(squares);
  const S of_changes = packet::predux(changes);
  if constexpr (std::is_same_v<S, float>) {
    if (!Moderate(of_weights) || !Moderate(of_changes)) return ExactSquares(before, weights, n);
  }
  return {static_cast<double>(of_weights), static_cast<double>(of_changes)};
}

// Calls body(begin, size) for the blocks of `size` entries from `begin` on.
template <typename Body>
void ForBlocks(int64_t begin, int64_t size, Body&& body) {
  const int64_t end = begin + size;
  for (; begin < end; begin += kBlock) body(begin, std::min<int64_t>(kBlock, end - begin));
}

}  // namespace

int OptimizerVectorsOf(const v1::Optimizer& spec) {
  if (spec.has_adam()) return 2;
  return spec.sgd().momentum() > 0.0 ? 1 : 0;
}

template <typename S>
Optimizer<S>::Optimizer(const v1::Optimizer& spec, const std::vector<nn::Parameter>& parameters,
                        ThreadTeam* team)
    : spec_(spec), parameters_(parameters), team_(team) {
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const nn::Parameter& parameter = parameters_[p];
    weight_count_ += parameter.size;
    for (int64_t at = 0; at < parameter.size; at += stats::kChunk) {
      Chunk chunk;
      chunk.parameter = p;
      chunk.begin = parameter.offset + at;
      chunk.size = std::min(stats::kChunk, parameter.size - at);
      chunks_.push_back(chunk);
    }
  }
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

// What the rules make of the largest entries, and room for their roundings.
template <typename S>
void Optimizer<S>::FollowState(const Update& update) {
  constexpr double kRoundings = 1.0 + 1e-6;
  const double g = update.gradient_bound;
  if (spec_.has_adam()) {
    const double beta1 = spec_.adam().beta1();
    const double beta2 = spec_.adam().beta2();
    after_.state[0] = kRoundings * (beta1 * bounds_.state[0] + (1.0 - beta1) * g);
    after_.state[1] = kRoundings * (beta2 * bounds_.state[1] + (1.0 - beta2) * g * g);
  } else {
    after_.state[0] = kRoundings * (spec_.sgd().momentum() * bounds_.state[0] + g);
  }
}

template <typename S>
int Optimizer<S>::FirstNonFinite(const Update& update) {
  change_scale_ = 1.0;
  if (SurelyFinite(update)) {
    FollowState(update);
    return -1;
  }
  after_ = Bounds();
  return WithRule(update, [&](const auto& rule) { return Search(rule, update); });
}

template <typename S>
template <typename Rule>
int Optimizer<S>::Search(const Rule& rule, const Update& update) {
  Work<S> work;
  S scaled[kBlock];
  double largest_state[2] = {};
  double largest_change = 0.0;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    bool finite = true;
    ForBlocks(parameters_[p].offset, parameters_[p].size, [&](int64_t begin, int64_t n) {
      const S* state[2] = {};
      for (int v = 0; v < Rule::kVectors; ++v) state[v] = &state_[v * weight_count_ + begin];
      const S* weights = update.weights.data() + begin;
      const S* const gradients = Scaled(update.gradients.data() + begin, update.factor, n, scaled);
      ProposeBlock(rule, weights, gradients, state, n,
                   [&work](int64_t j, auto lanes, const Packet<S>&, const Proposal<S>& out) {
                     Store<S>(work.weights + j, out.weights, lanes);
                     for (int v = 0; v < Rule::kVectors; ++v) {
                       Store<S>(work.state[v] + j, out.state[v], lanes);
                     }
                   });
      finite = finite && std::isfinite(LargestOf(work.weights, n, 0.0));
      for (int v = 0; v < Rule::kVectors; ++v) {
        largest_state[v] = LargestOf(work.state[v], n, largest_state[v]);
        finite = finite && std::isfinite(largest_state[v]);
      }
      for (int64_t i = 0; i < n; ++i) {
        const double change =
            static_cast<double>(work.weights[i]) - static_cast<double>(weights[i]);
        if (std::abs(change) > largest_change) largest_change = std::abs(change);
      }
    });
    if (!finite) return static_cast<int>(p);
  }
  std::copy_n(largest_state, 2, after_.state);
  if (sizeof(S) == sizeof(double) && largest_change > 1e140) {
    change_scale_ =
        std::ldexp(1.0, -std::ilogb(std::min(largest_change, std::numeric_limits<double>::max())));
  }
  return -1;
}

template <typename S>
void Optimizer<S>::Apply(const Update& update, absl::Span<Norms> norms) {
  WithRule(update, [&](const auto& rule) { ApplyRule(rule, update); });
  Finish(update, norms);
}

template <typename S>
template <typename Rule>
void Optimizer<S>::ApplyRule(const Rule& rule, const Update& update) {
  const auto size = static_cast<int64_t>(chunks_.size());
  const auto work = [&](Range range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      ApplyToChunk(rule, update, &chunks_[static_cast<size_t>(i)]);
    }
  };
  if (team_ == nullptr || team_->threads() == 1) return work({0, size});
  team_->Run([&](int member) { work(PartOf(size, member, team_->threads())); });
}

template <typename S>
template <typename Rule>
void Optimizer<S>::ApplyToChunk(const Rule& rule, const Update& update, Chunk* chunk) {
  chunk->gradients = chunk->weights = chunk->changes = chunk->distances = 0.0;
  S scaled[kBlock];
  Packet<S> largest = Constant<S>(0.0);
  ForBlocks(chunk->begin, chunk->size, [&](int64_t begin, int64_t n) {
    S* state[2] = {};
    for (int v = 0; v < Rule::kVectors; ++v) state[v] = &state_[v * weight_count_ + begin];
    S* const weights = update.weights.data() + begin;
    const S* const gradients = Scaled(update.gradients.data() + begin, update.factor, n, scaled);
    if (update.measure_gradients) chunk->gradients += SumOfSquares(gradients, n);
    const Squares squares =
        update.measure_weights
            ? UpdateBlock<true>(rule, weights, gradients, state, n, change_scale_, &largest)
            : UpdateBlock<false>(rule, weights, gradients, state, n, change_scale_, &largest);
    chunk->weights += squares.weights;
    chunk->changes += squares.changes;
    if (!update.first_weights.empty()) {
      chunk->distances +=
          SumOfSquaredDifferences<S>(weights, update.first_weights.data() + begin, n, 1.0);
    }
  });
  chunk->largest_weight = static_cast<double>(packet::predux_max(largest));
}

template <typename S>
void Optimizer<S>::Finish(const Update& update, absl::Span<Norms> norms) {
  constexpr double kRoundings = 1.0 + 1e-5;
  double largest_weight = 0.0;
  size_t next = 0;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    double gradients = 0.0;
    double weights = 0.0;
    double changes = 0.0;
    double distances = 0.0;
    for (; next < chunks_.size() && chunks_[next].parameter == p; ++next) {
      const Chunk& chunk = chunks_[next];
      gradients += chunk.gradients;
      weights += chunk.weights;
      changes += chunk.changes;
      distances += chunk.distances;
      largest_weight = std::max(largest_weight, chunk.largest_weight);
    }
    norms[p] = Norms();
    if (update.measure_gradients) norms[p].gradient = std::sqrt(gradients);
    norms[p].distance = std::sqrt(distances);
    if (!update.measure_weights) continue;
    norms[p].weight = std::sqrt(weights);
    norms[p].change = std::sqrt(changes) / change_scale_;
    // No weight is larger than the norm.
    largest_weight = std::max(largest_weight, kRoundings * (norms[p].weight + norms[p].change));
  }
  after_.weights = largest_weight;
  bounds_ = std::isfinite(after_.state[0]) ? after_ : Bounds();
}

template class Optimizer<float>;
template class Optimizer<double>;

}  // namespace gradwatch::train
