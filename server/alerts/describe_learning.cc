#include <cmath>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/alerts/advice.h"
#include "server/alerts/describe.h"
#include "server/alerts/observe.h"
#include "server/alerts/thresholds.h"

// What alerts of the rules in observe_learning.cc say.

namespace gradwatch::alerts {
namespace {

const Clause& ClauseOf(const Observation& seen, int clause) {
  return seen.clauses[static_cast<size_t>(clause)];
}

std::string AtStep(const Context& context) {
  return absl::StrCat(" at step ", context.stats.step());
}

// " 0.25 (limit 0.2) at step 7"
std::string Measured(const Context& context, const Clause& clause) {
  return absl::StrCat(" ", Number(clause.value), " (limit ", Number(clause.threshold), ")",
                      AtStep(context));
}

std::string Parameter(const Context& context, int index) {
  return context.job.parameters(index).name();
}

// The first tensor of a group: its input weights.
std::string FirstTensor(const Context& context) {
  return Parameter(context, context.group().tensors.front());
}

// The norm that `q` of the recent steps stayed below, rounded; 0 when no norm was seen.
double NormQuantile(const Context& context, double q) {
  const stats::LogMadWindow& norms = context.baselines.norms.values();
  return norms.size() == 0 ? 0.0 : RoundDown(norms.Quantile(q));
}

std::string SmallerUpdatesAdvice(const Context& context) {
  return absl::StrCat("The updates add up or are too large: ", LowerRateAdvice(context.job),
                      Clips(context.job) ? "" : absl::StrCat("; ", ClipAdvice(context)), ".");
}

Description DescribeSpectrum(const Context& context, const Clause& sigma) {
  const int layer = LargestSpectrum(context).layer;
  Description text;
  text.tensor = absl::StrCat("rnn.weight_hh_l", layer);
  text.message =
      absl::StrCat("The weights ", text.tensor, " blow up: their largest singular value is ",
                   Number(sigma.value), " times the first that was measured (limit ",
                   Number(sigma.threshold), ")", AtStep(context), ".");
  text.advice = SmallerUpdatesAdvice(context);
  return text;
}

}  // namespace

Description DescribeVanishingAbs(const Context& context, const Observation& seen, int clause) {
  Description text;
  text.tensor = Parameter(context, context.group().recurrent);
  text.message = absl::StrCat("Hardly any gradient in ", text.tensor,
                              ": the root mean square of its entries is",
                              Measured(context, ClauseOf(seen, clause)), ".");
  text.advice = absl::StrCat("Clipping cannot help. ", VanishingAdvice(context.job),
                             " Look for dead or saturated units (statistics_level "
                             "STATISTICS_LEVEL_FULL) and at the scale of the loss.");
  return text;
}

Description DescribeDeadLayer(const Context& context, const Observation& seen, int clause) {
  const Clause& share = ClauseOf(seen, clause);
  const std::string& name = context.group().name;
  Description text;
  text.tensor = FirstTensor(context);
  text.message =
      clause == 0
          ? absl::StrCat("No gradient reaches ", name, ": its share of the norm is",
                         Measured(context, share), ".")
          : absl::StrCat("No gradient reaches most of ", name, ": the share of exact zeros in its ",
                         "gradient is", Measured(context, share), ".");
  const bool relu = context.job.model().cell() == v1::Model::CELL_RNN_RELU;
  text.advice =
      absl::StrCat(relu ? "Its units have died: " : "What follows it is saturated or cut off: ",
                   LowerRateAdvice(context.job), "; for a new job, ",
                   RecurrentWeightsAdvice(context.job), ", or fewer model.layers.");
  return text;
}

Description DescribeClipSaturated(const Context& context, const Observation& seen, int clause) {
  const double coefficient = context.baselines.clip_coefficients.Quantile(0.5);
  const double rate = context.stats.learning_rate();
  const double median = NormQuantile(context, 0.5);
  Description text;
  text.message = absl::StrCat(
      "Nearly every step is clipped, and hard: of the last ", context.settings.window_steps,
      " the share is", Measured(context, ClauseOf(seen, clause)), ", the median coefficient ",
      Number(coefficient), ", so the rate in effect is about ", Number(rate * coefficient),
      " instead of ", Number(rate), ".");
  text.advice =
      "A run may well learn like this, with updates of one length; then the learning rate "
      "is what to tune.";
  if (median > 0.0) {
    absl::StrAppend(&text.advice, " Otherwise raise the threshold to the median of the norms: ",
                    ClipAt(context.job, median), ".");
  }
  return text;
}

Description DescribeClipTooLoose(const Context& context, const Observation& seen, int clause) {
  const double median = NormQuantile(context, 0.5);
  const double low = NormQuantile(context, 0.1);
  Description text;
  text.message = absl::StrCat(
      clause == 1 ? "The clip threshold acts only once all is lost: over the median of "
                    "the norms it is"
                  : "The clip threshold hardly ever acts: the share of clipped steps is",
      Measured(context, ClauseOf(seen, clause)), ", while the ",
      context.others.Fires(v1::RULE_ID_LOSS_PLATEAU) ? "loss does not fall."
                                                     : "gradient explodes or spikes.");
  if (median > 0.0) {
    text.advice =
        absl::StrCat("Try the median of the recent norms first: ", ClipAt(context.job, median),
                     low > 0.0 && low < median
                         ? absl::StrCat("; then what a tenth of them stays below, ", Number(low))
                         : "",
                     ".");
  }
  return text;
}

Description DescribeLossPlateau(const Context& context, const Observation& seen, int clause) {
  const Clause& ratio = seen.clauses[0];
  const double recent = context.baselines.recent_losses.Quantile(0.5);
  const int half = context.baselines.recent_losses.capacity();
  const TaskFloor floor = FloorOf(context.job.task());
  Description text;
  text.message = absl::StrCat(
      clause == 0 ? "The loss no longer falls" : "Nothing of the task's memory is learnt",
      ": the median of the last ", half, " steps is ", Number(recent), ", ", Number(ratio.value),
      " times that of the ", half, " before (limit ", Number(ratio.threshold), ")", AtStep(context),
      ".");
  if (seen.clauses[1].value < seen.clauses[1].threshold) {
    absl::StrAppend(&text.message, " That is ", floor.words, " (", Number(floor.loss),
                    clause == 0 ? "): nothing of the task's memory is learnt." : ").");
  }
  text.advice =
      context.others.Fires(v1::RULE_ID_VANISHING_THROUGH_TIME)
          ? absl::StrCat("The gradient fades through time. ", VanishingAdvice(context.job))
          : absl::StrCat("Try another rate: ",
                         RateAt(context.job, context.job.optimizer().learning_rate() / 2),
                         ", or for a new job optimizer.warmup_cosine", GatedAdvice(context.job),
                         ".");
  return text;
}

Description DescribeGatesStuck(const Context& context, const Observation& seen, int clause) {
  const Clause& share = ClauseOf(seen, clause);
  const bool lstm = context.job.model().cell() == v1::Model::CELL_LSTM;
  const int layer = context.group().layer;
  Description text;
  text.tensor = absl::StrCat(clause == 1 ? "i" : lstm ? "f" : "z", "_l", layer);
  text.message = absl::StrCat(
      clause == 1 ? "Input and output gates"
      : lstm      ? "Forget gates"
                  : "Update gates",
      " of layer ", layer, " are closed: the share of their values below 0.05 is",
      Measured(context, share),
      clause == 1 ? ", so that little gets in or out." : ", so that the state is lost at once.");
  text.advice =
      lstm && clause == 0
          ? "For a new job, model.initialization.forget_gate_bias 1 or more, or smaller "
            "model.initialization.input_weights; look at the scale of the input."
          : "For a new job, smaller model.initialization.input_weights and recurrent_weights; look "
            "at the scale of the input.";
  return text;
}

Description DescribeDeadOrSaturatedUnits(const Context& context, const Observation& seen,
                                         int clause) {
  const bool relu = context.job.model().cell() == v1::Model::CELL_RNN_RELU;
  const int layer = context.group().layer;
  Description text;
  text.tensor = absl::StrCat("h_l", layer);
  text.message =
      clause == 1 ? absl::StrCat(
                        "Layer ", layer, " is saturated: the slope of the function that makes its ",
                        "state, over that at 0, is", Measured(context, ClauseOf(seen, clause)),
                        "; hardly any gradient passes it.")
      : relu ? absl::StrCat("Units of layer ", layer, " are dead: the share that is 0 for a whole ",
                            "batch is", Measured(context, ClauseOf(seen, clause)), ".")
             : absl::StrCat("Units of layer ", layer, " are saturated: the share of states beyond ",
                            "0.99 is", Measured(context, ClauseOf(seen, clause)),
                            "; hardly any gradient passes them.");
  text.advice =
      absl::StrCat("First, ", LowerRateAdvice(context.job), "; for a new job, ",
                   RecurrentWeightsAdvice(context.job),
                   " and smaller model.initialization.input_weights; look at the scale of the "
                   "input.");
  return text;
}

Description DescribeUpdateRatio(const Context& context, const Observation& seen, int clause) {
  const Clause& ratio = ClauseOf(seen, clause);
  const double rate = context.job.optimizer().learning_rate();
  Description text;
  text.message = absl::StrCat("Updates are too ", clause == 0 ? "large" : "small",
                              " for the weights: update norm over weight norm, the median over the "
                              "matrices and averaged, is",
                              Measured(context, ratio), ".");
  text.advice = absl::StrCat(
      "About ", Number(kUpdateRatioUsual), " is usual: ", clause == 0 ? "lower " : "raise ",
      RateAt(context.job, RoundDown(rate * kUpdateRatioUsual / ratio.value)), ".");
  return text;
}

Description DescribeWeightBlowup(const Context& context, const Observation& seen, int clause) {
  if (clause == 2) return DescribeSpectrum(context, ClauseOf(seen, clause));
  const WeightGrowth growth =
      clause == 0 ? LargestOverFirst(context) : LargestOverPrevious(context);
  Description text;
  text.tensor = Parameter(context, growth.tensor);
  const double norm = context.baselines.weights[static_cast<size_t>(growth.tensor)].latest;
  text.message = absl::StrCat("The weights ", text.tensor, " blow up: their norm ", Number(norm),
                              " is ", Number(ClauseOf(seen, clause).value), " times that ",
                              clause == 0 ? "at the start" : "of the step before", " (limit ",
                              Number(ClauseOf(seen, clause).threshold), ")", AtStep(context), ".");
  text.advice = SmallerUpdatesAdvice(context);
  return text;
}

Description DescribeOscillation(const Context& context, const Observation& seen, int clause) {
  Description text;
  text.message = absl::StrCat(
      "Successive gradients point against each other: the cosine between them, averaged, is",
      Measured(context, ClauseOf(seen, clause)), ".");
  text.advice = absl::StrCat(
      "Each step overshoots what the one before overshot: ", LowerRateAdvice(context.job), ".");
  return text;
}

Description DescribeStalledJob(const Context& context, const Observation& seen, int clause) {
  const Clause& seconds = ClauseOf(seen, clause);
  Description text;
  text.message = absl::StrCat("No step has ended for ", Number(seconds.value), " s (limit ",
                              Number(seconds.threshold), " s); the job waits for step ",
                              context.stats.step(), ".");
  text.advice = absl::StrCat(
      "Look whether the machine is out of cores (gradwatch list), or whether one step is that long "
      "(model.hidden_units, training.batch_size, evaluation.examples); gradwatch cancel ",
      JobId(context.job), " ends it at the next step.");
  return text;
}

Description DescribeUpdateSpike(const Context& context, const Observation& seen, int clause) {
  const Clause& over_median = ClauseOf(seen, clause);
  const SpikeWatch& updates = context.baselines.updates;
  Description text;
  text.message = absl::StrCat(
      updates.Count(context.settings.second_threshold, over_median.threshold), " of the last ",
      kSpikeWindow, " updates were far above the recent ones for their learning rate: up to ",
      Number(over_median.value), " times the median (limit ", Number(over_median.threshold), ")",
      AtStep(context), ". Loss and gradient may follow.");
  text.advice = absl::StrCat("If the loss rises next, ", LowerRateAdvice(context.job),
                             Clips(context.job) ? "" : absl::StrCat(", or ", ClipAdvice(context)),
                             ". Look at the data of this step, which begins at batch_origin ",
                             context.stats.batch_origin(), ".");
  return text;
}

}  // namespace gradwatch::alerts
