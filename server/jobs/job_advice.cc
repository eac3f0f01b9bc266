#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "proto/support/errors.h"
#include "server/base/check.h"
#include "server/base/status.h"
#include "server/clip/clip_advice.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/shadow_summary.h"
#include "server/stats/gradient_stats.h"

// Advice on the clip threshold, from what history keeps.

namespace gradwatch::jobs {
namespace {

constexpr int kPortionSteps = 4096;

// What one step says about the norm.
struct Observed {
  int64_t step;
  double norm;
  bool clipped;
  bool finite() const { return std::isfinite(norm); }
};

absl::Status CheckRequest(const v1::GetClipAdviceRequest& request) {
  std::vector<FieldViolation> violations;
  if (request.has_steps() &&
      (request.steps() < clip::kAdviceStepsMin || request.steps() > clip::kAdviceStepsMax)) {
    violations.push_back(
        {"steps", absl::StrCat(request.steps(), " is not allowed; allowed: ", clip::kAdviceStepsMin,
                               " to ", clip::kAdviceStepsMax)});
  }
  if (request.thresholds_size() > clip::kAdviceThresholdsMax) {
    violations.push_back(
        {"thresholds", absl::StrCat("has ", request.thresholds_size(), " entries; at most ",
                                    clip::kAdviceThresholdsMax, " are allowed")});
  }
  for (int i = 0; i < request.thresholds_size(); ++i) {
    const double threshold = request.thresholds(i);
    if (std::isfinite(threshold) && threshold > 0.0) continue;
    violations.push_back({absl::StrCat("thresholds[", i, "]"),
                          absl::StrCat(threshold,
                                       " is not allowed; allowed: finite numbers above "
                                       "0")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

// Calls `see` for every kept step from `from` on, up to the newest there is now.
template <typename See>
void ForEachKept(const StepLog& log, int64_t from, See see) {
  const int64_t newest = log.newest_step();
  int64_t next = std::max(from, log.oldest_step());
  while (next <= newest) {
    const auto records = log.Read(next, kPortionSteps, std::numeric_limits<int64_t>::max());
    if (!records.ok()) {
      next = log.oldest_step();  // Forgotten meanwhile.
      continue;
    }
    if (records->empty()) return;
    for (const StepRecord* record : *records) see(*record);
    next = records->back()->step + 1;
  }
}

clip::NormHistory HistoryOf(absl::Span<const Observed> steps) {
  clip::NormHistory history;
  if (steps.empty()) return history;
  history.first_step = steps.front().step;
  history.last_step = steps.back().step;
  for (const Observed& step : steps) {
    if (step.finite()) {
      history.norms.push_back(step.norm);
    } else {
      ++history.nonfinite_steps;
    }
    history.clipped_steps += step.clipped ? 1 : 0;
  }
  return history;
}

// The newest steps, of which at most `finite_max` are finite.
absl::Span<const Observed> Newest(absl::Span<const Observed> steps, int64_t finite_max) {
  size_t begin = steps.size();
  int64_t finite = 0;
  while (begin > 0 && finite < finite_max) finite += steps[--begin].finite() ? 1 : 0;
  return steps.subspan(begin);
}

bool TellsOfExplosion(const v1::Alert& alert, const clip::NormHistory& window) {
  const bool rule = alert.rule() == v1::RULE_ID_EXPLODING_ABS ||
                    alert.rule() == v1::RULE_ID_LOSS_DIVERGENCE ||
                    (alert.rule() == v1::RULE_ID_EXPLODING_REL && !alert.single_event());
  const bool ended = alert.state() == v1::Alert::STATE_RESOLVED;
  return rule && alert.firing_step() <= window.last_step &&
         (!ended || alert.resolved_step() >= window.first_step);
}

clip::EntryMagnitudes NoMagnitudes() {
  clip::EntryMagnitudes magnitudes;
  for (int bin = 0; bin < stats::kHistogramBins; ++bin) {
    magnitudes.bins.push_back({stats::BinEdge(bin + 1), 0.0});
  }
  return magnitudes;
}

bool StandsStill(const v1::Alert& alert, const clip::NormHistory& window) {
  return alert.rule() == v1::RULE_ID_LOSS_PLATEAU && alert.firing_step() <= window.last_step &&
         (alert.state() == v1::Alert::STATE_FIRING ||
          alert.resolve_reason() == v1::Alert::RESOLVE_REASON_JOB_ENDED);
}

void AddMagnitudes(const v1::StepStats& stats, clip::EntryMagnitudes* magnitudes) {
  for (const v1::TensorStats& tensor : stats.tensors()) {
    if (tensor.magnitude_counts().empty()) continue;
    magnitudes->zeros += static_cast<double>(tensor.zeros());
    auto bin = static_cast<size_t>(tensor.magnitude_first_bin());
    for (const uint32_t count : tensor.magnitude_counts()) magnitudes->bins[bin++].count += count;
  }
}

// What the window's whole records add to the advice: magnitudes, and the shadow clips' effect.
class WindowReader {
 public:
  explicit WindowReader(const v1::Job& job) : job_(job) {}

  bool wanted() const {
    return job_.shadow_clips_size() > 0 || job_.statistics_level() == v1::STATISTICS_LEVEL_FULL;
  }

  void See(const StepRecord& record) {
    GRADWATCH_CHECK(ParseScalars(record, &stats_));
    GRADWATCH_CHECK(stats_.MergeFromString(std::string(record.details)));
    AddMagnitudes(stats_, &magnitudes_);
    ++steps_;
    for (int i = 0; i < stats_.shadow_reports_size(); ++i) {
      clipped_[static_cast<size_t>(i)] += stats_.shadow_reports(i).clipped() ? 1 : 0;
      coefficients_[static_cast<size_t>(i)] += stats_.shadow_reports(i).coefficient();
    }
  }

  const clip::EntryMagnitudes& magnitudes() const { return magnitudes_; }
  void FillShadows(v1::ClipAdvice* advice) const {
    for (int i = 0; i < job_.shadow_clips_size(); ++i) {
      const auto at = static_cast<size_t>(i);
      *advice->add_shadows() =
          ShadowSummaryOf(job_.shadow_clips(i), clipped_[at], coefficients_[at], steps_);
    }
  }

 private:
  const v1::Job& job_;
  v1::StepStats stats_;
  clip::EntryMagnitudes magnitudes_ = NoMagnitudes();
  int64_t steps_ = 0;
  std::array<int64_t, clip::kShadowsMax> clipped_{};
  std::array<double, clip::kShadowsMax> coefficients_{};
};

}  // namespace

absl::StatusOr<v1::ClipAdvice> JobManager::Impl::GetClipAdvice(
    const v1::GetClipAdviceRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request));
  View view;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const JobPtr job, Find(request.name()));
    view = Look(job);
  }
  clip::AdviceInputs inputs;
  inputs.job = *view.job;
  inputs.wanted_steps = request.has_steps() ? request.steps() : clip::kAdviceStepsDefault;
  inputs.thresholds.assign(request.thresholds().begin(), request.thresholds().end());
  std::vector<Observed> kept;
  ForEachKept(view.hosted->log, 0, [&kept](const StepRecord& record) {
    kept.push_back({record.step, record.norm_before, record.clipped});
  });
  inputs.kept = HistoryOf(kept);
  inputs.window = HistoryOf(Newest(kept, inputs.wanted_steps));
  for (const auto& alert : feed_.Of(view.hosted->number)->alerts) {
    inputs.explosion_alerts += TellsOfExplosion(*alert, inputs.window) ? 1 : 0;
    inputs.stands_still = inputs.stands_still || StandsStill(*alert, inputs.window);
  }
  WindowReader reader(inputs.job);
  if (reader.wanted()) {
    ForEachKept(view.hosted->log, inputs.window.first_step, [&](const StepRecord& record) {
      if (record.step <= inputs.window.last_step) reader.See(record);
    });
  }
  inputs.magnitudes = reader.magnitudes();
  v1::ClipAdvice advice = clip::AdviseOnClipping(inputs);
  reader.FillShadows(&advice);
  return advice;
}

}  // namespace gradwatch::jobs
