#include <algorithm>
#include <cmath>
#include <cstddef>

#include "server/alerts/observe.h"
#include "server/alerts/thresholds.h"

// The conditions that look at layers, clipping, updates, weights and the loss in the long run.

namespace gradwatch::alerts {
namespace {

bool HasTensors(const Context& context) {
  return context.stats.tensors_size() == std::ssize(context.layout.entries);
}

const v1::TensorStats& Tensor(const Context& context, int index) {
  return context.stats.tensors(index);
}

double Entries(const Context& context, int index) {
  return context.layout.entries[static_cast<size_t>(index)];
}

// The layer that the context's part is; null below level FULL.
const v1::LayerTimeStats* LayerOf(const Context& context) {
  return context.part < context.stats.layers_size() ? &context.stats.layers(context.part) : nullptr;
}

// How steep the function is that makes the layer's state, 0 to 1; 1 where that is not known. For
// ReLU it is the share of states above 0, which is small in layers that are sparse, too.
double SlopeOf(const Context& context) {
  const v1::LayerTimeStats* layer = LayerOf(context);
  const bool relu = context.job.model().cell() == v1::Model::CELL_RNN_RELU;
  return layer == nullptr || relu || !layer->has_activation_slope() ? 1.0
                                                                    : layer->activation_slope();
}

// Of a group: the smallest share of exact zeros in a tensor.
double SmallestZeroShare(const Context& context) {
  double smallest = 1.0;
  for (const int i : context.group().tensors) {
    const auto zeros = static_cast<double>(Tensor(context, i).zeros());
    smallest = std::min(smallest, zeros / Entries(context, i));
  }
  return smallest;
}

double GroupNorm(const Context& context) {
  double squares = 0.0;
  for (const int i : context.group().tensors) {
    squares += Tensor(context, i).norm() * Tensor(context, i).norm();
  }
  return std::sqrt(squares);
}

bool ExplodedWithin(int64_t steps, const Context& context) {
  return context.others.explosion_step >= 0 &&
         context.stats.step() - context.others.explosion_step < steps;
}

double RecentNorm(const Context& context, double q) {
  return context.baselines.norms.values().Quantile(q);
}

bool HeavyTail(const Context& context) {
  return RecentNorm(context, 0.99) > kClipLooseTail * RecentNorm(context, 0.5);
}

// The smallest threshold of global norm over the median norm; 0 without such a policy.
double ThresholdOverMedian(const Context& context) {
  const double median = RecentNorm(context, 0.5);
  double smallest = 0.0;
  for (const v1::ClipPolicy& policy : context.job.clipping().policies()) {
    if (!policy.has_global_norm()) return 0.0;
    const double threshold = policy.global_norm().max_norm();
    if (smallest == 0.0 || threshold < smallest) smallest = threshold;
  }
  return median > 0.0 ? smallest / median : 0.0;
}

// By what part of it a loss is away from the task's floor; a great one where none is known.
double AwayFromFloor(const Context& context, double loss) {
  const double floor = FloorOf(context.job.task()).loss;
  return floor > 0.0 ? std::abs(loss - floor) / floor : 1.0;
}

template <typename Factor>
WeightGrowth Largest(const Context& context, Factor factor) {
  WeightGrowth largest;
  const std::vector<WeightNorm>& weights = context.baselines.weights;
  const size_t count = std::min(weights.size(), context.layout.entries.size());
  for (size_t i = 0; i < count; ++i) {
    if (!context.layout.is_matrix[i]) continue;
    const double value = factor(weights[i], context.layout.usual_norms[i]);
    if (largest.tensor < 0 || value > largest.factor) largest = {static_cast<int>(i), value};
  }
  return largest;
}

}  // namespace

TaskFloor FloorOf(const v1::Task& task) {
  switch (task.kind_case()) {
    case v1::Task::kTemporalOrder:
      return {std::log(4.0), "chance among the four classes"};
    case v1::Task::kCopyMemory:
      return {10.0 * std::log(8.0) / (task.copy_memory().delay() + 20.0),
              "what is possible without memory"};
    case v1::Task::kForecast:
    case v1::Task::kMackeyGlass:
      return {1.0, "what answering the mean gives"};
    case v1::Task::kAdding:
      return {1.0 / 6.0, "what always answering 1 gives"};
    case v1::Task::kLanguage:
    case v1::Task::KIND_NOT_SET:
      break;
  }
  return {};
}

WeightGrowth LargestOverFirst(const Context& context) {
  return Largest(context, [](const WeightNorm& norm, double usual) {
    return norm.latest / std::max(norm.first, usual);
  });
}

WeightGrowth LargestOverPrevious(const Context& context) {
  return Largest(context, [](const WeightNorm& norm, double usual) {
    return norm.latest > usual && norm.previous > 0.0 ? norm.latest / norm.previous : 0.0;
  });
}

SpectrumGrowth LargestSpectrum(const Context& context) {
  SpectrumGrowth largest;
  const auto& spectra = context.baselines.spectra;
  for (size_t layer = 0; layer < spectra.size(); ++layer) {
    if (!(spectra[layer].first > 0.0)) continue;
    const double factor = spectra[layer].latest / spectra[layer].first;
    if (factor > largest.factor) largest = {static_cast<int>(layer), factor};
  }
  return largest;
}

Observation ObserveVanishingAbs(const Context& context) {
  const int tensor = context.group().recurrent;
  Observation seen;
  seen.known = HasTensors(context) && tensor >= 0;
  if (!seen.known) return seen;
  const double rms = Tensor(context, tensor).norm() / std::sqrt(Entries(context, tensor));
  const double limit = context.settings.threshold;
  // What exploded may saturate, and then has no gradient; that is told by other rules.
  const bool exploded = ExplodedWithin(kVanishingAfterExplosion, context);
  seen.clauses[0] = {.holds = rms < limit && !exploded,
                     .value = rms,
                     .threshold = limit,
                     .smaller_is_worse = true};
  seen.clear = rms > limit * kVanishingRmsResolve || exploded;
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveDeadLayer(const Context& context) {
  Observation seen;
  seen.known = HasTensors(context);
  if (!seen.known) return seen;
  const double norm = context.stats.norm_before();
  const double share = norm > 0.0 ? GroupNorm(context) / norm : 0.0;
  const double limit = context.settings.threshold;
  seen.clauses[0] = {
      .holds = share < limit, .value = share, .threshold = limit, .smaller_is_worse = true};
  const bool embedding = context.group().name == "embedding";
  const double zeros = embedding ? 0.0 : SmallestZeroShare(context);
  const double zeros_limit = context.settings.second_threshold;
  seen.clauses[1] = {.holds = zeros > zeros_limit, .value = zeros, .threshold = zeros_limit};
  seen.clear =
      share > limit * kDeadNormShareResolve && zeros < zeros_limit * kDeadZeroShareResolvePart;
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveClipSaturated(const Context& context) {
  const Baselines& past = context.baselines;
  Observation seen;
  seen.known = !context.job.clipping().policies().empty() && past.clip_coefficients.full();
  if (!seen.known) return seen;
  const double share = past.clipped.value();
  const double limit = context.settings.threshold;
  seen.clauses[0] = {.holds = share > limit && past.clip_coefficients.Quantile(0.5) <
                                                   context.settings.second_threshold,
                     .value = share,
                     .threshold = limit};
  seen.clear = share < limit * kClipSaturatedResolvePart;
  seen.severity =
      context.others.Fires(v1::RULE_ID_LOSS_PLATEAU) ? v1::SEVERITY_WARN : v1::SEVERITY_INFO;
  return seen;
}

Observation ObserveClipTooLoose(const Context& context) {
  const Baselines& past = context.baselines;
  Observation seen;
  seen.known = !context.job.clipping().policies().empty() &&
               past.loosely_clipped.size() >= kClipLooseSamplesMin;
  if (!seen.known) return seen;
  const double share = past.loosely_clipped.value();
  const double limit = context.settings.threshold;
  const auto window = static_cast<double>(context.settings.window_steps);
  const double spikes_per_100 = 100.0 * past.spiked.yeses() / window;
  const bool spikes = spikes_per_100 >= context.settings.second_threshold && !past.LearnsWell();
  const double over_median = ThresholdOverMedian(context);
  const bool fades = context.others.Fires(v1::RULE_ID_VANISHING_THROUGH_TIME);
  const bool stuck = context.others.Fires(v1::RULE_ID_LOSS_PLATEAU) &&
                     (HeavyTail(context) || (over_median > kClipLooseIdle && !fades));
  const bool exploded = ExplodedWithin(context.settings.window_steps, context);
  const bool trouble = exploded || spikes || stuck;
  seen.clauses[0] = {.holds = share < limit && trouble,
                     .value = share,
                     .threshold = limit,
                     .smaller_is_worse = true};
  // It acts, but only once all is lost.
  seen.clauses[1] = {.holds = over_median > kClipLooseOverMedian && exploded,
                     .value = over_median,
                     .threshold = kClipLooseOverMedian};
  seen.clear = !seen.holds() && (share > limit * kClipLooseResolve || !trouble);
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveLossPlateau(const Context& context) {
  const Baselines& past = context.baselines;
  Observation seen;
  seen.known = past.earlier_losses.full() && past.first_loss.value_or(0.0) > 0.0;
  if (!seen.known) return seen;
  const double recent = past.recent_losses.Quantile(0.5);
  const double earlier = past.earlier_losses.Quantile(0.5);
  const double ratio = earlier > 0.0 ? recent / earlier : 0.0;
  const double limit = context.settings.threshold;
  const double low = context.settings.second_threshold * *past.first_loss;
  seen.clauses[0] = {.holds = ratio > limit && recent > low, .value = ratio, .threshold = limit};
  // At the floor nothing is learnt, however it creeps.
  const double away = AwayFromFloor(context, recent);
  const bool near_floor = away < kPlateauNearFloor;
  seen.clauses[1] = {.holds = near_floor && recent > low,
                     .value = away,
                     .threshold = kPlateauNearFloor,
                     .smaller_is_worse = true};
  seen.clear = (ratio < limit - kPlateauResolveBelow &&
                away > kPlateauNearFloor * kPlateauNearFloorResolve) ||
               recent < low * kPlateauOfFirstResolvePart;
  const Others& others = context.others;
  const bool known_cause = others.Fires(v1::RULE_ID_VANISHING_THROUGH_TIME) ||
                           others.Fires(v1::RULE_ID_DEAD_LAYER) ||
                           others.Fires(v1::RULE_ID_CLIP_TOO_LOOSE);
  seen.severity = known_cause || (context.stats.step() >= kPlateauFloorFrom && near_floor)
                      ? v1::SEVERITY_WARN
                      : v1::SEVERITY_INFO;
  return seen;
}

Observation ObserveGatesStuck(const Context& context) {
  constexpr int kInput = 0, kKeep = 1, kOutput = 3;  // Of i f g o; of r z n the second keeps.
  const v1::LayerTimeStats* layer = LayerOf(context);
  Observation seen;
  seen.known = layer != nullptr && layer->gate_closed_share_size() > kKeep;
  if (!seen.known) return seen;
  const double keep = layer->gate_closed_share(kKeep);
  const double keep_limit = context.settings.threshold;
  seen.clauses[0] = {.holds = keep > keep_limit, .value = keep, .threshold = keep_limit};
  const bool lstm = layer->gate_closed_share_size() > kOutput;
  const double both =
      lstm ? std::min(layer->gate_closed_share(kInput), layer->gate_closed_share(kOutput)) : 0.0;
  const double both_limit = context.settings.second_threshold;
  seen.clauses[1] = {.holds = both > both_limit, .value = both, .threshold = both_limit};
  seen.clear = keep < keep_limit * kGatesResolvePart && both < both_limit * kGatesResolvePart;
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveDeadOrSaturatedUnits(const Context& context) {
  Observation seen;
  double share = 0.0;
  if (context.job.model().cell() == v1::Model::CELL_RNN_RELU) {
    const int bias = context.group().bias;
    seen.known = HasTensors(context) && bias >= 0;
    if (seen.known) {
      share = static_cast<double>(Tensor(context, bias).zeros()) / Entries(context, bias);
    }
  } else if (const v1::LayerTimeStats* layer = LayerOf(context); layer != nullptr) {
    seen.known = true;
    share = layer->saturated_share();
  }
  const double limit = context.settings.threshold;
  seen.clauses[0] = {.holds = share > limit, .value = share, .threshold = limit};
  const double slope = SlopeOf(context);
  const double slope_limit = context.settings.second_threshold;
  seen.clauses[1] = {.holds = slope < slope_limit,
                     .value = slope,
                     .threshold = slope_limit,
                     .smaller_is_worse = true};
  seen.clear = share < limit * kUnitsResolvePart && slope > slope_limit * kSlopeResolve;
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveUpdateRatio(const Context& context) {
  const stats::Ema& average = context.baselines.log_update_ratio;
  Observation seen;
  seen.known = context.stats.has_update_ratio() && average.count() > 0;
  if (!seen.known) return seen;
  const double ratio = std::exp(average.value());
  const double high = context.settings.threshold;
  const double low = context.settings.second_threshold;
  seen.clauses[0] = {.holds = ratio > high, .value = ratio, .threshold = high};
  seen.clauses[1] = {
      .holds = ratio < low, .value = ratio, .threshold = low, .smaller_is_worse = true};
  seen.clear = ratio < high / kUpdateRatioResolve && ratio > low * kUpdateRatioResolve;
  seen.severity = ratio > high * kUpdateRatioCritical ? v1::SEVERITY_CRIT : v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveWeightBlowup(const Context& context) {
  Observation seen;
  seen.known = !context.baselines.weights.empty();
  if (!seen.known) return seen;
  const double over_first = LargestOverFirst(context).factor;
  const double over_previous = LargestOverPrevious(context).factor;
  const double limit = context.settings.threshold;
  const double step_limit = context.settings.second_threshold;
  seen.clauses[0] = {.holds = over_first > limit, .value = over_first, .threshold = limit};
  seen.clauses[1] = {
      .holds = over_previous > step_limit, .value = over_previous, .threshold = step_limit};
  const double sigma = LargestSpectrum(context).factor;
  seen.clauses[2] = {
      .holds = sigma > kSigmaOverFirst, .value = sigma, .threshold = kSigmaOverFirst};
  seen.clear = over_first < limit * kWeightOverFirstResolvePart && over_previous < step_limit &&
               sigma < kSigmaOverFirst * kSigmaOverFirstResolvePart;
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveOscillation(const Context& context) {
  const stats::Ema& average = context.baselines.gradient_cosine;
  Observation seen;
  seen.known = context.stats.has_gradient_cosine() && average.count() > 0;
  if (!seen.known) return seen;
  const double limit = context.settings.threshold;
  // Where the loss falls all the same, the steps are as large as they can usefully be.
  seen.clauses[0] = {.holds = average.value() < limit && !context.baselines.Learns(),
                     .value = average.value(),
                     .threshold = limit,
                     .smaller_is_worse = true};
  seen.clear = average.value() > limit * kCosineResolvePart || context.baselines.Learns();
  seen.severity = v1::SEVERITY_INFO;
  return seen;
}

Observation Stall(double seconds, const Settings& settings) {
  Observation seen;
  seen.known = true;
  seen.clauses[0] = {
      .holds = seconds > settings.threshold, .value = seconds, .threshold = settings.threshold};
  seen.clear = !seen.holds();
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveStalledJob(const Context& context) { return Stall(0.0, context.settings); }

Observation ObserveUpdateSpike(const Context& context) {
  const SpikeWatch& updates = context.baselines.updates;
  const double limit = context.settings.threshold;
  const double z = context.settings.second_threshold;
  Observation seen;
  seen.known = context.stats.has_update_norm() && updates.scored();
  seen.clauses[0] = {
      .holds = updates.Count(z, limit) >= kUpdateSpikesNeeded && !context.baselines.LearnsWell(),
      .value = updates.largest().over_median,
      .threshold = limit};
  const bool spike = updates.latest().z > z && updates.latest().over_median > limit;
  seen.clear = !seen.holds() && !spike;
  seen.severity = v1::SEVERITY_INFO;
  return seen;
}

}  // namespace gradwatch::alerts
