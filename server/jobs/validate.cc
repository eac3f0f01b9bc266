#include "server/jobs/validate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/alerts/custom_rule.h"
#include "server/alerts/rule_catalogue.h"
#include "server/data/source.h"
#include "server/jobs/names.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {
namespace {

std::string Text(double value) { return absl::StrFormat("%.10g", value); }
std::string Text(int64_t value) { return absl::StrCat(value); }

// The path of a setting. It is put together only where something is wrong with the setting. What it
// lies in, and the names, outlive it.
class Field {
 public:
  Field(const char* path) : name_(path) {}
  Field(absl::string_view path) : name_(path) {}
  Field(const std::string& path) : name_(path) {}
  Field(const Field& whole, absl::string_view name) : whole_(&whole), name_(name) {}
  Field(const Field& list, int index) : whole_(&list), index_(index) {}

  std::string path() const {
    if (whole_ == nullptr) return std::string(name_);
    if (index_ >= 0) return absl::StrCat(whole_->path(), "[", index_, "]");
    return absl::StrCat(whole_->path(), ".", name_);
  }

 private:
  const Field* whole_ = nullptr;
  absl::string_view name_;
  int index_ = -1;
};

// Collects what is wrong. Every check names its field, the value and what is allowed; NaN is in no
// range.
class Checker {
 public:
  explicit Checker(std::vector<FieldViolation>* violations) : violations_(violations) {}

  void Add(const Field& field, absl::string_view description) {
    violations_->push_back({field.path(), std::string(description)});
  }

  void Whole(const Field& field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return;
    Refuse(field, Text(value), absl::StrCat(low, " to ", high));
  }

  // low <= value <= high
  void Within(const Field& field, double value, double low, double high) {
    if (value >= low && value <= high) return;
    Refuse(field, Text(value), absl::StrCat(Text(low), " to ", Text(high)));
  }

  // low < value <= high
  void Above(const Field& field, double value, double low, double high) {
    if (value > low && value <= high) return;
    Refuse(field, Text(value), absl::StrCat("above ", Text(low), ", at most ", Text(high)));
  }

  // low <= value < high
  void Below(const Field& field, double value, double low, double high) {
    if (value >= low && value < high) return;
    Refuse(field, Text(value), absl::StrCat("at least ", Text(low), ", below ", Text(high)));
  }

  void Finite(const Field& field, double value) {
    if (!std::isfinite(value)) Refuse(field, Text(value), "finite numbers");
  }

  // A value of a proto3 enum: one that the schema knows, and not the one that means unspecified.
  template <typename E>
  void Enum(const Field& field, E value, bool (*is_valid)(int)) {
    if (value != 0 && is_valid(value)) return;
    const google::protobuf::EnumDescriptor& type = *google::protobuf::GetEnumDescriptor<E>();
    std::string allowed;
    for (int i = 0; i < type.value_count(); ++i) {
      if (type.value(i)->number() == 0) continue;
      absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", type.value(i)->name());
    }
    Refuse(field, absl::StrCat(static_cast<int>(value)), allowed);
  }

  void Refuse(const Field& field, absl::string_view value, absl::string_view allowed) {
    Add(field, absl::StrCat(value, " is not allowed; allowed: ", allowed));
  }

 private:
  std::vector<FieldViolation>* const violations_;
};

// --- Names and labels.

bool IsLabelKey(absl::string_view key) {
  if (key.empty() || key.size() > 63 || !absl::ascii_islower(key.front())) return false;
  for (const char c : key) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '_' && c != '-') return false;
  }
  return true;
}

bool IsLabelValue(absl::string_view value) {
  if (value.size() > 63) return false;
  for (const char c : value) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

void CheckLabels(const v1::Job& job, Checker* check) {
  if (job.labels_size() > kLabelsMax) {
    check->Add("labels", absl::StrCat("has ", job.labels_size(), " labels; at most ", kLabelsMax,
                                      " are allowed"));
  }
  // In order of key, so that the same labels give the same message.
  const std::map<std::string, std::string> labels(job.labels().begin(), job.labels().end());
  for (const auto& [key, value] : labels) {
    const std::string field = absl::StrCat("labels[", Quoted(key), "]");
    if (!IsLabelKey(key)) {
      check->Add(field, absl::StrCat(Quoted(key),
                                     " is not a label key; allowed: 1 to 63 characters of a-z, "
                                     "0-9, '_' and '-', starting with a letter"));
    }
    if (!IsLabelValue(value)) {
      check->Add(field, absl::StrCat(Quoted(value),
                                     " is not a label value; allowed: at most 63 characters of "
                                     "A-Z, a-z, 0-9, '_', '.' and '-'"));
    }
  }
}

// --- The task.

template <typename T>
void CheckLengths(const T& task, const Field& field, int64_t low, Checker* check) {
  check->Whole({field, "time_steps"}, task.time_steps(), low, kTimeStepsMax);
  // Its default, or as bad as the length itself: one complaint is enough.
  if (task.time_steps_min() == task.time_steps()) return;
  const int64_t high = std::clamp<int64_t>(task.time_steps(), low, kTimeStepsMax);
  check->Whole({field, "time_steps_min"}, task.time_steps_min(), low, high);
}

void CheckDatasetName(const std::string& name, const Field& field, Checker* check) {
  if (name.empty()) {
    check->Add(field, "is required: the name of an uploaded data set, as datasets/{id}");
  } else if (const auto id = IdOf(name, "datasets", field.path()); !id.ok()) {
    check->Add(field, FieldViolationsOf(id.status()).front().description);
  }
}

void CheckColumns(const google::protobuf::RepeatedPtrField<std::string>& columns,
                  const Field& field, Checker* check) {
  if (columns.size() > kColumnsNamedMax) {
    check->Add(field, absl::StrCat("names ", columns.size(), " columns; at most ", kColumnsNamedMax,
                                   " are allowed"));
    return;
  }
  std::set<std::string> seen;
  for (int i = 0; i < columns.size(); ++i) {
    if (!seen.insert(columns[i]).second) {
      check->Add({field, i}, absl::StrCat(Quoted(columns[i]), " is named twice"));
    }
  }
}

void CheckForecast(const v1::ForecastTask& task, Checker* check) {
  const Field field = "task.forecast";
  CheckDatasetName(task.dataset(), {field, "dataset"}, check);
  if (task.target_columns().empty()) {
    check->Add({field, "target_columns"}, "is required: at least one column of the table");
  }
  CheckColumns(task.target_columns(), {field, "target_columns"}, check);
  // The default is the target columns, which were checked already.
  const bool same = std::equal(task.input_columns().begin(), task.input_columns().end(),
                               task.target_columns().begin(), task.target_columns().end());
  if (!same) CheckColumns(task.input_columns(), {field, "input_columns"}, check);
  check->Whole({field, "time_steps"}, task.time_steps(), 1, kTimeStepsMax);
  check->Whole({field, "horizon"}, task.horizon(), 1, kTimeStepsMax);
  check->Within({field, "held_out_share"}, task.held_out_share(), 0.01, 0.9);
  check->Whole({field, "warmup_time_steps"}, task.warmup_time_steps(), 0,
               std::clamp(task.time_steps(), 1, kTimeStepsMax) - 1);
}

void CheckTask(const v1::Task& task, Checker* check) {
  switch (task.kind_case()) {
    case v1::Task::kAdding:
      return CheckLengths(task.adding(), "task.adding", 2, check);
    case v1::Task::kTemporalOrder:
      return CheckLengths(task.temporal_order(), "task.temporal_order", 10, check);
    case v1::Task::kCopyMemory:
      return check->Whole("task.copy_memory.delay", task.copy_memory().delay(), 1, kCopyDelayMax);
    case v1::Task::kLanguage:
      CheckDatasetName(task.language().dataset(), "task.language.dataset", check);
      check->Whole("task.language.time_steps", task.language().time_steps(), 1, kTimeStepsMax);
      return check->Within("task.language.held_out_share", task.language().held_out_share(), 0.0,
                           0.9);
    case v1::Task::kForecast:
      return CheckForecast(task.forecast(), check);
    case v1::Task::kMackeyGlass: {
      const v1::MackeyGlassTask& glass = task.mackey_glass();
      check->Whole("task.mackey_glass.time_steps", glass.time_steps(), 1, kTimeStepsMax);
      check->Whole("task.mackey_glass.horizon", glass.horizon(), 1, kMackeyHorizonMax);
      return check->Whole("task.mackey_glass.warmup_time_steps", glass.warmup_time_steps(), 0,
                          std::clamp(glass.time_steps(), 1, kTimeStepsMax) - 1);
    }
    case v1::Task::KIND_NOT_SET:
      return check->Add("task", "exactly one kind of task is required");
  }
}

// T, where the task itself is in order.
int64_t TimeStepsOf(const v1::Task& task) {
  switch (task.kind_case()) {
    case v1::Task::kAdding:
      return task.adding().time_steps();
    case v1::Task::kTemporalOrder:
      return task.temporal_order().time_steps();
    case v1::Task::kCopyMemory:
      return int64_t{task.copy_memory().delay()} + 20;
    case v1::Task::kLanguage:
      return task.language().time_steps();
    case v1::Task::kForecast:
      return task.forecast().time_steps();
    case v1::Task::kMackeyGlass:
      return task.mackey_glass().time_steps();
    case v1::Task::KIND_NOT_SET:
      break;
  }
  return 0;
}

// --- The model.

enum class TensorKind { kWeights, kRecurrent, kBias };

void CheckInitializer(const v1::Initializer& initializer, const Field& field, TensorKind kind,
                      Checker* check) {
  switch (initializer.kind_case()) {
    case v1::Initializer::kUniform:
      if (!initializer.uniform()) {
        check->Refuse({field, "uniform"}, "false", "true, or another kind");
      }
      return;
    case v1::Initializer::kOrthogonalGain:
      if (kind == TensorKind::kBias) {
        return check->Add({field, "orthogonal_gain"}, "is not allowed for biases");
      }
      return check->Above({field, "orthogonal_gain"}, initializer.orthogonal_gain(), 0, kGainMax);
    case v1::Initializer::kIdentityScale:
      if (kind != TensorKind::kRecurrent) {
        return check->Add({field, "identity_scale"},
                          "is only allowed in model.initialization.recurrent_weights");
      }
      return check->Finite({field, "identity_scale"}, initializer.identity_scale());
    case v1::Initializer::kNormalDeviation:
      return check->Within({field, "normal_deviation"}, initializer.normal_deviation(), 0,
                           kGainMax);
    case v1::Initializer::kConstant:
      return check->Finite({field, "constant"}, initializer.constant());
    case v1::Initializer::KIND_NOT_SET:
      return check->Add(field, "exactly one kind of initializer is required");
  }
}

void CheckInitialization(const v1::Model& model, Checker* check) {
  const v1::Initialization& init = model.initialization();
  const Field field = "model.initialization";
  const auto one = [&](bool present, const v1::Initializer& initializer, const char* name,
                       TensorKind kind) {
    if (present) CheckInitializer(initializer, {field, name}, kind, check);
  };
  one(init.has_input_weights(), init.input_weights(), "input_weights", TensorKind::kWeights);
  one(init.has_recurrent_weights(), init.recurrent_weights(), "recurrent_weights",
      TensorKind::kRecurrent);
  one(init.has_biases(), init.biases(), "biases", TensorKind::kBias);
  one(init.has_readout_weights(), init.readout_weights(), "readout_weights", TensorKind::kWeights);
  one(init.has_readout_bias(), init.readout_bias(), "readout_bias", TensorKind::kBias);
  one(init.has_embedding(), init.embedding(), "embedding", TensorKind::kWeights);
  if (!init.has_forget_gate_bias()) return;
  if (model.cell() != v1::Model::CELL_LSTM) {
    check->Add({field, "forget_gate_bias"}, "is only allowed with model.cell CELL_LSTM");
  }
  check->Finite({field, "forget_gate_bias"}, init.forget_gate_bias());
}

void CheckModel(const v1::Model& model, Checker* check) {
  check->Enum("model.cell", model.cell(), v1::Model::Cell_IsValid);
  check->Whole("model.layers", model.layers(), 1, kLayersMax);
  check->Whole("model.hidden_units", model.hidden_units(), 1, kHiddenUnitsMax);
  check->Enum("model.token_input", model.token_input(), v1::Model::TokenInput_IsValid);
  if (model.token_input() == v1::Model::TOKEN_INPUT_EMBEDDING) {
    check->Whole("model.embedding_width", model.embedding_width(), 1, kEmbeddingWidthMax);
  } else if (model.has_embedding_width()) {
    check->Add("model.embedding_width",
               absl::StrCat(model.embedding_width(),
                            " is only allowed with model.token_input TOKEN_INPUT_EMBEDDING"));
  }
  CheckInitialization(model, check);
}

// --- Optimizer, clipping, training.

void CheckOptimizer(const v1::Job& job, Checker* check) {
  const v1::Optimizer& optimizer = job.optimizer();
  check->Above("optimizer.learning_rate", optimizer.learning_rate(), 0, kLearningRateMax);
  if (optimizer.has_sgd()) {
    check->Below("optimizer.sgd.momentum", optimizer.sgd().momentum(), 0, 1);
    if (optimizer.sgd().nesterov() && optimizer.sgd().momentum() == 0.0) {
      check->Add("optimizer.sgd.nesterov", "needs optimizer.sgd.momentum above 0");
    }
  } else if (optimizer.has_adam()) {
    check->Below("optimizer.adam.beta1", optimizer.adam().beta1(), 0, 1);
    check->Below("optimizer.adam.beta2", optimizer.adam().beta2(), 0, 1);
    check->Above("optimizer.adam.epsilon", optimizer.adam().epsilon(), 0, 1);
  }
  if (optimizer.has_warmup_cosine()) {
    const v1::WarmupCosine& schedule = optimizer.warmup_cosine();
    check->Whole("optimizer.warmup_cosine.warmup_steps", schedule.warmup_steps(), 0,
                 std::clamp<int64_t>(job.training().step_limit(), 0, kStepLimitMax));
    const double rate = optimizer.learning_rate();
    check->Within("optimizer.warmup_cosine.learning_rate_min", schedule.learning_rate_min(), 0,
                  rate > 0 && rate <= kLearningRateMax ? rate : kLearningRateMax);
  }
}

void CheckValueClip(const v1::ValueClip& clip, const Field& field, Checker* check) {
  if (!clip.has_minimum() && !clip.has_maximum()) {
    check->Add(field, "needs a minimum, a maximum or both");
  }
  const bool minimum_ok = std::isfinite(clip.minimum()) && clip.minimum() <= 0.0;
  const bool maximum_ok = std::isfinite(clip.maximum()) && clip.maximum() >= 0.0;
  if (!minimum_ok) {
    check->Refuse({field, "minimum"}, Text(clip.minimum()), "finite numbers, at most 0");
  }
  if (!maximum_ok) {
    check->Refuse({field, "maximum"}, Text(clip.maximum()), "finite numbers, at least 0");
  }
  if (clip.has_minimum() && clip.has_maximum() && clip.minimum() == 0.0 && clip.maximum() == 0.0) {
    check->Add(field,
               "minimum and maximum are both 0, so every gradient would be 0; one must "
               "differ from 0");
  }
}

template <typename Clip>
void CheckNormClip(const Clip& clip, const Field& field, Checker* check) {
  if (!clip.has_max_norm()) {
    check->Add({field, "max_norm"}, "is required: a finite number above 0");
  } else if (!std::isfinite(clip.max_norm()) || clip.max_norm() <= 0.0) {
    check->Refuse({field, "max_norm"}, Text(clip.max_norm()), "finite numbers above 0");
  }
  check->Enum({field, "order"}, clip.order(), v1::NormOrder_IsValid);
  check->Enum({field, "convention"}, clip.convention(), v1::NormConvention_IsValid);
}

void CheckPolicies(const google::protobuf::RepeatedPtrField<v1::ClipPolicy>& policies,
                   const Field& name, Checker* check) {
  if (policies.size() > kPoliciesMax) {
    check->Add(name, absl::StrCat("has ", policies.size(), " policies; at most ", kPoliciesMax,
                                  " are allowed"));
    return;
  }
  for (int i = 0; i < policies.size(); ++i) {
    const v1::ClipPolicy& policy = policies[i];
    const Field field(name, i);
    switch (policy.kind_case()) {
      case v1::ClipPolicy::kValue:
        CheckValueClip(policy.value(), {field, "value"}, check);
        break;
      case v1::ClipPolicy::kParameterNorm:
        CheckNormClip(policy.parameter_norm(), {field, "parameter_norm"}, check);
        break;
      case v1::ClipPolicy::kGlobalNorm:
        CheckNormClip(policy.global_norm(), {field, "global_norm"}, check);
        break;
      case v1::ClipPolicy::KIND_NOT_SET:
        check->Add(field, "exactly one of value, parameter_norm and global_norm is required");
        break;
    }
  }
}

void CheckTraining(const v1::Job& job, Checker* check) {
  const v1::Training& training = job.training();
  check->Whole("training.step_limit", training.step_limit(), 1, kStepLimitMax);
  check->Whole("training.batch_size", training.batch_size(), 1, kBatchSizeMax);
  if (training.has_truncation()) {
    const int64_t time_steps = TimeStepsOf(job.task());
    check->Whole("training.truncation", training.truncation(), 1,
                 std::clamp<int64_t>(time_steps, 1, kTimeStepsMax));
  }
  check->Enum("training.precision", training.precision(), v1::Training::Precision_IsValid);
  check->Whole("training.non_finite.consecutive_max", training.non_finite().consecutive_max(), 1,
               kConsecutiveMax);
}

// 0 turns it off.
void CheckBadFactor(const Field& field, double value, Checker* check) {
  constexpr double kLow = 1.5;
  constexpr double kHigh = 1e6;
  if (value == 0.0 || (value >= kLow && value <= kHigh)) return;
  check->Refuse(field, Text(value), absl::StrCat("0, or ", Text(kLow), " to ", Text(kHigh)));
}

void CheckLadder(const v1::ResponseLadder& ladder, Checker* check) {
  CheckBadFactor("ladder.loss_factor", ladder.loss_factor(), check);
  CheckBadFactor("ladder.norm_factor", ladder.norm_factor(), check);
  check->Whole("ladder.skips_max", ladder.skips_max(), 0, 10'000);
  check->Whole("ladder.rate_cuts_max", ladder.rate_cuts_max(), 0, 100);
  if (!(ladder.rate_factor() > 0.0 && ladder.rate_factor() < 1.0)) {
    check->Refuse("ladder.rate_factor", Text(ladder.rate_factor()), "above 0, below 1");
  }
  check->Whole("ladder.rate_restore_steps", ladder.rate_restore_steps(), 0, 1'000'000);
  check->Whole("ladder.rollbacks_max", ladder.rollbacks_max(), 0, 100);
  check->Whole("ladder.batches_skipped", ladder.batches_skipped(), 0, 100'000);
  check->Whole("ladder.checkpoint_every_steps", ladder.checkpoint_every_steps(), 1, 1'000'000);
  check->Whole("ladder.checkpoints", ladder.checkpoints(), 1, kLadderCheckpointsMax);
  check->Whole("ladder.calm_steps", ladder.calm_steps(), 1, 10'000);
}

void CheckFaults(const v1::Job& job, Checker* check) {
  const v1::FaultInjection& fault = job.fault_injection();
  check->Whole("fault_injection.first_batch", fault.first_batch(), 0, kStepLimitMax);
  check->Whole("fault_injection.batches", fault.batches(), 1, kStepLimitMax);
  if (fault.kind_case() == v1::FaultInjection::KIND_NOT_SET) {
    check->Add("fault_injection", "exactly one of factor and not_a_number is required");
  } else if (fault.has_factor()) {
    check->Finite("fault_injection.factor", fault.factor());
  } else if (!fault.not_a_number()) {
    check->Refuse("fault_injection.not_a_number", "false", "true");
  }
  const v1::Task& task = job.task();
  if (!task.has_adding() && !task.has_forecast() && !task.has_mackey_glass()) {
    check->Add("fault_injection",
               "needs a task with numeric input: adding, forecast or mackey_glass");
  }
}

bool Concerns(const FieldViolation& violation, absl::string_view prefix) {
  return absl::StartsWith(violation.field, prefix);
}

// ShapeOf looks at the task, the batch size and the evaluation, and tells one thing at a time, as
// "field: what is wrong".
void CheckShape(const v1::Job& job, const data::DatasetContent* content,
                std::vector<FieldViolation>* violations) {
  for (const FieldViolation& violation : *violations) {
    if (Concerns(violation, "task") || Concerns(violation, "evaluation") ||
        violation.field == "training.batch_size") {
      return;
    }
  }
  const auto shape = data::ShapeOf(job, content);
  if (shape.ok()) return;
  const std::string message(shape.status().message());
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) {
    violations->push_back({"task", message});
  } else {
    violations->push_back({message.substr(0, colon), message.substr(colon + 2)});
  }
}

// A batch must have a row for each part.
void CheckDiagnostics(const v1::Job& job, Checker* check) {
  const v1::Diagnostics& diagnostics = job.diagnostics();
  const auto every = [check](const char* field, int64_t steps) {
    check->Whole(field, steps, 0, kStepLimitMax);
  };
  every("diagnostics.recurrent_every_steps", diagnostics.recurrent_every_steps());
  every("diagnostics.probe_every_steps", diagnostics.probe_every_steps());
  every("diagnostics.noise_every_steps", diagnostics.noise_every_steps());
  check->Whole("diagnostics.noise_parts", diagnostics.noise_parts(), 2, kNoisePartsMax);
  const int64_t rows = job.training().batch_size();
  const int parts = diagnostics.noise_parts();
  if (diagnostics.noise_every_steps() > 0 && parts >= 2 && parts <= kNoisePartsMax && rows >= 1 &&
      rows < parts) {
    check->Add(
        "diagnostics.noise_parts",
        absl::StrCat(parts, " is more than the batch has rows; with training.batch_size = ", rows,
                     rows < 2 ? ", noise_every_steps must be 0"
                              : absl::StrCat(", 2 to ", rows, " are allowed")));
  }
}

}  // namespace

void CheckJobSettings(const v1::Job& job, std::vector<FieldViolation>* violations) {
  Checker check(violations);
  CheckDisplayName(job.display_name(), "display_name", violations);
  CheckLabels(job, &check);
  CheckTask(job.task(), &check);
  CheckModel(job.model(), &check);
  CheckOptimizer(job, &check);
  CheckPolicies(job.clipping().policies(), "clipping.policies", &check);
  CheckPolicies(job.shadow_clips(), "shadow_clips", &check);
  CheckTraining(job, &check);
  if (job.has_ladder()) CheckLadder(job.ladder(), &check);
  if (job.has_fault_injection()) CheckFaults(job, &check);
  check.Whole("evaluation.every_steps", job.evaluation().every_steps(), 0, kStepLimitMax);
  check.Whole("evaluation.examples", job.evaluation().examples(), 1, kExamplesMax);
  check.Enum("statistics_level", job.statistics_level(), v1::StatisticsLevel_IsValid);
  CheckDiagnostics(job, &check);
  std::vector<alerts::SettingsProblem> problems;
  alerts::CheckRuleSettings(job.rules(), "rules", &problems);
  alerts::CheckCustomRules(job, "custom_rules", &problems);
  for (const auto& problem : problems) check.Add(problem.field, problem.description);
}

absl::StatusOr<int64_t> ValidateJob(const v1::Job& job, const data::DatasetContent* content,
                                    int64_t job_bytes_max, std::vector<FieldViolation> violations) {
  CheckJobSettings(job, &violations);
  CheckShape(job, content, &violations);
  if (!violations.empty()) return InvalidFields(violations);
  const int64_t bytes = train::EstimateMemoryBytes(job, content);
  if (bytes > job_bytes_max) {
    return InvalidFields({{"model", absl::StrCat("the job would hold about ", bytes,
                                                 " bytes; a job may hold at most ", job_bytes_max,
                                                 "; lower model.hidden_units, model.layers, "
                                                 "training.batch_size or the task's time steps")}});
  }
  return bytes;
}

double GradientCheckWork(const v1::Job& job, const data::DatasetContent* content, int entries) {
  const auto shape = data::ShapeOf(job, content);
  if (!shape.ok()) return 0.0;
  const v1::Model& model = job.model();
  const bool embeds = shape->vocabulary > 0 && model.has_embedding_width();
  const double gates = model.cell() == v1::Model::CELL_LSTM  ? 4.0
                       : model.cell() == v1::Model::CELL_GRU ? 3.0
                                                             : 1.0;
  const double hidden = model.hidden_units();
  // A one-hot input is a look-up.
  double width = shape->features > 0 ? static_cast<double>(shape->features) : 1.0;
  if (embeds) width = model.embedding_width();
  double position = hidden * static_cast<double>(shape->outputs);
  for (int layer = 0; layer < model.layers(); ++layer) {
    position += gates * hidden * (width + hidden);
    width = hidden;
  }
  const double tensors = 4.0 * model.layers() + 2.0 + (embeds ? 1.0 : 0.0);
  return 2.0 * entries * tensors * position * static_cast<double>(shape->rows_max) *
         static_cast<double>(shape->time_steps);
}

}  // namespace gradwatch::jobs
