#include "client/cli/describe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/command.h"
#include "client/cli/exit_code.h"
#include "client/cli/interventions.h"

namespace gradwatch::cli {
namespace {

// The value's name without `prefix`; its number when a newer server sends one that is unknown.
template <typename Enum>
std::string ShortName(Enum value, const std::string& (*name)(Enum), absl::string_view prefix) {
  const std::string& full = name(value);
  return full.empty() ? absl::StrCat(static_cast<int>(value))
                      : std::string(absl::StripPrefix(full, prefix));
}

void Line(absl::string_view what, absl::string_view value, std::string* text) {
  if (value.empty()) return;
  std::string label(what);
  label.resize(std::max<size_t>(label.size() + 1, 14), ' ');
  absl::StrAppend(text, label, value, "\n");
}

std::string DescribeEvaluation(const v1::EvaluationResult& evaluation) {
  std::string text = absl::StrCat("loss ", FormatNumber(evaluation.loss()));
  if (evaluation.has_accuracy()) {
    absl::StrAppend(&text, ", accuracy ", FormatShare(evaluation.accuracy()));
  }
  if (evaluation.has_solved_share()) {
    absl::StrAppend(&text, ", solved ", FormatShare(evaluation.solved_share()));
  }
  if (evaluation.rmse_original_units_size() > 0) {
    std::vector<std::string> errors;
    for (const double error : evaluation.rmse_original_units()) {
      errors.push_back(FormatNumber(error));
    }
    absl::StrAppend(&text, ", rmse ", absl::StrJoin(errors, " "));
  }
  return absl::StrCat(text, " (step ", evaluation.step(), ", ", evaluation.examples(),
                      " examples)");
}

std::string NormText(absl::string_view what, double norm, v1::NormOrder order,
                     v1::NormConvention convention) {
  std::string text = absl::StrCat(what, " ", FormatNumber(norm));
  std::vector<std::string> more;
  if (order != v1::NORM_ORDER_UNSPECIFIED && order != v1::NORM_ORDER_L2) {
    more.push_back(
        absl::AsciiStrToLower(ShortName(order, &v1::NormOrder_Name<v1::NormOrder>, "NORM_ORDER_")));
  }
  if (convention == v1::NORM_CONVENTION_EXACT) more.emplace_back("exact");
  if (!more.empty()) absl::StrAppend(&text, " (", absl::StrJoin(more, ", "), ")");
  return text;
}

std::string Age(const google::protobuf::Timestamp& time, absl::Time now) {
  return FormatElapsed(now - FromProto(time));
}

std::string DescribeLadder(const v1::ResponseLadder& ladder) {
  std::vector<std::string> bad = {"not finite"};
  if (ladder.loss_factor() > 0) {
    bad.push_back(absl::StrCat("loss above ", FormatNumber(ladder.loss_factor()), " times"));
  }
  if (ladder.norm_factor() > 0) {
    bad.push_back(absl::StrCat("norm above ", FormatNumber(ladder.norm_factor()), " times"));
  }
  return absl::StrCat("when ", absl::StrJoin(bad, ", "), ": skip ", ladder.skips_max(), ", rate x ",
                      FormatNumber(ladder.rate_factor()), " (at most ", ladder.rate_cuts_max(),
                      "), roll back (at most ", ladder.rollbacks_max(), "), stop");
}

std::string DescribeFaults(const v1::FaultInjection& fault) {
  return absl::StrCat("batches ", fault.first_batch(), " to ",
                      fault.first_batch() + fault.batches() - 1, " are spoilt on purpose: ",
                      fault.has_factor() ? absl::StrCat("times ", FormatNumber(fault.factor()))
                                         : std::string("NaN"));
}

std::string DescribeInitialization(const v1::Initialization& init) {
  std::vector<std::string> parts;
  const auto add = [&parts](absl::string_view what, bool present, const v1::Initializer& value) {
    if (present && value.kind_case() != v1::Initializer::KIND_NOT_SET && !value.has_uniform()) {
      parts.push_back(absl::StrCat(what, " ", DescribeInitializer(value)));
    }
  };
  add("recurrent", init.has_recurrent_weights(), init.recurrent_weights());
  add("input", init.has_input_weights(), init.input_weights());
  add("biases", init.has_biases(), init.biases());
  add("read-out", init.has_readout_weights(), init.readout_weights());
  add("read-out bias", init.has_readout_bias(), init.readout_bias());
  if (init.has_forget_gate_bias()) {
    parts.push_back(absl::StrCat("forget bias ", FormatNumber(init.forget_gate_bias())));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace

std::string StateName(v1::Job::State state) {
  return ShortName(state, &v1::Job::State_Name<v1::Job::State>, "STATE_");
}

std::string CellName(v1::Model::Cell cell) {
  if (cell == v1::Model::CELL_UNSPECIFIED) return "LSTM";
  return ShortName(cell, &v1::Model::Cell_Name<v1::Model::Cell>, "CELL_");
}

std::string SeverityName(v1::Severity severity) {
  return ShortName(severity, &v1::Severity_Name<v1::Severity>, "SEVERITY_");
}

std::string AlertStateName(v1::Alert::State state) {
  return ShortName(state, &v1::Alert::State_Name<v1::Alert::State>, "STATE_");
}

std::string KindName(v1::Dataset::Kind kind) {
  return absl::AsciiStrToLower(
      ShortName(kind, &v1::Dataset::Kind_Name<v1::Dataset::Kind>, "KIND_"));
}

std::string DescribeTask(const v1::Task& task) {
  const auto* oneof = v1::Task::descriptor()->FindOneofByName("kind");
  const auto* field = task.GetReflection()->GetOneofFieldDescriptor(task, oneof);
  if (field == nullptr) return "adding";
  std::string text = absl::StrReplaceAll(field->name(), {{"_", "-"}});
  const auto& kind = task.GetReflection()->GetMessage(task, field);
  const auto* steps = kind.GetDescriptor()->FindFieldByName("time_steps");
  if (steps != nullptr && kind.GetReflection()->HasField(kind, steps)) {
    absl::StrAppend(&text, " T=", kind.GetReflection()->GetInt32(kind, steps));
  }
  if (task.has_copy_memory() && task.copy_memory().has_delay()) {
    absl::StrAppend(&text, " delay ", task.copy_memory().delay());
  }
  if (task.has_language()) absl::StrAppend(&text, " ", task.language().dataset());
  if (task.has_forecast()) {
    absl::StrAppend(&text, " of ", absl::StrJoin(task.forecast().target_columns(), ", "), " ",
                    task.forecast().dataset());
  }
  return text;
}

std::string DescribeModel(const v1::Model& model) {
  return absl::StrCat(CellName(model.cell()), " ", model.has_layers() ? model.layers() : 1, "x",
                      model.has_hidden_units() ? model.hidden_units() : 128);
}

std::string DescribeOptimizer(const v1::Optimizer& optimizer) {
  std::string text = optimizer.has_sgd() ? "sgd" : "adam";
  if (optimizer.has_learning_rate()) {
    absl::StrAppend(&text, " lr ", FormatNumber(optimizer.learning_rate()));
  }
  if (optimizer.sgd().momentum() != 0) {
    absl::StrAppend(&text, " momentum ", FormatNumber(optimizer.sgd().momentum()));
  }
  if (optimizer.sgd().nesterov()) text += " nesterov";
  if (optimizer.has_warmup_cosine()) {
    absl::StrAppend(&text, ", warm-up ", optimizer.warmup_cosine().warmup_steps(),
                    " steps then cosine");
  }
  return text;
}

std::string DescribePolicy(const v1::ClipPolicy& policy) {
  switch (policy.kind_case()) {
    case v1::ClipPolicy::kValue: {
      const v1::ValueClip& clip = policy.value();
      return absl::StrCat("value ", clip.has_minimum() ? FormatNumber(clip.minimum()) : "", "..",
                          clip.has_maximum() ? FormatNumber(clip.maximum()) : "");
    }
    case v1::ClipPolicy::kParameterNorm: {
      const auto& clip = policy.parameter_norm();
      return NormText("per parameter", clip.max_norm(), clip.order(), clip.convention());
    }
    case v1::ClipPolicy::kGlobalNorm: {
      const auto& clip = policy.global_norm();
      return NormText("norm", clip.max_norm(), clip.order(), clip.convention());
    }
    case v1::ClipPolicy::KIND_NOT_SET:
      break;
  }
  return "unknown";
}

std::string DescribeClipping(const v1::Job& job) {
  if (!job.has_clipping()) return "norm 1";
  std::vector<std::string> parts;
  for (const v1::ClipPolicy& policy : job.clipping().policies()) {
    parts.push_back(DescribePolicy(policy));
  }
  return parts.empty() ? "none" : absl::StrJoin(parts, ", ");
}

std::string DescribeShadows(const v1::Job& job, const std::vector<double>& clip_rates) {
  std::vector<std::string> parts;
  for (int i = 0; i < job.shadow_clips_size(); ++i) {
    const auto at = static_cast<size_t>(i);
    parts.push_back(DescribePolicy(job.shadow_clips(i)));
    if (at < clip_rates.size()) absl::StrAppend(&parts.back(), " ", FormatShare(clip_rates[at]));
  }
  return absl::StrJoin(parts, ", ");
}

std::vector<double> ShadowRates(const v1::Job& job) {
  std::vector<double> rates;
  for (const v1::ShadowSummary& summary : job.shadow_summaries()) {
    rates.push_back(summary.clip_rate());
  }
  return rates;
}

std::string DescribeInitializer(const v1::Initializer& initializer) {
  switch (initializer.kind_case()) {
    case v1::Initializer::kOrthogonalGain:
      return absl::StrCat("orthogonal ", FormatNumber(initializer.orthogonal_gain()));
    case v1::Initializer::kIdentityScale:
      return absl::StrCat("identity ", FormatNumber(initializer.identity_scale()));
    case v1::Initializer::kNormalDeviation:
      return absl::StrCat("normal ", FormatNumber(initializer.normal_deviation()));
    case v1::Initializer::kConstant:
      return absl::StrCat("constant ", FormatNumber(initializer.constant()));
    default:
      return "uniform";
  }
}

std::string StatisticsLevelText(const v1::Job& job) {
  return absl::AsciiStrToLower(ShortName(
      job.statistics_level(), &v1::StatisticsLevel_Name<v1::StatisticsLevel>, "STATISTICS_LEVEL_"));
}

std::vector<std::pair<std::string, std::string>> SettingRows(const v1::Job& job) {
  std::vector<std::pair<std::string, std::string>> rows;
  rows.emplace_back("task", DescribeTask(job.task()));
  rows.emplace_back("model", DescribeModel(job.model()));
  rows.emplace_back("initial", DescribeInitialization(job.model().initialization()));
  rows.emplace_back("optimizer", DescribeOptimizer(job.optimizer()));
  rows.emplace_back("clipping", DescribeClipping(job));
  if (!job.shadow_clips().empty()) rows.emplace_back("shadow clips", DescribeShadows(job, {}));
  const v1::Training& training = job.training();
  std::string length =
      absl::StrCat(training.step_limit(), " steps of batch ", training.batch_size());
  if (training.has_truncation()) absl::StrAppend(&length, ", truncated at ", training.truncation());
  if (training.precision() == v1::Training::PRECISION_FLOAT64) length += ", float64";
  rows.emplace_back("training", length);
  if (job.has_ladder()) rows.emplace_back("ladder", DescribeLadder(job.ladder()));
  if (job.has_fault_injection()) rows.emplace_back("drill", DescribeFaults(job.fault_injection()));
  if (job.evaluation().every_steps() > 0) {
    rows.emplace_back("evaluation",
                      absl::StrCat("every ", job.evaluation().every_steps(), " steps on ",
                                   job.evaluation().examples(), " examples"));
  }
  rows.emplace_back("statistics", StatisticsLevelText(job));
  if (job.has_seed()) rows.emplace_back("seed", absl::StrCat(job.seed()));
  return rows;
}

std::string DescribeSettings(const v1::Job& job) {
  std::string text;
  for (const auto& [what, value] : SettingRows(job)) Line(what, value, &text);
  return text;
}

std::string DescribeNoise(const v1::StepStats& stats) {
  if (!stats.has_noise()) return "";
  const std::string ratio =
      absl::StrCat("signal to noise ", FormatNumber(stats.noise().signal_to_noise()));
  if (!stats.noise().has_noise_scale()) return absl::StrCat("scale too large to tell, ", ratio);
  return absl::StrCat("scale ", FormatNumber(stats.noise().noise_scale()), " rows, ", ratio);
}

std::string DescribeCurvature(const v1::StepStats& stats) {
  if (!stats.has_step_curvature()) return "";
  std::string text = absl::StrCat(FormatNumber(stats.step_curvature()), " along the last step");
  if (stats.learning_rate() > 0.0) {
    absl::StrAppend(&text, ", overshoots above ", FormatNumber(2.0 / stats.learning_rate()));
  }
  return text;
}

std::string DescribeFailure(const v1::Failure& failure) {
  return absl::StrCat(
      ShortName(failure.reason(), &v1::Failure::Reason_Name<v1::Failure::Reason>, "REASON_"),
      " at step ", failure.step(), ": ", failure.message());
}

std::string DescribeJob(const v1::Job& job, absl::Time now) {
  std::string text;
  Line("job", job.name(), &text);
  Line("name", job.display_name(), &text);
  std::vector<std::string> labels;
  for (const auto& [key, value] : job.labels()) labels.push_back(absl::StrCat(key, "=", value));
  std::sort(labels.begin(), labels.end());
  Line("labels", absl::StrJoin(labels, ", "), &text);
  std::string state = StateName(job.state());
  if (job.queue_position() > 0) absl::StrAppend(&state, ", place ", job.queue_position());
  Line("state", state, &text);
  if (job.has_failure()) Line("failure", DescribeFailure(job.failure()), &text);
  text += DescribeSettings(job);
  std::string step = absl::StrCat(job.step(), " of ", job.training().step_limit());
  if (job.updates_applied() != job.step()) {
    absl::StrAppend(&step, ", ", job.updates_applied(), " updates applied");
  }
  Line("step", step, &text);
  if (job.has_latest_stats()) {
    const v1::StepStats& stats = job.latest_stats();
    Line("loss", FormatNumber(stats.loss()), &text);
    std::string norm = FormatNumber(stats.norm_before());
    if (stats.has_norm_after()) {
      absl::StrAppend(&norm, " before clipping, ", FormatNumber(stats.norm_after()), " after");
    }
    Line("norm", norm, &text);
    if (stats.has_growth()) {
      std::string growth = FormatNumber(stats.growth().growth_factor());
      if (stats.growth().has_horizon()) {
        absl::StrAppend(
            &growth, ", horizon ", stats.growth().horizon_beyond_window() ? "at least " : "",
            FormatNumber(stats.growth().horizon_beyond_window() ? stats.growth().window()
                                                                : stats.growth().horizon()),
            " time steps");
      }
      Line("growth", growth, &text);
    }
    if (stats.has_gradient_cosine()) {
      Line("cosine",
           absl::StrCat(FormatNumber(stats.gradient_cosine()), " with the gradient before"), &text);
    }
    if (stats.has_distance_ratio()) {
      Line("moved",
           absl::StrCat(FormatNumber(stats.distance_from_start()), " from the first weights, ",
                        FormatShare(stats.distance_ratio()), " of their norm"),
           &text);
    }
    Line("noise", DescribeNoise(stats), &text);
    Line("curvature", DescribeCurvature(stats), &text);
    Line("clip rate", FormatShare(job.clip_rate()), &text);
    Line("shadow rates", DescribeShadows(job, ShadowRates(job)), &text);
  }
  if (job.nonfinite_steps() > 0)
    Line("not finite", absl::StrCat(job.nonfinite_steps(), " steps"), &text);
  if (job.has_latest_evaluation())
    Line("evaluated", DescribeEvaluation(job.latest_evaluation()), &text);
  if (job.has_best_evaluation()) Line("best", DescribeEvaluation(job.best_evaluation()), &text);
  for (const v1::CustomRule& rule : job.custom_rules()) {
    Line("own rule", absl::StrCat(rule.name(), ": ", rule.expression()), &text);
  }
  if (job.alerts_firing() > 0) {
    Line("alerts",
         absl::StrCat(job.alerts_firing(), " firing (gradwatch alerts ", IdOf(job.name()), ")"),
         &text);
  }
  if (job.interventions() > 0) {
    Line("changed",
         absl::StrCat(job.interventions(), job.interventions() == 1 ? " time" : " times",
                      ", the last ", InterventionLine(job.latest_intervention()),
                      " (gradwatch interventions ", IdOf(job.name()), ")"),
         &text);
  }
  if (job.has_create_time()) {
    Line("created", absl::StrCat(Age(job.create_time(), now), " ago"), &text);
  }
  if (job.has_start_time()) {
    Line("ran for",
         FormatElapsed((job.has_end_time() ? FromProto(job.end_time()) : now) -
                       FromProto(job.start_time())),
         &text);
  }
  if (job.memory_bytes() > 0) Line("memory", FormatBytes(job.memory_bytes()), &text);
  return text;
}

Table JobTable(const std::vector<v1::Job>& jobs, absl::Time now) {
  Table table({{"JOB"},
               {"STATE"},
               {"TASK"},
               {"MODEL"},
               {"CLIP"},
               {"STEP", Align::kRight},
               {"LOSS", Align::kRight},
               {"NORM", Align::kRight},
               {"CLIPPED", Align::kRight},
               {"ALERTS", Align::kRight},
               {"AGE", Align::kRight}});
  for (const v1::Job& job : jobs) {
    const bool ran = job.has_latest_stats();
    table.AddRow({IdOf(job.name()), StateName(job.state()), DescribeTask(job.task()),
                  DescribeModel(job.model()), DescribeClipping(job), absl::StrCat(job.step()),
                  ran ? FormatNumber(job.latest_stats().loss()) : "-",
                  ran ? FormatNumber(job.latest_stats().norm_before()) : "-",
                  ran ? FormatShare(job.clip_rate()) : "-", absl::StrCat(job.alerts_firing()),
                  job.has_create_time() ? Age(job.create_time(), now) : "-"});
  }
  return table;
}

std::string AlertStateText(const v1::Alert& alert) {
  std::string text = AlertStateName(alert.state());
  if (alert.state() != v1::Alert::STATE_FIRING) return text;
  const v1::Acknowledgement& note = alert.acknowledgement();
  const bool counts = alert.has_acknowledgement() &&
                      (!note.has_expire_time() || absl::Now() < FromProto(note.expire_time()));
  if (counts) absl::StrAppend(&text, ", seen by ", note.author());
  if (alert.has_silenced_until() && absl::Now() < FromProto(alert.silenced_until())) {
    text += ", silenced";
  }
  return text;
}

Table AlertTable(const std::vector<v1::Alert>& alerts, size_t width, bool unicode) {
  Table table({{"JOB"},
               {"RULE"},
               {"SEVERITY"},
               {"STATE"},
               {"STEP", Align::kRight},
               {"COUNT", Align::kRight},
               {"WHAT"}});
  // What the other columns take, about; a narrow terminal still shows some words.
  constexpr size_t kOthers = 70;
  const size_t room = width > kOthers + 30 ? width - kOthers : 30;
  for (const v1::Alert& alert : alerts) {
    const std::string id = IdOf(alert.name());
    table.AddRow({id.substr(0, id.find('/')), alert.rule_name(), SeverityName(alert.severity()),
                  AlertStateText(alert), absl::StrCat(alert.firing_step()),
                  absl::StrCat(alert.count()), Shorten(alert.message(), room, unicode)});
  }
  return table;
}

namespace {

// "held from 10, fired at 12, held last at 40, resolved at 55 (CONDITION)".
std::string AlertSteps(const v1::Alert& alert) {
  std::string text = absl::StrCat("held from ", alert.pending_step(), ", fired at ",
                                  alert.firing_step(), ", held last at ", alert.last_step());
  if (alert.state() == v1::Alert::STATE_RESOLVED) {
    absl::StrAppend(
        &text, ", resolved at ", alert.resolved_step(), " (",
        ShortName(alert.resolve_reason(), &v1::Alert::ResolveReason_Name<v1::Alert::ResolveReason>,
                  "RESOLVE_REASON_"),
        ")");
  }
  if (alert.count() > 1) absl::StrAppend(&text, "; ", alert.count(), " times");
  return text;
}

}  // namespace

std::string DescribeAlert(const v1::Alert& alert, size_t width) {
  // What stands behind a label as wide as those of Line.
  const auto wrapped = [width](const std::string& value) {
    constexpr size_t kLabel = 14;
    if (value.empty()) return value;
    return Wrap(absl::StrCat(std::string(kLabel - 1, '-'), " ", value), width, kLabel)
        .substr(kLabel);
  };
  std::string text;
  Line("alert", alert.name(), &text);
  Line("rule", absl::StrCat(alert.rule_name(), ", ", SeverityName(alert.severity())), &text);
  Line("state", AlertStateText(alert), &text);
  Line("what", wrapped(alert.message()), &text);
  std::string where = alert.tensor();
  if (alert.has_time_step()) {
    absl::StrAppend(&where, where.empty() ? "" : ", ", "time step ", alert.time_step());
  }
  Line("where", where, &text);
  Line("steps", AlertSteps(alert), &text);
  Line("value",
       absl::StrCat(FormatNumber(alert.first_value()), " when it fired, at worst ",
                    FormatNumber(alert.peak_value()), ", now ", FormatNumber(alert.last_value()),
                    "; the limit is ", FormatNumber(alert.threshold())),
       &text);
  const std::string id = IdOf(alert.name());
  if (alert.has_batch_origin()) {
    Line("batch",
         absl::StrCat("from ", alert.batch_origin(), " on (gradwatch batch ",
                      id.substr(0, id.find('/')), " ", alert.firing_step(), ")"),
         &text);
  }
  if (alert.has_last_good_step()) {
    Line("last good",
         absl::StrCat("the weights before step ", alert.last_good_step(),
                      ", where the ladder would go back to"),
         &text);
  }
  if (alert.has_acknowledgement()) {
    const v1::Acknowledgement& note = alert.acknowledgement();
    Line("seen by", absl::StrCat(note.author(), note.comment().empty() ? "" : ": ", note.comment()),
         &text);
  }
  Line("advice", wrapped(alert.advice()), &text);
  return text;
}

Table DatasetTable(const std::vector<v1::Dataset>& datasets, absl::Time now) {
  Table table({{"DATASET"},
               {"KIND"},
               {"SIZE", Align::kRight},
               {"CONTENT"},
               {"JOBS", Align::kRight},
               {"AGE", Align::kRight},
               {"NAME"}});
  for (const v1::Dataset& dataset : datasets) {
    table.AddRow({IdOf(dataset.name()), KindName(dataset.kind()), FormatBytes(dataset.size_bytes()),
                  dataset.kind() == v1::Dataset::KIND_TABLE
                      ? absl::StrCat(dataset.rows(), " rows, ", dataset.columns_size(), " columns")
                      : absl::StrCat(dataset.characters(), " characters, ",
                                     dataset.vocabulary_size(), " distinct"),
                  absl::StrCat(dataset.jobs_using()),
                  dataset.has_create_time() ? Age(dataset.create_time(), now) : "-",
                  dataset.display_name()});
  }
  return table;
}

std::string AlertLine(const v1::Alert& alert) {
  const bool resolved = alert.state() == v1::Alert::STATE_RESOLVED;
  std::string text = absl::StrCat(
      AlertStateName(alert.state()), " ", SeverityName(alert.severity()), " ", alert.rule_name(),
      " at step ", resolved ? alert.resolved_step() : alert.firing_step());
  if (!alert.tensor().empty()) absl::StrAppend(&text, " (", alert.tensor(), ")");
  if (!alert.message().empty() && !resolved) absl::StrAppend(&text, ": ", alert.message());
  return text;
}

std::optional<double> ChanceLoss(const v1::Task& task) {
  switch (task.kind_case()) {
    case v1::Task::kTemporalOrder:
      return std::log(4.0);
    case v1::Task::kCopyMemory:
      return 10 * std::log(8.0) /
             ((task.copy_memory().has_delay() ? task.copy_memory().delay() : 100) + 20);
    case v1::Task::kAdding:
    case v1::Task::KIND_NOT_SET:
      return 1.0 / 6;
    default:
      return std::nullopt;
  }
}

}  // namespace gradwatch::cli
