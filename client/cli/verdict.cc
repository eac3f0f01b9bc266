#include "client/cli/verdict.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/scale.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

constexpr double kGrows = 1.02;
constexpr double kExplodesDecades = 1;
constexpr double kVanishesDecades = -2;
// As the rule EXPLODING_ABS has it.
constexpr double kExplodedNorm = 1e3;

// The growth factor in a part of the run.
struct GrowthPart {
  double growth = kNaN;
  int64_t first = 0;
  int64_t last = 0;
};

// The bucket in which it was largest.
GrowthPart LargestGrowth(const v1::QueryStatsResponse& history) {
  GrowthPart largest;
  for (const v1::FoldedStats& bucket : history.buckets()) {
    const v1::Range& growth = bucket.growth_factor();
    if (growth.count() == 0 || growth.mean() <= largest.growth) continue;
    largest = {growth.mean(), bucket.first_step(), bucket.last_step()};
  }
  return largest;
}

std::string StepNumber(int64_t step) { return GroupedNumber(static_cast<double>(step), 0); }

// "0.5 %", "one part in 10¹²": what is left after `decades`, which is below 0.
std::string PartLeft(double decades) {
  if (decades > -3) return FormatShare(std::pow(10.0, decades));
  return absl::StrCat("one part in ", PowerOfTen(static_cast<int>(std::lround(-decades))));
}

// A run that was lost to numbers that are not finite: what its norm did says more than the growth
// factor, whose last values come from the few time steps that had not underflowed.
bool JudgeLostRun(const RunFacts& facts, RunVerdict* verdict) {
  const bool lost = facts.summary.job.failure().reason() == v1::Failure::REASON_NON_FINITE &&
                    facts.digest.largest_norm_step() > 0 &&
                    LargestNorm(facts.summary) >= kExplodedNorm;
  if (!lost) return false;
  verdict->headline =
      absl::StrCat("The gradient explodes: its norm before clipping rose from ",
                   FormatNumber(facts.digest.norms().front().norm), " to ",
                   FormatNumber(LargestNorm(facts.summary)), " at step ",
                   StepNumber(facts.digest.largest_norm_step()), ", then it was not finite.");
  return true;
}

void JudgeGrowth(const RunFacts& facts, RunVerdict* verdict) {
  const double end = GrowthAtEnd(facts.summary.history);
  const int window = facts.digest.window();
  if (!(end > 0)) {
    verdict->headline = "The gradient through time was not measured";
    absl::StrAppend(&verdict->headline,
                    facts.summary.job.statistics_level() == v1::STATISTICS_LEVEL_OFF
                        ? ": the job recorded its statistics at level off."
                        : ".");
    return;
  }
  const double decades = window * std::log10(end);
  const std::string growth = absl::StrCat("growth ", FormatNumber(end), " per time step back");
  if (end > kGrows) {
    const bool explodes = decades >= kExplodesDecades;
    if (explodes) verdict->tone = RunVerdict::Tone::kBad;
    verdict->headline = absl::StrCat(
        "The gradient ", explodes ? "explodes" : "grows", " through time: ", growth,
        ", a factor of ", FormatNumber(std::pow(10.0, decades)), " over ", window, " time steps.");
  } else if (decades < kVanishesDecades) {
    verdict->tone = RunVerdict::Tone::kBad;
    verdict->headline =
        absl::StrCat("The gradient vanishes through time: ", growth, "; 1/e of it is left after ",
                     FormatNumber(HorizonOf(end, window)), " time steps and ", PartLeft(decades),
                     " after ", window, ".");
  } else {
    verdict->headline = absl::StrCat("The gradient keeps its size through time: ", growth, " over ",
                                     window, " time steps.");
  }
  const GrowthPart worst = LargestGrowth(facts.summary.history);
  if (worst.growth > kGrows && end <= kGrows) {
    verdict->sentences.push_back(
        absl::StrCat("So it is at the end of the run; at its worst, in steps ",
                     StepNumber(worst.first), " to ", StepNumber(worst.last), ", it grew by ",
                     FormatNumber(worst.growth), " per time step back."));
  }
}

void JudgeNorms(const RunFacts& facts, RunVerdict* verdict) {
  if (facts.digest.largest_norm_step() < 0) return;
  const double largest = LargestNorm(facts.summary);
  std::vector<double> norms;
  for (const NormSample& sample : facts.digest.norms()) norms.push_back(sample.norm);
  std::nth_element(norms.begin(), norms.begin() + static_cast<ptrdiff_t>(norms.size() / 2),
                   norms.end());
  const double median = norms[norms.size() / 2];
  std::string text = absl::StrCat("The largest norm before clipping, ", FormatNumber(largest),
                                  " at step ", StepNumber(facts.digest.largest_norm_step()));
  if (median > 0) {
    absl::StrAppend(&text, ", is ", FormatNumber(largest / median), " times the median of ",
                    FormatNumber(median));
  }
  verdict->sentences.push_back(absl::StrCat(text, "."));
}

void JudgeClipping(const v1::Job& job, RunVerdict* verdict) {
  verdict->sentences.push_back(
      job.has_clipping() && job.clipping().policies().empty() ? "Gradients were not clipped."
      : job.clip_rate() == 0
          ? absl::StrCat("Clipping (", DescribeClipping(job), ") never had to act.")
          : absl::StrCat("Clipping (", DescribeClipping(job), ") acted in ",
                         FormatShare(job.clip_rate()), " of the steps."));
  const int64_t unused = job.step() - job.updates_applied();
  if (unused > 0 || job.nonfinite_steps() > 0) {
    verdict->sentences.push_back(absl::StrCat(
        StepNumber(job.nonfinite_steps()), job.nonfinite_steps() == 1 ? " step was" : " steps were",
        " not finite; ", StepNumber(unused), unused == 1 ? " was skipped" : " were skipped",
        job.has_ladder() ? " or taken back." : "."));
  }
}

// The advice, where the job does something else by a factor of 2 or more. A solved task needs none:
// the small norms at its end say nothing of the way there.
void JudgeThreshold(const RunFacts& facts, RunVerdict* verdict) {
  if (!facts.advice || facts.advice->basis() == v1::ClipAdvice::BASIS_NO_DATA) return;
  if (IsSolved(facts.summary)) return;
  const double advised = facts.advice->recommended().max_norm();
  const double current = facts.advice->current().max_norm();
  constexpr double kClose = 2;
  const bool close = current > 0 && advised > 0 &&
                     std::max(current, advised) < kClose * std::min(current, advised);
  if (close || advised <= 0) return;
  verdict->sentences.push_back(absl::StrCat(
      "The norms call for a clip threshold of ", FormatNumber(advised),
      facts.advice->has_current() ? absl::StrCat(" instead of ", FormatNumber(current)) : "", "."));
}

void JudgeDirection(const RunFacts& facts, RunVerdict* verdict) {
  const StepSeries::End end = MeanAtEnd(facts.summary.history, &v1::FoldedStats::gradient_cosine);
  // As many as the rule OSCILLATION waits for.
  constexpr int64_t kEnough = 50;
  if (end.count < kEnough || !(end.mean < kOpposedCosine)) return;
  verdict->sentences.push_back(
      absl::StrCat("Successive gradients point against each other (mean cosine ",
                   FormatNumber(end.mean), " at the end): the learning rate is too large."));
}

void JudgeLayers(const RunFacts& facts, RunVerdict* verdict) {
  const std::vector<CloserLook::Layer>& layers = facts.digest.closer().layers();
  const bool relu = facts.summary.job.model().cell() == v1::Model::CELL_RNN_RELU;
  for (size_t i = 0; i < layers.size(); ++i) {
    const double slope = layers[i].slope.AtEnd().mean;
    if (slope < kSaturatedSlope) {
      verdict->sentences.push_back(
          relu ? absl::StrCat("Layer ", i, " is all but dead: ", FormatShare(slope),
                              " of its states are above 0 at the end.")
               : absl::StrCat("Layer ", i, " is saturated: the slope of its activation is ",
                              FormatNumber(slope), " of its largest at the end."));
    }
    const double similarity = layers[i].similarity.AtEnd().mean;
    if (similarity > kSameState && !IsSolved(facts.summary)) {
      verdict->sentences.push_back(absl::StrCat("The state of layer ", i,
                                                " ignores its input (similarity ",
                                                FormatNumber(similarity), " at the end)."));
    }
  }
}

// With a loss at every time step the growth factor and the map do not tell it.
void JudgeProbe(const RunFacts& facts, RunVerdict* verdict) {
  if (!facts.digest.loss_at_every_step()) return;
  const std::vector<CloserLook::LayerProbes>& layers = facts.digest.closer().probes();
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].newest || !layers[i].newest->decay_factor) continue;
    const double decay = *layers[i].newest->decay_factor;
    const auto lags = static_cast<double>(layers[i].newest->profile.size() - 1);
    if (lags * std::log10(decay) >= kVanishesDecades) continue;
    verdict->sentences.push_back(absl::StrCat(
        "Sent back from the last time step alone, the gradient of layer ", i, " fades to ",
        FormatNumber(decay), " of itself with each time step",
        layers[i].newest->horizon
            ? absl::StrCat("; a thousandth of it is left up to lag ", *layers[i].newest->horizon)
            : "",
        "."));
  }
}

void JudgeMemory(const RunFacts& facts, RunVerdict* verdict) {
  const std::vector<CloserLook::Layer>& layers = facts.digest.closer().layers();
  const int window = facts.digest.window();
  constexpr double kShort = 10;
  for (size_t i = 0; i < layers.size(); ++i) {
    const double longest = layers[i].keep_time_max.AtEnd().mean;
    if (!(longest * kShort < window)) continue;
    verdict->sentences.push_back(
        absl::StrCat("Even the unit of layer ", i, " that remembers longest keeps its state for ",
                     FormatNumber(longest), " of ", window, " time steps only."));
  }
}

void JudgeNoise(const RunFacts& facts, RunVerdict* verdict) {
  const StepSeries::End noise = facts.digest.closer().noise_scale().AtEnd();
  const int batch = facts.summary.job.training().batch_size();
  constexpr double kFar = 10;
  if (batch == 0 || !(noise.mean > kFar * batch)) return;
  verdict->sentences.push_back(absl::StrCat("The gradient is mostly noise: its noise scale is ",
                                            FormatNumber(noise.mean), " rows, a batch has ", batch,
                                            "."));
}

void JudgeAlerts(const std::vector<v1::Alert>& alerts, RunVerdict* verdict) {
  std::map<std::string, int> rules;
  for (const v1::Alert& alert : alerts) ++rules[alert.rule_name()];
  std::vector<std::string> names;
  for (const auto& [rule, count] : rules) {
    names.push_back(count == 1 ? rule : absl::StrCat(rule, " (", count, " times)"));
  }
  verdict->sentences.push_back(names.empty()
                                   ? "No rule raised an alert."
                                   : absl::StrCat("Alerts: ", absl::StrJoin(names, ", "), "."));
}

}  // namespace

RunVerdict JudgeRun(const RunFacts& facts) {
  RunVerdict verdict;
  const JobSummary& summary = facts.summary;
  if (summary.history.buckets().empty()) {
    verdict.headline =
        absl::StrCat("The job is ", StateName(summary.job.state()), " and has no steps yet.");
    return verdict;
  }
  if (!JudgeLostRun(facts, &verdict)) JudgeGrowth(facts, &verdict);
  if (summary.job.has_failure()) {
    verdict.tone = RunVerdict::Tone::kBad;
    verdict.sentences.push_back(
        absl::StrCat("The run was lost: ", DescribeFailure(summary.job.failure()), "."));
  } else if (IsSolved(summary)) {
    verdict.tone = RunVerdict::Tone::kGood;
  }
  std::string loss = LossVerdict(summary);
  loss[0] = absl::ascii_toupper(loss[0]);
  verdict.sentences.push_back(absl::StrCat(loss, "."));
  JudgeNorms(facts, &verdict);
  JudgeClipping(summary.job, &verdict);
  JudgeThreshold(facts, &verdict);
  JudgeDirection(facts, &verdict);
  JudgeLayers(facts, &verdict);
  JudgeMemory(facts, &verdict);
  JudgeProbe(facts, &verdict);
  JudgeNoise(facts, &verdict);
  JudgeAlerts(summary.alerts, &verdict);
  return verdict;
}

}  // namespace gradwatch::cli
