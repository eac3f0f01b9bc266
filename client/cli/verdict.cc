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
  const int64_t skipped = job.step() - job.updates_applied();
  if (skipped > 0 || job.nonfinite_steps() > 0) {
    verdict->sentences.push_back(absl::StrCat(
        StepNumber(job.nonfinite_steps()), job.nonfinite_steps() == 1 ? " step was" : " steps were",
        " not finite; ", StepNumber(skipped), skipped == 1 ? " was skipped." : " were skipped."));
  }
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
  JudgeAlerts(summary.alerts, &verdict);
  return verdict;
}

}  // namespace gradwatch::cli
