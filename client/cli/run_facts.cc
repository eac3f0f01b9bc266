#include "client/cli/run_facts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "client/cli/advise.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/interventions.h"
#include "client/cli/scale.h"
#include "client/cli/text.h"
#include "client/cli/version.h"
#include "google/protobuf/util/json_util.h"

namespace gradwatch::cli {
namespace {

constexpr absl::string_view kNothing = "–";

std::string Whole(int64_t number) { return GroupedNumber(static_cast<double>(number), 0); }

std::string TimeText(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", FromProto(time), absl::UTCTimeZone());
}

std::string HorizonText(double growth, int window) {
  const double horizon = HorizonOf(growth, window);
  if (!std::isfinite(horizon)) return std::string(kNothing);
  if (horizon >= window) return absl::StrCat("≥ ", window, " time steps");
  return absl::StrCat(FormatNumber(horizon), " time steps");
}

std::string EvaluationText(const v1::EvaluationResult& evaluation) {
  std::string text = absl::StrCat("loss ", FormatNumber(evaluation.loss()));
  if (evaluation.has_accuracy()) {
    absl::StrAppend(&text, ", accuracy ", FormatShare(evaluation.accuracy()));
  }
  if (evaluation.has_solved_share()) {
    absl::StrAppend(&text, ", solved ", FormatShare(evaluation.solved_share()));
  }
  std::vector<std::string> errors;
  for (const double error : evaluation.rmse_original_units()) errors.push_back(FormatNumber(error));
  if (!errors.empty()) {
    absl::StrAppend(&text, ", rmse ", absl::StrJoin(errors, ", "), " in the data's units");
  }
  return absl::StrCat(text, " (step ", Whole(evaluation.step()), ", ", Whole(evaluation.examples()),
                      " examples)");
}

double QuantileOf(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

std::string LabelText(const v1::Job& job) {
  std::vector<std::string> labels;
  for (const auto& [key, value] : job.labels()) labels.push_back(absl::StrCat(key, "=", value));
  std::sort(labels.begin(), labels.end());
  return absl::StrJoin(labels, ", ");
}

void AddFact(absl::string_view name, absl::string_view value, std::vector<Fact>* facts) {
  if (!value.empty()) facts->push_back({std::string(name), std::string(value)});
}

}  // namespace

void RunDigest::Add(const v1::StepStats& step) {
  if (std::isfinite(step.norm_before())) {
    norms_.push_back({step.norm_before(), step.clipped()});
    if (step.norm_before() > largest_norm_) {
      largest_norm_ = step.norm_before();
      largest_norm_step_ = step.step();
    }
  }
  if (step.has_clip_coefficient() && std::isfinite(step.clip_coefficient())) {
    coefficient_sum_ += step.clip_coefficient();
    ++coefficient_count_;
  }
  closer_.Add(step);
  if (step.has_growth()) window_ = std::max(window_, step.growth().window());
  for (const v1::LayerTimeStats& layer : step.layers()) {
    if (layer.layer() < 0) continue;
    while (layers_.size() <= static_cast<size_t>(layer.layer()))
      layers_.emplace_back(first_, last_);
    HeatGrid& grid = layers_[static_cast<size_t>(layer.layer())];
    const int time_steps = layer.state_gradient_norm_size();
    for (int t = 0; t < time_steps; ++t) {
      grid.Add(step.step(), time_steps - 1 - t, static_cast<double>(layer.state_gradient_norm(t)));
    }
    if (layer.lag_profile_size() == 0) loss_at_every_step_ = true;
  }
}

double RunDigest::mean_coefficient() const {
  return coefficient_count_ == 0 ? kNaN
                                 : coefficient_sum_ / static_cast<double>(coefficient_count_);
}

std::vector<Fact> KeyFigures(const RunFacts& facts) {
  const v1::Job& job = facts.summary.job;
  std::vector<Fact> figures;
  figures.push_back({"state", StateName(job.state())});
  figures.push_back(
      {"steps", absl::StrCat(Whole(job.step()), " of ", Whole(job.training().step_limit()))});
  if (job.has_latest_evaluation()) {
    const v1::EvaluationResult& evaluation = job.latest_evaluation();
    figures.push_back({"evaluated loss", FormatNumber(evaluation.loss())});
    if (evaluation.has_accuracy()) {
      figures.push_back({"accuracy", FormatShare(evaluation.accuracy())});
    } else if (evaluation.has_solved_share()) {
      figures.push_back({"solved", FormatShare(evaluation.solved_share())});
    }
  } else if (job.has_latest_stats()) {
    figures.push_back({"loss", FormatNumber(job.latest_stats().loss())});
  }
  if (facts.digest.largest_norm_step() >= 0) {
    figures.push_back(
        {"largest norm", absl::StrCat(FormatNumber(LargestNorm(facts.summary)), " at step ",
                                      Whole(facts.digest.largest_norm_step()))});
  }
  figures.push_back({"clipped steps", FormatShare(job.clip_rate())});
  const double growth = GrowthAtEnd(facts.summary.history);
  figures.push_back(
      {"growth at the end", std::isnan(growth) ? std::string(kNothing) : FormatNumber(growth)});
  figures.push_back({"horizon at the end", HorizonText(growth, facts.digest.window())});
  figures.push_back({"steps not finite", Whole(job.nonfinite_steps())});
  figures.push_back({"alerts", Whole(static_cast<int64_t>(facts.summary.alerts.size()))});
  return figures;
}

std::vector<Fact> SettingFacts(const RunFacts& facts) {
  std::vector<Fact> settings;
  for (const auto& [name, value] : SettingRows(facts.summary.job)) AddFact(name, value, &settings);
  std::vector<std::string> rules;
  for (const v1::RuleSettings& rule : facts.summary.job.rules()) {
    rules.push_back(rule.ShortDebugString());
  }
  AddFact("rule settings", absl::StrJoin(rules, "; "), &settings);
  return settings;
}

std::vector<Fact> ResultFacts(const RunFacts& facts) {
  const v1::Job& job = facts.summary.job;
  std::vector<Fact> results;
  AddFact("state", StateName(job.state()), &results);
  if (job.has_failure()) AddFact("failure", DescribeFailure(job.failure()), &results);
  AddFact("steps",
          absl::StrCat(Whole(job.step()), " of ", Whole(job.training().step_limit()), ", ",
                       Whole(job.updates_applied()), " changed the weights"),
          &results);
  if (job.has_latest_stats()) {
    AddFact("loss of the newest step", FormatNumber(job.latest_stats().loss()), &results);
  }
  if (job.has_latest_evaluation()) {
    AddFact("newest evaluation", EvaluationText(job.latest_evaluation()), &results);
  }
  if (job.has_best_evaluation()) {
    AddFact("best evaluation", EvaluationText(job.best_evaluation()), &results);
  }
  AddFact("clipped", absl::StrCat(FormatShare(job.clip_rate()), " of the steps"), &results);
  AddFact("not finite", absl::StrCat(Whole(job.nonfinite_steps()), " steps"), &results);
  if (job.has_start_time()) {
    const absl::Time end = job.has_end_time() ? FromProto(job.end_time()) : facts.now;
    AddFact("ran for", FormatElapsed(end - FromProto(job.start_time())), &results);
  }
  return results;
}

std::vector<Fact> SourceFacts(const RunFacts& facts) {
  const v1::Job& job = facts.summary.job;
  const v1::QueryStatsResponse& history = facts.summary.history;
  std::vector<Fact> sources;
  AddFact("job", job.name(), &sources);
  AddFact("uid", job.uid(), &sources);
  AddFact("labels", LabelText(job), &sources);
  AddFact("server", facts.server_address, &sources);
  AddFact("server build", job.server_build(), &sources);
  std::string line = VersionLine();
  line.erase(line.find_last_not_of('\n') + 1);
  AddFact("report written by", line, &sources);
  if (facts.dataset) {
    AddFact(
        "data",
        absl::StrCat(facts.dataset->name(), facts.dataset->display_name().empty() ? "" : ", ",
                     facts.dataset->display_name(), ", ", FormatBytes(facts.dataset->size_bytes())),
        &sources);
    AddFact("SHA-256 of the data", facts.dataset->sha256(), &sources);
  } else {
    AddFact("data", "generated from the seed", &sources);
  }
  AddFact("seed", job.has_seed() ? absl::StrCat(job.seed()) : "", &sources);
  if (job.has_create_time()) AddFact("submitted", TimeText(job.create_time()), &sources);
  if (job.has_start_time()) AddFact("started", TimeText(job.start_time()), &sources);
  if (job.has_end_time()) AddFact("ended", TimeText(job.end_time()), &sources);
  AddFact("report of", absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", facts.now, absl::UTCTimeZone()),
          &sources);
  if (history.newest_step() >= 0) {
    AddFact(
        "recorded steps",
        absl::StrCat(Whole(history.oldest_step()), " to ", Whole(history.newest_step()),
                     history.oldest_step() > 0 ? "; the server no longer keeps those before" : ""),
        &sources);
  }
  return sources;
}

std::vector<Fact> NormFacts(const RunFacts& facts) {
  std::vector<double> norms;
  double sum = 0;
  for (const NormSample& sample : facts.digest.norms()) {
    norms.push_back(sample.norm);
    sum += sample.norm;
  }
  if (norms.empty()) return {};
  std::sort(norms.begin(), norms.end());
  std::vector<Fact> quantiles;
  quantiles.push_back({"mean", FormatNumber(sum / static_cast<double>(norms.size()))});
  for (const double percent : {10, 50, 90, 99}) {
    quantiles.push_back({percent == 50 ? "median" : absl::StrCat("p", percent),
                         FormatNumber(QuantileOf(norms, percent / 100))});
  }
  quantiles.push_back({"largest", FormatNumber(norms.back())});
  const double median = QuantileOf(norms, 0.5);
  if (median > 0) {
    quantiles.push_back({"p99 / median", FormatNumber(QuantileOf(norms, 0.99) / median)});
  }
  return quantiles;
}

std::vector<Fact> AdviceFacts(const RunFacts& facts) {
  if (!facts.advice) return {};
  std::vector<Fact> rows;
  for (const auto& [name, value] : AdviceRows(*facts.advice, facts.summary.job)) {
    AddFact(name, value, &rows);
  }
  return rows;
}

std::vector<std::vector<std::string>> ShadowRows(const RunFacts& facts) {
  const v1::Job& job = facts.summary.job;
  const int shadows = std::min(job.shadow_clips_size(), job.shadow_summaries_size());
  if (shadows == 0) return {};
  const double own = facts.digest.mean_coefficient();
  std::string coefficient = std::isnan(own) ? std::string(kNothing) : FormatNumber(own);
  if (facts.summary.history.oldest_step() > 0) coefficient += " in the recorded steps";
  std::vector<std::vector<std::string>> rows;
  rows.push_back({absl::StrCat(DescribeClipping(job), ", the job's own"),
                  FormatShare(job.clip_rate()), coefficient});
  for (int i = 0; i < shadows; ++i) {
    const v1::ShadowSummary& shadow = job.shadow_summaries(i);
    rows.push_back({absl::StrCat(i + 1, ": ", DescribePolicy(job.shadow_clips(i))),
                    FormatShare(shadow.clip_rate()),
                    shadow.has_mean_coefficient() ? FormatNumber(shadow.mean_coefficient())
                                                  : std::string(kNothing)});
  }
  return rows;
}

std::vector<std::string> ShadowTitles() { return {"policy", "clip rate", "mean coefficient"}; }

std::vector<std::string> ThresholdTitles() {
  return {"threshold", "", "would clip", "mean factor"};
}

std::vector<Fact> InterventionFacts(const RunFacts& facts) {
  std::vector<Fact> rows;
  for (const v1::FoldedStats& bucket : facts.summary.history.buckets()) {
    for (const v1::Intervention& intervention : bucket.interventions()) {
      std::string when = absl::StrCat("step ", Whole(intervention.step()), ", ",
                                      InterventionKindName(intervention.kind()));
      if (!intervention.author().empty()) absl::StrAppend(&when, ", by ", intervention.author());
      AddFact(when, DescribeIntervention(intervention), &rows);
    }
  }
  return rows;
}

std::vector<Fact> AlertFacts(const v1::Alert& alert) {
  std::vector<Fact> rows;
  std::string when = absl::StrCat("fired at step ", Whole(alert.firing_step()));
  if (alert.count() > 1) absl::StrAppend(&when, ", ", alert.count(), " times");
  if (alert.state() == v1::Alert::STATE_RESOLVED) {
    absl::StrAppend(&when, alert.resolve_reason() == v1::Alert::RESOLVE_REASON_JOB_ENDED
                               ? ", until the job ended"
                               : absl::StrCat(", resolved at step ", Whole(alert.resolved_step())));
  } else {
    absl::StrAppend(&when, ", last true at step ", Whole(alert.last_step()));
  }
  AddFact("when", when, &rows);
  AddFact("what", alert.message(), &rows);
  AddFact("value",
          absl::StrCat(FormatNumber(alert.first_value()), " when it fired, ",
                       FormatNumber(alert.peak_value()), " at its peak; the limit is ",
                       FormatNumber(alert.threshold())),
          &rows);
  std::string where = alert.tensor();
  if (alert.has_time_step()) {
    absl::StrAppend(&where, where.empty() ? "" : ", ", "time step ", alert.time_step());
  }
  AddFact("where", where, &rows);
  AddFact("advice", alert.advice(), &rows);
  return rows;
}

std::vector<Fact> ParameterFacts(const RunFacts& facts) {
  std::vector<Fact> rows;
  int64_t all = 0;
  for (const v1::ParameterInfo& parameter : facts.summary.job.parameters()) {
    int64_t weights = 1;
    for (const int64_t side : parameter.shape()) weights *= side;
    all += weights;
    rows.push_back({parameter.name(),
                    absl::StrCat(absl::StrJoin(parameter.shape(), " × "), " = ", Whole(weights))});
  }
  if (!rows.empty()) rows.push_back({"all", Whole(all)});
  return rows;
}

std::vector<double> ClipThresholds(const v1::Job& job) {
  if (!job.has_clipping()) return {1.0};
  std::vector<double> thresholds;
  for (const v1::ClipPolicy& policy : job.clipping().policies()) {
    const v1::NormOrder order = policy.global_norm().order();
    const bool is_l2 = order == v1::NORM_ORDER_UNSPECIFIED || order == v1::NORM_ORDER_L2;
    if (policy.has_global_norm() && is_l2) thresholds.push_back(policy.global_norm().max_norm());
  }
  return thresholds;
}

double HorizonOf(double growth, int window) {
  if (!(growth > 0)) return kNaN;
  const double horizon = growth < 1 ? -1 / std::log(growth) : static_cast<double>(window);
  return std::min(horizon, static_cast<double>(window));
}

StepSeries::End MeanAtEnd(const v1::QueryStatsResponse& history,
                          const v1::Range& (v1::FoldedStats::*range)() const) {
  std::vector<v1::Range> measured;
  for (const v1::FoldedStats& bucket : history.buckets()) {
    if ((bucket.*range)().count() > 0) measured.push_back((bucket.*range)());
  }
  double sum = 0;
  int64_t count = 0;
  const size_t part = measured.empty() ? 0 : std::max<size_t>(measured.size() / 10, 1);
  for (size_t i = measured.size() - part; i < measured.size(); ++i) {
    sum += measured[i].mean() * static_cast<double>(measured[i].count());
    count += measured[i].count();
  }
  return {count == 0 ? kNaN : sum / static_cast<double>(count), count};
}

double GrowthAtEnd(const v1::QueryStatsResponse& history) {
  return MeanAtEnd(history, &v1::FoldedStats::growth_factor).mean;
}

std::string HeatMapAbsence(const RunFacts& facts) {
  if (!facts.digest.layers().empty()) return "";
  if (facts.summary.history.buckets().empty()) return "No step is recorded.";
  if (facts.summary.job.statistics_level() == v1::STATISTICS_LEVEL_FULL) {
    return "None of the recorded steps has the gradient's norm at every time step.";
  }
  return absl::StrCat(
      "There is no map of the gradient over training step and lag: the job recorded its "
      "statistics at level ",
      StatisticsLevelText(facts.summary.job),
      ", which leaves out arrays over time steps. Submit the job again with --stats full to see "
      "it; training gives the same bits.");
}

std::string JobFileOf(const v1::Job& job) {
  v1::Job settings = job;
  settings.clear_name();
  settings.clear_uid();
  settings.clear_state();
  settings.clear_failure();
  settings.clear_step();
  settings.clear_updates_applied();
  settings.clear_latest_stats();
  settings.clear_latest_evaluation();
  settings.clear_best_evaluation();
  settings.clear_parameters();
  settings.clear_clip_rate();
  settings.clear_nonfinite_steps();
  settings.clear_alerts_firing();
  settings.clear_memory_bytes();
  settings.clear_queue_position();
  settings.clear_vocabulary();
  settings.clear_server_build();
  settings.clear_shadow_summaries();
  settings.clear_interventions();
  settings.clear_latest_intervention();
  settings.clear_create_time();
  settings.clear_start_time();
  settings.clear_end_time();
  settings.clear_update_time();
  settings.clear_etag();
  google::protobuf::util::JsonPrintOptions print;
  print.add_whitespace = true;
  print.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(settings, &text, print).ok()) return "";
  return text;
}

}  // namespace gradwatch::cli
