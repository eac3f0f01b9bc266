#include "server/alerts/describe.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/alerts/advice.h"
#include "server/alerts/observe.h"
#include "server/alerts/thresholds.h"

namespace gradwatch::alerts {
namespace {

// The parameter with the largest gradient norm, -1 below level BASIC.
int LargestTensor(const v1::StepStats& stats) {
  int largest = -1;
  for (int i = 0; i < stats.tensors_size(); ++i) {
    if (largest < 0 || stats.tensors(i).norm() > stats.tensors(largest).norm()) largest = i;
  }
  return largest;
}

std::string ParameterName(const v1::Job& job, int index) {
  return index >= 0 && index < job.parameters_size() ? job.parameters(index).name() : "";
}

// The recurrent weights of the layer whose growth factor is the headline.
std::string RecurrentWeights(const Context& context) {
  for (const v1::ParameterInfo& parameter : context.job.parameters()) {
    if (parameter.recurrent() && parameter.layer() == context.stats.growth().layer()) {
      return parameter.name();
    }
  }
  return "";
}

std::string LargestTensorText(const Context& context, std::string* name) {
  const int largest = LargestTensor(context.stats);
  *name = ParameterName(context.job, largest);
  if (name->empty()) return "";
  return absl::StrCat("; largest in ", *name, " (", Number(context.stats.tensors(largest).norm()),
                      ")");
}

Description DescribeSpike(const Context& context, const Clause& z) {
  const SpikeWatch& norms = context.baselines.norms;
  const v1::StepStats& stats = context.stats;
  Description text;
  const std::string largest = LargestTensorText(context, &text.tensor);
  text.message =
      absl::StrCat("A single spike: gradient norm ", Number(stats.norm_before()), " at step ",
                   stats.step(), ", ", Number(norms.latest().over_median),
                   " times the recent median ", Number(norms.values().median()), " (robust z ",
                   Number(z.value), ", limit ", Number(z.threshold), ")", largest, ".");
  if (Clips(context.job)) text.message += " It was not clipped.";
  text.advice = absl::StrCat(
      "Nothing, unless more follow. The data of this step begins at "
      "batch_origin ",
      stats.batch_origin(), ": gradwatch batch ", JobId(context.job), " ", stats.step(),
      " shows it.");
  return text;
}

}  // namespace

Description DescribeNonFinite(const Context& context, const Observation& seen, int clause) {
  const v1::StepStats& stats = context.stats;
  const v1::NonFiniteOrigin& origin = stats.nonfinite_origin();
  Description text;
  text.tensor = origin.tensor();
  if (origin.has_time_step()) text.time_step = origin.time_step();
  text.message = absl::StrCat("NaN or infinity at step ", stats.step());
  if (!origin.tensor().empty()) absl::StrAppend(&text.message, ", first in ", origin.tensor());
  if (origin.has_layer()) absl::StrAppend(&text.message, " of layer ", origin.layer());
  if (origin.has_time_step()) {
    absl::StrAppend(&text.message, " at time step ", origin.time_step());
  }
  absl::StrAppend(&text.message, "; ", stats.nonfinite_count(),
                  " gradient entries are not finite, steps of this kind in a row: ",
                  Number(seen.clauses[static_cast<size_t>(clause)].value));
  if (stats.has_last_finite_norm()) {
    absl::StrAppend(&text.message, ", last finite norm ", Number(stats.last_finite_norm()));
  }
  absl::StrAppend(&text.message,
                  stats.skipped() ? ". The update was skipped." : ". The update was applied.");
  const std::string rate = LowerRateAdvice(context.job);
  text.advice = Clips(context.job)
                    ? absl::StrCat("To go on, ", rate, ", or lower the max_norm of ",
                                   "clipping.policies. The job fails after ",
                                   context.job.training().non_finite().consecutive_max(),
                                   " such steps in a row (training.non_finite.consecutive_max).")
                    : absl::StrCat("Nothing bounds the gradient: ", ClipAdvice(context),
                                   " before the weights are lost, or ", rate, ".");
  return text;
}

Description DescribeExplodingAbs(const Context& context, const Observation& seen, int clause) {
  const Clause& norm = seen.clauses[static_cast<size_t>(clause)];
  Description text;
  const std::string largest = LargestTensorText(context, &text.tensor);
  text.message =
      absl::StrCat("Gradient norm ", Number(norm.value), " passed ", Number(norm.threshold),
                   " at step ", context.stats.step(), largest, ".");
  if (Clips(context.job)) {
    const v1::StepStats& stats = context.stats;
    if (stats.has_norm_after()) {
      absl::StrAppend(&text.message, " Clipping left ", Number(stats.norm_after()), ".");
    }
    text.advice = absl::StrCat(
        "Clipping bounds the update, the cause remains: ", LowerRateAdvice(context.job),
        "; for a new job, ", RecurrentWeightsAdvice(context.job), GatedAdvice(context.job), ".");
  } else {
    text.message += " Clipping is off.";
    text.advice = absl::StrCat("Bound it now: ", ClipAdvice(context), ". For a new job, ",
                               RecurrentWeightsAdvice(context.job), GatedAdvice(context.job), ".");
  }
  return text;
}

Description DescribeLossDivergence(const Context& context, const Observation& seen, int clause) {
  const Clause& loss = seen.clauses[static_cast<size_t>(clause)];
  const double first = context.baselines.first_loss.value_or(0.0);
  const bool relapse = seen.severity == v1::SEVERITY_WARN;
  Description text;
  if (clause == 0) {
    text.message =
        absl::StrCat("Loss ", Number(loss.value), " at step ", context.stats.step(), " is above ",
                     Number(loss.threshold), ", ", Number(context.settings.threshold),
                     " times the first loss ", Number(first), ".");
  } else {
    text.message = absl::StrCat(
        relapse ? "Relapse: the" : "The", " loss's moving average ", Number(loss.value),
        " at step ", context.stats.step(), " is above ", Number(loss.threshold), "; its best was ",
        Number(context.baselines.best_loss_ema), ", the first loss ", Number(first), ".");
  }
  text.advice = Clips(context.job) ? absl::StrCat("The rate is too high for this stretch: ",
                                                  LowerRateAdvice(context.job), ".")
                                   : absl::StrCat("Bound the gradient: ", ClipAdvice(context),
                                                  "; or ", LowerRateAdvice(context.job), ".");
  return text;
}

Description DescribeExplodingRel(const Context& context, const Observation& seen, int clause) {
  const Clause& z = seen.clauses[static_cast<size_t>(clause)];
  if (z.event) return DescribeSpike(context, z);
  const SpikeWatch& norms = context.baselines.norms;
  Description text;
  const std::string largest = LargestTensorText(context, &text.tensor);
  text.message =
      absl::StrCat(norms.Count(z.threshold, context.settings.second_threshold), " of the last ",
                   kSpikeWindow, " steps had a gradient norm far above the recent ", "median ",
                   Number(norms.values().median()), " (robust z up to ", Number(z.value),
                   ", limit ", Number(z.threshold), "); ", Number(context.stats.norm_before()),
                   " at step ", context.stats.step(), largest, ".");
  text.advice =
      absl::StrCat(Clips(context.job)
                       ? absl::StrCat("Clipping bounds these steps. If the loss jumps with them, ",
                                      LowerRateAdvice(context.job),
                                      ", or lower the max_norm of clipping.policies")
                       : absl::StrCat("Bound them: ", ClipAdvice(context)),
                   ". Look at the data of this step, which begins at batch_origin ",
                   context.stats.batch_origin(), ".");
  return text;
}

Description DescribeRecurrentExpansion(const Context& context, const Observation& seen,
                                       int clause) {
  const Clause& growth = seen.clauses[static_cast<size_t>(clause)];
  const int window = context.stats.growth().window();
  Description text;
  text.tensor = RecurrentWeights(context);
  text.message = absl::StrCat("The gradient grows by a factor of ", Number(growth.value),
                              " per time step backwards in ", "layer ",
                              context.stats.growth().layer(), " (limit ", Number(growth.threshold),
                              "), ", Number(std::pow(growth.value, window)), " over ", window,
                              " time steps, at step ", context.stats.step(), ".");
  text.advice = absl::StrCat(
      "An explosion is likely", Clips(context.job) ? "" : absl::StrCat(": ", ClipAdvice(context)),
      ". For a new job, ", RecurrentWeightsAdvice(context.job), ", a training.truncation below ",
      window, GatedAdvice(context.job), ".");
  return text;
}

Description DescribeVanishingThroughTime(const Context& context, const Observation& seen,
                                         int clause) {
  const Clause& decades = seen.clauses[static_cast<size_t>(clause)];
  const v1::GrowthStats& growth = context.stats.growth();
  Description text;
  text.tensor = RecurrentWeights(context);
  text.message = absl::StrCat("Over ", growth.window(), " time steps the gradient changes by ",
                              Number(decades.value), " decades (limit ", Number(decades.threshold),
                              ") at step ", context.stats.step());
  if (growth.has_horizon()) {
    absl::StrAppend(&text.message, "; it fades to 1/e within ", Number(growth.horizon()),
                    " time steps");
  }
  if (growth.has_underflow_at_lag()) {
    absl::StrAppend(&text.message, " and is below 1e-30 from lag ", growth.underflow_at_lag());
  }
  text.message += ": what lies further back is hardly learnt, if at all.";
  text.advice = absl::StrCat("Clipping cannot help. ", VanishingAdvice(context.job));
  return text;
}

Description DescribeHiddenGrowth(const Context& context, const Observation& seen, int clause) {
  const Clause& growth = seen.clauses[static_cast<size_t>(clause)];
  const StateRun run = SteepestRun(context.stats);
  Description text;
  text.tensor = run.name;
  if (clause == 0) {
    text.message = absl::StrCat("State ", run.name, " surges along the sequence: ln RMS rises by ",
                                Number(growth.value), " per time step (limit ",
                                Number(growth.threshold), ") to an RMS of ", Number(run.rms_end),
                                " at step ", context.stats.step(), ".");
  } else {
    text.message = absl::StrCat("A state reaches ", Number(growth.value), " at step ",
                                context.stats.step(), " (limit ", Number(growth.threshold),
                                "); the RMS of ", run.name, " ends at ", Number(run.rms_end), ".");
  }
  const v1::Job& job = context.job;
  const bool relu = job.model().cell() == v1::Model::CELL_RNN_RELU;
  const double scale = job.model().initialization().recurrent_weights().identity_scale();
  text.advice =
      relu && scale >= 1.0
          ? absl::StrCat("For a new job, model.initialization.recurrent_weights.identity_scale ",
                         "0.99 instead of ", Number(scale), GatedAdvice(job), "; now, ",
                         LowerRateAdvice(job), ".")
          : absl::StrCat("For a new job, ", RecurrentWeightsAdvice(job), GatedAdvice(job),
                         "; now, ", LowerRateAdvice(job), ".");
  return text;
}

}  // namespace gradwatch::alerts
