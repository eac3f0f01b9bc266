#include "server/metrics/job_series.h"

#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace gradwatch::metrics {
namespace {

absl::string_view JobId(const v1::Job& job) {
  return absl::StripPrefix(absl::string_view(job.name()), "jobs/");
}

std::string CellLabel(v1::Model::Cell cell) {
  const absl::string_view name = v1::Model::Cell_Name(cell);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "CELL_"));
}

absl::string_view PolicyLabel(const v1::ClipPolicy& policy) {
  switch (policy.kind_case()) {
    case v1::ClipPolicy::kValue:
      return "value";
    case v1::ClipPolicy::kParameterNorm:
      return "parameter_norm";
    case v1::ClipPolicy::kGlobalNorm:
      return "global_norm";
    case v1::ClipPolicy::KIND_NOT_SET:
      break;
  }
  return "unknown";
}

void AddIdentity(const v1::Job& job, FamilySet* out) {
  const absl::string_view id = JobId(job);
  out->Gauge("gradwatch_job_info", "What a job is; always 1.")
      .Add(1, {{"job_id", id},
               {"job_name", job.display_name()},
               {"cell", CellLabel(job.model().cell())},
               {"optimizer", job.optimizer().has_sgd() ? "sgd" : "adam"},
               {"clip_mode", ClipModeLabel(job.clipping())}});
  out->Gauge("gradwatch_job_state", "The state that a job is in; always 1.")
      .Add(1, {{"job_id", id}, {"state", StateLabel(job.state())}});
}

void AddCounters(const jobs::JobSnapshot& snapshot, FamilySet* out) {
  const v1::Job& job = snapshot.job;
  const absl::string_view id = JobId(job);
  out->Counter("gradwatch_job_steps_total", "Steps done: attempted updates.")
      .Add(static_cast<double>(job.step()), {{"job_id", id}});
  out->Counter("gradwatch_job_skipped_steps_total", "Steps that did not change the weights.")
      .Add(static_cast<double>(job.step() - job.updates_applied()), {{"job_id", id}});
  out->Counter("gradwatch_gradient_clipped_steps_total",
               "Steps in which a policy changed an entry.")
      .Add(static_cast<double>(snapshot.clipped_steps), {{"job_id", id}});
  out->Counter("gradwatch_gradient_nonfinite_total", "Gradient entries that were NaN or infinite.")
      .Add(static_cast<double>(snapshot.nonfinite_entries), {{"job_id", id}});
}

// From 0 on, so that the first one is an increase.
void AddInterventions(const jobs::JobSnapshot& snapshot, FamilySet* out) {
  const google::protobuf::EnumDescriptor& kinds = *v1::Intervention::Kind_descriptor();
  for (int i = 1; i < kinds.value_count(); ++i) {
    const auto kind = static_cast<v1::Intervention::Kind>(kinds.value(i)->number());
    if (kind != v1::Intervention::KIND_EDIT && !snapshot.job.has_ladder()) continue;
    const auto found = snapshot.interventions_total.find(kind);
    const int64_t count = found == snapshot.interventions_total.end() ? 0 : found->second;
    out->Counter("gradwatch_job_interventions_total",
                 "Changes of a run since it was submitted: edits and actions of the ladder.")
        .Add(static_cast<double>(count),
             {{"job_id", JobId(snapshot.job)},
              {"kind", absl::AsciiStrToLower(absl::StripPrefix(kinds.value(i)->name(), "KIND_"))}});
  }
}

// The families that say what a value did between two scrapes.
struct BetweenScrapes {
  FamilySet::Family& minimum;
  FamilySet::Family& maximum;

  void Add(const jobs::ValueSummary& value, LabelList labels) {
    if (!value.last_60s.has_value()) return;
    minimum.Add(value.last_60s->minimum, labels);
    maximum.Add(value.last_60s->maximum, labels);
  }
};

// Extremes, sum and count of what the newest step alone would hide.
void AddBetweenScrapes(const jobs::JobSnapshot& snapshot, FamilySet* out) {
  const absl::string_view id = JobId(snapshot.job);
  const LabelList job = {{"job_id", id}};
  const LabelList before = {{"job_id", id}, {"point", "pre_clip"}};
  const LabelList after = {{"job_id", id}, {"point", "post_clip"}};

  BetweenScrapes{out->Gauge("gradwatch_job_loss_min", "Smallest loss in the last 60 seconds."),
                 out->Gauge("gradwatch_job_loss_max", "Largest loss in the last 60 seconds.")}
      .Add(snapshot.loss, job);
  out->Summary("gradwatch_job_loss_steps", "Finite losses of all steps so far.")
      .AddSummary(snapshot.loss.count, snapshot.loss.sum, job);

  BetweenScrapes norm{
      out->Gauge("gradwatch_gradient_norm_min", "Smallest norm in the last 60 seconds."),
      out->Gauge("gradwatch_gradient_norm_max", "Largest norm in the last 60 seconds.")};
  norm.Add(snapshot.norm_before, before);
  norm.Add(snapshot.norm_after, after);
  auto& norms = out->Summary("gradwatch_gradient_norm_steps", "Finite norms of all steps so far.");
  norms.AddSummary(snapshot.norm_before.count, snapshot.norm_before.sum, before);
  norms.AddSummary(snapshot.norm_after.count, snapshot.norm_after.sum, after);

  if (snapshot.growth_factor.count > 0) {
    BetweenScrapes{out->Gauge("gradwatch_gradient_growth_factor_min",
                              "Smallest growth factor in the last 60 seconds."),
                   out->Gauge("gradwatch_gradient_growth_factor_max",
                              "Largest growth factor in the last 60 seconds.")}
        .Add(snapshot.growth_factor, job);
    out->Summary("gradwatch_gradient_growth_factor_steps", "Growth factors of all steps so far.")
        .AddSummary(snapshot.growth_factor.count, snapshot.growth_factor.sum, job);
  }
  if (snapshot.update_ratio.count > 0) {
    BetweenScrapes{out->Gauge("gradwatch_weight_update_ratio_min",
                              "Smallest update ratio in the last 60 seconds."),
                   out->Gauge("gradwatch_weight_update_ratio_max",
                              "Largest update ratio in the last 60 seconds.")}
        .Add(snapshot.update_ratio, job);
    out->Summary("gradwatch_weight_update_ratio_steps", "Update ratios of all steps so far.")
        .AddSummary(snapshot.update_ratio.count, snapshot.update_ratio.sum, job);
  }
  // Without a sum: cosines below 0 would make it fall, which a reader takes for a restart.
  if (snapshot.gradient_cosine.count > 0) {
    BetweenScrapes{out->Gauge("gradwatch_gradient_cosine_min",
                              "Smallest cosine of successive gradients in the last 60 seconds."),
                   out->Gauge("gradwatch_gradient_cosine_max",
                              "Largest cosine of successive gradients in the last 60 seconds.")}
        .Add(snapshot.gradient_cosine, job);
  }
}

void AddNewestStep(const jobs::JobSnapshot& snapshot, FamilySet* out) {
  const v1::Job& job = snapshot.job;
  if (!job.has_latest_stats()) return;
  const v1::StepStats& stats = job.latest_stats();
  const absl::string_view id = JobId(job);
  out->Gauge("gradwatch_job_loss", "Loss of the newest step; may be NaN.")
      .Add(stats.loss(), {{"job_id", id}});
  out->Gauge("gradwatch_job_learning_rate", "Learning rate in force.")
      .Add(stats.learning_rate(), {{"job_id", id}});
  if (snapshot.last_step_time != absl::InfinitePast()) {
    out->Gauge("gradwatch_job_last_step_timestamp_seconds", "When the newest step ended.")
        .Add(absl::ToDoubleSeconds(snapshot.last_step_time - absl::UnixEpoch()), {{"job_id", id}});
  }
  auto& norm = out->Gauge("gradwatch_gradient_norm",
                          "L2 norm of the newest step's gradient, before and after clipping; "
                          "may be NaN.");
  norm.Add(stats.norm_before(), {{"job_id", id}, {"point", "pre_clip"}});
  if (stats.has_norm_after()) {
    norm.Add(stats.norm_after(), {{"job_id", id}, {"point", "post_clip"}});
  }
  if (stats.has_last_finite_norm()) {
    out->Gauge("gradwatch_gradient_last_finite_norm", "The newest finite norm before clipping.")
        .Add(stats.last_finite_norm(), {{"job_id", id}});
  }
  out->Gauge("gradwatch_gradient_clip_ratio", "Clipped steps over all steps so far, 0 to 1.")
      .Add(job.clip_rate(), {{"job_id", id}});
  if (stats.has_update_ratio()) {
    out->Gauge("gradwatch_weight_update_ratio", "Norm of the newest update over the weights' norm.")
        .Add(stats.update_ratio(), {{"job_id", id}});
  }
  if (stats.has_gradient_cosine()) {
    out->Gauge("gradwatch_gradient_cosine",
               "Cosine between the gradients of the newest step and the one before.")
        .Add(stats.gradient_cosine(), {{"job_id", id}});
  }
  if (stats.has_distance_ratio()) {
    out->Gauge("gradwatch_weight_distance_ratio",
               "Distance of the weights from the first ones over the norm of those.")
        .Add(stats.distance_ratio(), {{"job_id", id}});
  }
  if (snapshot.noise_scale.has_value()) {
    out->Gauge("gradwatch_gradient_noise_scale_rows",
               "Gradient noise scale, in rows of a batch: the newest that was measured.")
        .Add(*snapshot.noise_scale, {{"job_id", id}});
  }
  AddBetweenScrapes(snapshot, out);
  if (!stats.has_growth()) return;
  out->Gauge("gradwatch_gradient_growth_factor",
             "Growth of the gradient for each time step that it goes back; "
             "above 1 it grows.")
      .Add(stats.growth().growth_factor(), {{"job_id", id}});
  if (stats.growth().has_horizon()) {
    out->Gauge("gradwatch_gradient_horizon_time_steps",
               "Time steps back until the gradient has faded to 1/e.")
        .Add(stats.growth().horizon(), {{"job_id", id}});
  }
}

const v1::RuleSettings* FindSettings(const v1::Job& job, v1::RuleId id) {
  for (const v1::RuleSettings& settings : job.rules()) {
    if (settings.id() == id) return &settings;
  }
  return nullptr;
}

void AddThresholds(const v1::Job& job, const std::vector<v1::Rule>& rules, FamilySet* out) {
  const absl::string_view id = JobId(job);
  for (const v1::Rule& rule : rules) {
    const v1::RuleSettings* own = FindSettings(job, rule.id());
    const bool disabled =
        own != nullptr && own->has_disabled() ? own->disabled() : rule.defaults().disabled();
    const v1::RuleSettings& source =
        own != nullptr && own->has_threshold() ? *own : rule.defaults();
    if (disabled || !source.has_threshold()) continue;
    out->Gauge("gradwatch_alert_threshold", "The limit at which a rule fires for a job.")
        .Add(source.threshold(), {{"job_id", id}, {"rule", rule.name()}});
  }
  for (const v1::ClipPolicy& policy : job.clipping().policies()) {
    if (!policy.has_global_norm()) continue;
    out->Gauge("gradwatch_clip_threshold", "The global norm that a job clips at.")
        .Add(policy.global_norm().max_norm(), {{"job_id", id}});
    break;
  }
}

// By rule name and severity, in a stable order.
using AlertKey = std::pair<std::string, v1::Severity>;

void AddAlerts(const jobs::JobSnapshot& snapshot, FamilySet* out) {
  const absl::string_view id = JobId(snapshot.job);
  std::map<AlertKey, double> firing;
  for (const v1::Alert& alert : snapshot.alerts) {
    firing[{alert.rule_name(), alert.severity()}] +=
        alert.state() == v1::Alert::STATE_FIRING ? 1 : 0;
  }
  for (const auto& [key, count] : firing) {
    out->Gauge("gradwatch_job_alerts_firing",
               "Alerts of a job that fire; an ended job's stay through the "
               "grace period.")
        .Add(count, {{"job_id", id}, {"rule", key.first}, {"severity", SeverityLabel(key.second)}});
  }
  for (const auto& total : snapshot.alerts_total) {
    out->Counter("gradwatch_job_alerts_total", "How often the alerts of a job began to fire.")
        .Add(static_cast<double>(total.count), {{"job_id", id},
                                                {"rule", total.rule_name},
                                                {"severity", SeverityLabel(total.severity)}});
  }
}

}  // namespace

std::string StateLabel(v1::Job::State state) {
  return std::string(absl::StripPrefix(absl::string_view(v1::Job::State_Name(state)), "STATE_"));
}

std::string SeverityLabel(v1::Severity severity) {
  return std::string(
      absl::StripPrefix(absl::string_view(v1::Severity_Name(severity)), "SEVERITY_"));
}

std::string ClipModeLabel(const v1::Clipping& clipping) {
  if (clipping.policies().empty()) return "none";
  return absl::StrJoin(clipping.policies(), "+",
                       [](std::string* text, const v1::ClipPolicy& policy) {
                         const absl::string_view label = PolicyLabel(policy);
                         text->append(label.data(), label.size());
                       });
}

void AddJobSeries(const jobs::JobSnapshot& snapshot, const std::vector<v1::Rule>& rules,
                  FamilySet* out) {
  AddIdentity(snapshot.job, out);
  AddCounters(snapshot, out);
  AddInterventions(snapshot, out);
  AddNewestStep(snapshot, out);
  AddThresholds(snapshot.job, rules, out);
  AddAlerts(snapshot, out);
}

void AddSummarySeries(const std::vector<int64_t>& count_by_state,
                      const std::vector<jobs::JobSnapshot>& snapshots, FamilySet* out) {
  auto& jobs = out->Gauge("gradwatch_jobs", "Jobs by state.");
  for (int state = v1::Job::STATE_UNSPECIFIED + 1; state <= v1::Job::State_MAX; ++state) {
    const auto index = static_cast<size_t>(state);
    const int64_t count = index < count_by_state.size() ? count_by_state[index] : 0;
    jobs.Add(static_cast<double>(count),
             {{"state", StateLabel(static_cast<v1::Job::State>(state))}});
  }
  std::map<v1::Severity, double> firing = {
      {v1::SEVERITY_INFO, 0}, {v1::SEVERITY_WARN, 0}, {v1::SEVERITY_CRIT, 0}};
  for (const jobs::JobSnapshot& snapshot : snapshots) {
    for (const v1::Alert& alert : snapshot.alerts) {
      if (alert.state() == v1::Alert::STATE_FIRING) firing[alert.severity()] += 1;
    }
  }
  for (const auto& [severity, count] : firing) {
    out->Gauge("gradwatch_alerts_firing", "Alerts of all jobs that fire, by severity.")
        .Add(count, {{"severity", SeverityLabel(severity)}});
  }
}

}  // namespace gradwatch::metrics
