#include "client/cli/compare.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"

namespace gradwatch::cli {
namespace {

// A loss within 5 % of what guessing gives is chance.
constexpr double kChanceShare = 0.95;
// The norm that the rule EXPLODING_ABS takes for an explosion.
constexpr double kExplodedNorm = 1e3;

// The newest evaluation, unless the job failed since: then it tells of a better past.
const v1::EvaluationResult* Evaluated(const v1::Job& job) {
  const bool tells = job.has_latest_evaluation() && !job.has_failure();
  return tells ? &job.latest_evaluation() : nullptr;
}

double FirstLoss(const JobSummary& summary) {
  for (const v1::FoldedStats& bucket : summary.history.buckets()) {
    if (bucket.loss().count() > 0) return bucket.loss().maximum();
  }
  return kNaN;
}

std::string ClipVerdict(const v1::Job& job) {
  if (job.has_clipping() && job.clipping().policies().empty()) return "never clipped";
  if (job.clip_rate() == 0) return "the clip threshold was never reached";
  return absl::StrCat("clipped in ", FormatShare(job.clip_rate()), " of its steps");
}

std::string GradientVerdict(const JobSummary& summary) {
  std::vector<std::string> parts;
  if (const double norm = LargestNorm(summary); norm >= kExplodedNorm) {
    parts.push_back(absl::StrCat("the gradient exploded to a norm of ", FormatNumber(norm)));
  }
  if (summary.job.nonfinite_steps() > 0) {
    parts.push_back(absl::StrCat(summary.job.nonfinite_steps(),
                                 summary.job.nonfinite_steps() == 1 ? " step was" : " steps were",
                                 " not finite"));
  }
  const double growth = MeanGrowth(summary);
  if (growth > 1.02) {
    parts.push_back(absl::StrCat("it grew through time by a factor of ", FormatNumber(growth),
                                 " per time step"));
  } else if (growth > 0 && growth < 0.9) {
    parts.push_back(absl::StrCat("it faded through time to 1/e within ",
                                 FormatNumber(-1 / std::log(growth)), " time steps"));
  }
  return absl::StrJoin(parts, ", ");
}

std::string RulesOf(const JobSummary& summary) {
  std::set<std::string> rules;
  for (const v1::Alert& alert : summary.alerts) rules.insert(alert.rule_name());
  return absl::StrJoin(rules, ", ");
}

struct Setting {
  const char* name;
  std::function<std::string(const v1::Job&)> text;
};

const std::vector<Setting>& Settings() {
  static const auto* const settings = new std::vector<Setting>{
      {"task", [](const v1::Job& job) { return job.task().SerializeAsString(); }},
      {"cell", [](const v1::Job& job) { return CellName(job.model().cell()); }},
      {"size",
       [](const v1::Job& job) {
         return absl::StrCat(job.model().layers(), "x", job.model().hidden_units());
       }},
      {"initial weights",
       [](const v1::Job& job) { return job.model().initialization().SerializeAsString(); }},
      {"optimizer", [](const v1::Job& job) { return job.optimizer().SerializeAsString(); }},
      {"clipping", [](const v1::Job& job) { return DescribeClipping(job); }},
      {"training", [](const v1::Job& job) { return job.training().SerializeAsString(); }},
      {"seed", [](const v1::Job& job) { return absl::StrCat(job.seed()); }},
  };
  return *settings;
}

}  // namespace

double FinalLoss(const JobSummary& summary) {
  if (Evaluated(summary.job) != nullptr) return Evaluated(summary.job)->loss();
  if (summary.history.buckets().empty()) return kNaN;
  const v1::Range& loss = summary.history.buckets().rbegin()->loss();
  return loss.count() > 0 ? loss.mean() : kNaN;
}

std::optional<double> RightShare(const v1::Job& job) {
  const v1::EvaluationResult* const evaluation = Evaluated(job);
  if (evaluation == nullptr) return std::nullopt;
  if (evaluation->has_accuracy()) return evaluation->accuracy();
  if (evaluation->has_solved_share()) return evaluation->solved_share();
  return std::nullopt;
}

double LargestNorm(const JobSummary& summary) {
  double largest = kNaN;
  for (const v1::FoldedStats& bucket : summary.history.buckets()) {
    if (bucket.norm_before().count() == 0) continue;
    if (!(largest >= bucket.norm_before().maximum())) largest = bucket.norm_before().maximum();
  }
  return largest;
}

double MeanGrowth(const JobSummary& summary) {
  double sum = 0;
  int64_t count = 0;
  for (const v1::FoldedStats& bucket : summary.history.buckets()) {
    const v1::Range& growth = bucket.growth_factor();
    sum += growth.mean() * static_cast<double>(growth.count());
    count += growth.count();
  }
  return count == 0 ? kNaN : sum / static_cast<double>(count);
}

bool IsSolved(const JobSummary& summary) {
  const std::optional<double> right = RightShare(summary.job);
  return right && *right >= kSolvedShare;
}

std::string LossVerdict(const JobSummary& summary) {
  const double loss = FinalLoss(summary);
  const std::optional<double> right = RightShare(summary.job);
  const std::string share = right ? absl::StrCat(", ", FormatShare(*right), " right") : "";
  if (summary.history.buckets().empty()) return "has no steps yet";
  if (!std::isfinite(loss)) return "the loss is not finite";
  if (IsSolved(summary)) {
    return absl::StrCat("solved the task: ", FormatShare(*right), " right, loss ",
                        FormatNumber(loss));
  }
  if (const std::optional<double> chance = ChanceLoss(summary.job.task())) {
    if (loss >= *chance / kChanceShare) {
      return absl::StrCat("the loss is worse than guessing: ", FormatNumber(loss),
                          ", guessing gives ", FormatNumber(*chance), share);
    }
    if (loss >= *chance * kChanceShare) {
      return absl::StrCat("the loss stayed at chance: ", FormatNumber(loss), ", guessing gives ",
                          FormatNumber(*chance), share);
    }
    return absl::StrCat("learnt in part: loss ", FormatNumber(loss), ", guessing gives ",
                        FormatNumber(*chance), share);
  }
  const double first = FirstLoss(summary);
  const absl::string_view way = loss < first * kChanceShare   ? "fell"
                                : loss > first / kChanceShare ? "rose"
                                                              : "stayed about where it was";
  return absl::StrCat("the loss ", way, ", from ", FormatNumber(first), " to ", FormatNumber(loss),
                      share);
}

Table ComparisonTable(const std::vector<JobSummary>& summaries) {
  std::set<std::string> tasks, optimizers;
  std::set<uint64_t> seeds;
  bool any_right = false;
  for (const JobSummary& summary : summaries) {
    tasks.insert(DescribeTask(summary.job.task()));
    optimizers.insert(DescribeOptimizer(summary.job.optimizer()));
    seeds.insert(summary.job.seed());
    any_right = any_right || RightShare(summary.job).has_value();
  }
  std::vector<Table::Column> columns = {{"JOB"}, {"STATE"}};
  if (tasks.size() > 1) columns.push_back({"TASK"});
  columns.push_back({"MODEL"});
  if (optimizers.size() > 1) columns.push_back({"OPTIMIZER"});
  columns.push_back({"CLIP"});
  if (seeds.size() > 1) columns.push_back({"SEED", Align::kRight});
  columns.push_back({"STEPS", Align::kRight});
  columns.push_back({"LOSS", Align::kRight});
  if (any_right) columns.push_back({"RIGHT", Align::kRight});
  for (const char* title : {"CLIPPED", "LARGEST NORM", "GROWTH", "NOT FINITE", "ALERTS"}) {
    columns.push_back({title, Align::kRight});
  }
  Table table(columns);
  const auto number = [](double value) { return std::isnan(value) ? "-" : FormatNumber(value); };
  for (const JobSummary& summary : summaries) {
    const v1::Job& job = summary.job;
    std::vector<std::string> row = {IdOf(job.name()), StateName(job.state())};
    if (tasks.size() > 1) row.push_back(DescribeTask(job.task()));
    row.push_back(DescribeModel(job.model()));
    if (optimizers.size() > 1) row.push_back(DescribeOptimizer(job.optimizer()));
    row.push_back(DescribeClipping(job));
    if (seeds.size() > 1) row.push_back(absl::StrCat(job.seed()));
    row.push_back(absl::StrCat(job.step()));
    row.push_back(summary.history.buckets().empty() ? "-" : FormatNumber(FinalLoss(summary)));
    if (any_right) row.push_back(RightShare(job) ? FormatShare(*RightShare(job)) : "-");
    row.push_back(FormatShare(job.clip_rate()));
    row.push_back(number(LargestNorm(summary)));
    row.push_back(number(MeanGrowth(summary)));
    row.push_back(absl::StrCat(job.nonfinite_steps()));
    row.push_back(absl::StrCat(summary.alerts.size()));
    table.AddRow(std::move(row));
  }
  return table;
}

Table ShadowTable(const std::vector<JobSummary>& summaries) {
  Table table({{"JOB"}, {"SHADOW CLIP"}, {"CLIPS", Align::kRight}, {"MEAN FACTOR", Align::kRight}});
  for (const JobSummary& summary : summaries) {
    const v1::Job& job = summary.job;
    const int shadows = std::min(job.shadow_clips_size(), job.shadow_summaries_size());
    for (int i = 0; i < shadows; ++i) {
      const v1::ShadowSummary& shadow = job.shadow_summaries(i);
      table.AddRow({IdOf(job.name()), DescribePolicy(job.shadow_clips(i)),
                    FormatShare(shadow.clip_rate()),
                    shadow.has_mean_coefficient() ? FormatNumber(shadow.mean_coefficient()) : "-"});
    }
  }
  return table;
}

std::string Differences(const std::vector<JobSummary>& summaries) {
  if (summaries.size() < 2) return "";
  std::vector<std::string> names;
  for (const Setting& setting : Settings()) {
    std::set<std::string> values;
    for (const JobSummary& summary : summaries) values.insert(setting.text(summary.job));
    if (values.size() > 1) names.emplace_back(setting.name);
  }
  return names.empty() ? "The jobs have the same settings."
                       : absl::StrCat("The jobs differ in ", absl::StrJoin(names, ", "), ".");
}

std::string Verdict(const JobSummary& summary) {
  std::string text = ClipVerdict(summary.job);
  const bool failed = summary.job.has_failure();
  if (failed) {
    absl::StrAppend(&text, "; failed at step ", summary.job.failure().step());
  }
  if (!failed || !summary.history.buckets().empty()) {
    absl::StrAppend(&text, "; ", LossVerdict(summary));
  }
  if (const std::string gradient = GradientVerdict(summary); !gradient.empty()) {
    absl::StrAppend(&text, "; ", gradient);
  }
  if (const std::string rules = RulesOf(summary); !rules.empty()) {
    absl::StrAppend(&text, "; raised ", rules);
  }
  return text;
}

google::protobuf::Value NumberJson(double value) {
  google::protobuf::Value json;
  if (std::isfinite(value)) {
    json.set_number_value(value);
  } else {
    json.set_string_value(std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
  }
  return json;
}

google::protobuf::Struct ComparisonJson(const std::vector<JobSummary>& summaries) {
  google::protobuf::Struct all;
  google::protobuf::ListValue* const jobs = (*all.mutable_fields())["jobs"].mutable_list_value();
  for (const JobSummary& summary : summaries) {
    auto& fields = *jobs->add_values()->mutable_struct_value()->mutable_fields();
    const auto text = [&fields](const char* name, const std::string& value) {
      fields[name].set_string_value(value);
    };
    const auto number = [&fields](const char* name, double value) {
      fields[name] = NumberJson(value);
    };
    const v1::Job& job = summary.job;
    text("name", job.name());
    text("state", v1::Job::State_Name(job.state()));
    text("task", DescribeTask(job.task()));
    text("model", DescribeModel(job.model()));
    text("optimizer", DescribeOptimizer(job.optimizer()));
    text("clipping", DescribeClipping(job));
    text("seed", absl::StrCat(job.seed()));
    number("step", static_cast<double>(job.step()));
    number("clip_rate", job.clip_rate());
    number("nonfinite_steps", static_cast<double>(job.nonfinite_steps()));
    if (!summary.history.buckets().empty()) {
      number("loss", FinalLoss(summary));
      number("largest_norm_before", LargestNorm(summary));
    }
    if (!std::isnan(MeanGrowth(summary))) number("growth_factor", MeanGrowth(summary));
    if (const auto right = RightShare(job)) number("right_share", *right);
    google::protobuf::ListValue* const rules = fields["alerts"].mutable_list_value();
    for (const v1::Alert& alert : summary.alerts) {
      rules->add_values()->set_string_value(alert.rule_name());
    }
    google::protobuf::ListValue* const shadows = fields["shadow_clips"].mutable_list_value();
    for (int i = 0; i < std::min(job.shadow_clips_size(), job.shadow_summaries_size()); ++i) {
      auto& shadow = *shadows->add_values()->mutable_struct_value()->mutable_fields();
      const v1::ShadowSummary& summed = job.shadow_summaries(i);
      shadow["policy"].set_string_value(DescribePolicy(job.shadow_clips(i)));
      shadow["clip_rate"] = NumberJson(summed.clip_rate());
      if (summed.has_mean_coefficient()) {
        shadow["mean_coefficient"] = NumberJson(summed.mean_coefficient());
      }
    }
    text("verdict", Verdict(summary));
  }
  return all;
}

}  // namespace gradwatch::cli
