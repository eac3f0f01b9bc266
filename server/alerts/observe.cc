#include "server/alerts/observe.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/alerts/thresholds.h"

namespace gradwatch::alerts {
namespace {

// Levels a logarithm that could not be taken.
constexpr double kTiny = 1e-30;

// Least-squares slope of ln rms against the time step, over the second half.
double SecondHalfSlope(const google::protobuf::RepeatedField<float>& rms) {
  const int time_steps = rms.size();
  if (time_steps < kSurgeTimeStepsMin) return 0.0;
  const int begin = time_steps / 2;
  const double middle = (begin + time_steps - 1) / 2.0;
  double products = 0.0;
  double squares = 0.0;
  for (int t = begin; t < time_steps; ++t) {
    products += (t - middle) * std::log(std::max(static_cast<double>(rms[t]), kTiny));
    squares += (t - middle) * (t - middle);
  }
  return products / squares;
}

std::vector<StateRun> Runs(const v1::StepStats& stats) {
  std::vector<StateRun> runs;
  const auto add = [&runs](const char* state, int layer, const auto& rms) {
    if (rms.empty()) return;
    runs.push_back({absl::StrCat(state, "_l", layer), SecondHalfSlope(rms), rms[rms.size() - 1]});
  };
  for (const v1::LayerTimeStats& layer : stats.layers()) {
    add("h", layer.layer(), layer.hidden_rms());
    add("c", layer.layer(), layer.cell_rms());
  }
  return runs;
}

bool Steeper(const StateRun& a, const StateRun& b) {
  const bool a_large = a.rms_end > kSurgeRmsFloor;
  const bool b_large = b.rms_end > kSurgeRmsFloor;
  return a_large != b_large ? a_large : a.slope > b.slope;
}

StateRun Steepest(const std::vector<StateRun>& runs) {
  StateRun steepest;
  for (const StateRun& run : runs) {
    if (steepest.name.empty() || Steeper(run, steepest)) steepest = run;
  }
  return steepest;
}

// The growth factor's moving average as a logarithm to base 10, and over how many time steps.
struct Trend {
  double log10_growth;
  int window;
};

Trend GrowthTrend(const Context& context, const stats::Ema& log_growth) {
  return {log_growth.value() / std::log(10.0), std::max(1, context.stats.growth().window())};
}

}  // namespace

StateRun SteepestRun(const v1::StepStats& stats) { return Steepest(Runs(stats)); }

Observation ObserveNonFinite(const Context& context) {
  const auto in_a_row = static_cast<double>(context.baselines.nonfinite_in_a_row);
  Observation seen;
  seen.known = true;
  seen.clauses[0] = {
      .holds = in_a_row > kNonFiniteSteps, .value = in_a_row, .threshold = kNonFiniteSteps};
  seen.clear = !seen.holds();
  seen.severity = v1::SEVERITY_CRIT;
  return seen;
}

Observation ObserveExplodingAbs(const Context& context) {
  const double norm = context.stats.norm_before();
  const double limit = context.settings.threshold;
  const bool clips = !context.job.clipping().policies().empty();
  Observation seen;
  seen.known = !std::isnan(norm);
  seen.clauses[0] = {.holds = norm > limit, .value = norm, .threshold = limit};
  seen.clear = norm < limit * kNormResolvePart;
  seen.severity = clips ? v1::SEVERITY_WARN : v1::SEVERITY_CRIT;
  return seen;
}

Observation ObserveLossDivergence(const Context& context) {
  const Baselines& past = context.baselines;
  Observation seen;
  seen.known = past.first_loss.value_or(0.0) > 0.0;
  if (!seen.known) return seen;
  const double first = *past.first_loss;
  const double loss = context.stats.loss();
  const double average = past.loss_ema.value();
  const double best = std::max(past.best_loss_ema, kBestFloorPart * first);
  const double limit = context.settings.threshold * first;
  seen.clauses[0] = {.holds = loss > limit, .value = loss, .threshold = limit};
  const double average_limit = context.settings.second_threshold * best;
  seen.clauses[1] = {.holds = average > average_limit,
                     .value = average,
                     .threshold = average_limit,
                     .for_factor = kEmaForFactor};
  seen.clear = average < kEmaOverBestResolvePart * average_limit && loss < limit;
  const bool relapse = !seen.clauses[0].holds && average < first;
  seen.severity = relapse ? v1::SEVERITY_WARN : v1::SEVERITY_CRIT;
  return seen;
}

Observation ObserveExplodingRel(const Context& context) {
  const SpikeWatch& norms = context.baselines.norms;
  const double limit = context.settings.threshold;
  const double over_median = context.settings.second_threshold;
  Observation seen;
  seen.known = norms.scored();
  seen.clauses[0] = {
      .holds = norms.Count(limit, over_median) >= kSpikesNeeded && !context.baselines.LearnsWell(),
      .value = norms.largest().z,
      .threshold = limit};
  const bool spike = norms.latest().z > limit && norms.latest().over_median > over_median;
  const bool unclipped = spike && !context.stats.clipped();
  seen.clauses[1] = {.holds = unclipped && !context.baselines.LearnsWell(),
                     .value = norms.latest().z,
                     .threshold = limit,
                     .event = true};
  seen.clear = !seen.holds() && !spike;
  // What was clipped did little harm.
  seen.severity = seen.clauses[0].holds && unclipped ? v1::SEVERITY_WARN : v1::SEVERITY_INFO;
  return seen;
}

Observation ObserveRecurrentExpansion(const Context& context) {
  Observation seen;
  seen.known = context.stats.has_growth() && context.baselines.log_growth.count() > 0;
  if (!seen.known) return seen;
  const Trend trend = GrowthTrend(context, context.baselines.log_growth);
  const double growth = std::pow(10.0, trend.log10_growth);
  const double decades_limit = context.settings.second_threshold;
  const double least = std::min(kExpansionDecadesMin, decades_limit);
  // `least` is at most `decades_limit`, so that only what is below both is held against both.
  double limit = std::min(context.settings.threshold, std::pow(10.0, decades_limit / trend.window));
  if (limit == context.settings.threshold) {
    limit = std::max(limit, std::pow(10.0, least / trend.window));
  }
  const double decades = trend.window * trend.log10_growth;
  seen.clauses[0] = {.holds = growth > limit, .value = growth, .threshold = limit};
  const double calm =
      std::min(kGrowthResolve, 1.0 + kGrowthResolvePart * (context.settings.threshold - 1.0));
  seen.clear =
      decades < kExpansionDecadesResolvePart * decades_limit &&
      (growth < calm || growth < std::pow(10.0, kGrowthResolvePart * least / trend.window));
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

Observation ObserveVanishingThroughTime(const Context& context) {
  Observation seen;
  seen.known = context.stats.has_growth() && context.baselines.log_vanishing.count() > 0;
  if (!seen.known) return seen;
  const Trend trend = GrowthTrend(context, context.baselines.log_vanishing);
  const double decades = trend.window * trend.log10_growth;
  const double limit = context.settings.threshold;
  const bool long_enough = trend.window >= kVanishingWindowMin;
  seen.clauses[0] = {.holds = long_enough && decades < limit,
                     .value = decades,
                     .threshold = limit,
                     .smaller_is_worse = true};
  seen.clear = decades > limit * kVanishingResolvePart;
  seen.severity =
      context.others.Fires(v1::RULE_ID_LOSS_PLATEAU) ? v1::SEVERITY_WARN : v1::SEVERITY_INFO;
  return seen;
}

Observation ObserveHiddenGrowth(const Context& context) {
  Observation seen;
  seen.known = !context.stats.layers().empty();
  if (!seen.known) return seen;
  const int time_steps = std::max(1, context.stats.layers(0).hidden_rms_size());
  const double limit = std::max(context.settings.threshold, kSurgeSlopeTimesT / time_steps);
  const std::vector<StateRun> runs = Runs(context.stats);
  const StateRun steepest = Steepest(runs);
  seen.clauses[0] = {.holds = steepest.slope > limit && steepest.rms_end > kSurgeRmsFloor,
                     .value = steepest.slope,
                     .threshold = limit};
  double largest = 0.0;
  for (const v1::LayerTimeStats& layer : context.stats.layers()) {
    largest = std::max(largest, layer.hidden_max_abs());
  }
  const double largest_limit = context.settings.second_threshold;
  seen.clauses[1] = {
      .holds = largest > largest_limit, .value = largest, .threshold = largest_limit};
  seen.clear = largest < largest_limit * kSurgeLargestResolvePart &&
               std::all_of(runs.begin(), runs.end(), [limit](const StateRun& run) {
                 return run.slope < limit * kSurgeSlopeResolvePart ||
                        run.rms_end < kSurgeRmsFloor * kSurgeRmsFloorResolvePart;
               });
  seen.severity = v1::SEVERITY_WARN;
  return seen;
}

}  // namespace gradwatch::alerts
