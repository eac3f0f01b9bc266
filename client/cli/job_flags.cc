#include "client/cli/job_flags.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/text.h"
#include "gradwatch/v1/task.pb.h"
#include "proto/support/closest_name.h"
#include "proto/support/errors.h"
#include "proto/support/spec_file.h"

namespace gradwatch::cli {
namespace {

constexpr char kWhat[] = "What is learnt";
constexpr char kModel[] = "Network";
constexpr char kOptimizer[] = "Optimizer and length";
constexpr char kClip[] = "Clipping (policies act in this order: value, per parameter, global)";
constexpr char kMeasure[] = "Measuring";
constexpr char kJob[] = "The job";

absl::Status Invalid(absl::string_view message) { return absl::InvalidArgumentError(message); }

absl::StatusOr<double> ParseNumber(absl::string_view flag, absl::string_view text) {
  double value = 0;
  if (absl::SimpleAtod(text, &value)) return value;
  return Invalid(absl::StrCat(flag, " wants a number, not '", text, "'"));
}

// The words of SetField for people: what is wrong without the path, which the flag replaces.
absl::Status SetJobField(const Flag& flag, const std::string& value, v1::Job* job) {
  const absl::Status status = SetField(flag.field, value, job);
  const auto violations = FieldViolationsOf(status);
  if (violations.empty()) return status;
  return Invalid(absl::StrCat(flag.names, " ", violations.front().description));
}

// A flag that sets one field of the job.
Flag FieldFlag(JobFlags* job, std::string names, std::string value, std::string field,
               std::string help, std::string default_text, std::string group) {
  Flag flag{.names = std::move(names),
            .value = std::move(value),
            .help = std::move(help),
            .default_text = std::move(default_text),
            .field = std::move(field),
            .group = std::move(group)};
  flag.set = [flag, job](const std::string& text) {
    v1::Job scratch;
    if (absl::Status status = SetJobField(flag, text, &scratch); !status.ok()) {
      // The parser puts the flag's name before what is wrong.
      return Invalid(absl::StripPrefix(status.message(), absl::StrCat(flag.names, " ")));
    }
    job->edits.push_back([flag, text](v1::Job* target) { return SetJobField(flag, text, target); });
    return absl::OkStatus();
  };
  return flag;
}

// --- tasks ---

struct TaskName {
  const char* flag;   // "temporal-order"
  const char* field;  // "temporal_order"
};
constexpr TaskName kTasks[] = {{"adding", "adding"},           {"temporal-order", "temporal_order"},
                               {"copy-memory", "copy_memory"}, {"mackey-glass", "mackey_glass"},
                               {"language", "language"},       {"forecast", "forecast"}};

// The task's field in Task; "adding" when no kind is set, as the server takes it.
std::string KindOf(const v1::Task& task) {
  const auto* oneof = task.GetDescriptor()->FindOneofByName("kind");
  const auto* field = task.GetReflection()->GetOneofFieldDescriptor(task, oneof);
  return field == nullptr ? "adding" : field->name();
}

// Sets `setting` of whatever task the job has.
absl::Status SetOfTask(const std::string& flag, const std::string& setting,
                       const std::string& value, v1::Job* job) {
  const std::string kind = KindOf(job->task());
  const auto* task_type = v1::Task::descriptor()->FindFieldByName(kind)->message_type();
  if (task_type->FindFieldByName(setting) == nullptr) {
    return Invalid(absl::StrCat(flag, " is not for the task ", kind,
                                kind == "copy_memory" ? ": its length is --delay" : ""));
  }
  return SetJobField({.names = flag, .field = absl::StrCat("task.", kind, ".", setting)}, value,
                     job);
}

// Every path "task.KIND.setting" that exists, separated by blanks.
std::string FieldsOfTasks(const std::string& setting) {
  std::vector<std::string> fields;
  for (const TaskName& task : kTasks) {
    const auto* type = v1::Task::descriptor()->FindFieldByName(task.field)->message_type();
    if (type->FindFieldByName(setting) != nullptr) {
      fields.push_back(absl::StrCat("task.", task.field, ".", setting));
    }
  }
  return absl::StrJoin(fields, " ");
}

Flag TaskFlag(JobFlags* job, const std::string& names, std::string value,
              const std::string& setting, std::string help, std::string default_text) {
  return {.names = names,
          .value = std::move(value),
          .help = std::move(help),
          .default_text = std::move(default_text),
          .field = FieldsOfTasks(setting),
          .group = kWhat,
          .set = [job, names, setting](const std::string& text) {
            job->edits.push_back([names, setting, text](v1::Job* target) {
              return SetOfTask(names, setting, text, target);
            });
            return absl::OkStatus();
          }};
}

std::vector<Flag> TaskFlags(JobFlags* job) {
  std::vector<std::string> names;
  for (const TaskName& task : kTasks) names.emplace_back(task.flag);
  return {
      {.names = "--file",
       .value = "FILE",
       .help = "Read the job from a YAML or JSON file with the fields of gradwatch.v1.Job ('-': "
               "standard input). Flags win over it.",
       .group = kWhat,
       .set = Into(&job->file)},
      {.names = "--task",
       .value = "TASK",
       .help = absl::StrCat("One of ", absl::StrJoin(names, ", "),
                            ". Generated but for the last two, which need data."),
       .default_text = "adding",
       .field = "task",
       .group = kWhat,
       .set = OneOf(names, &job->task)},
      TaskFlag(job, "--time-steps", "T", "time_steps",
               "Length of a sequence, or of a window of the data. copy-memory has --delay.",
               "50; mackey-glass 100"),
      TaskFlag(job, "--time-steps-min", "N", "time_steps_min",
               "adding, temporal-order: lengths are drawn from this to --time-steps.",
               "--time-steps"),
      TaskFlag(job, "--delay", "N", "delay", "copy-memory: time steps until the answer.", "100"),
      TaskFlag(job, "--horizon", "N", "horizon",
               "mackey-glass, forecast: how far ahead is predicted.", "mackey-glass 6, forecast 1"),
      TaskFlag(job, "--warmup-time-steps", "N", "warmup_time_steps",
               "mackey-glass, forecast: time steps at the start whose loss does not count.",
               "mackey-glass 20, forecast 0"),
      TaskFlag(job, "--held-out", "SHARE", "held_out_share",
               "language, forecast: share at the end that is held out for evaluation.",
               "language 0.1, forecast 0.2"),
      TaskFlag(job, "--carry-state", "true|false", "carry_state",
               "forecast: read the rows in order and carry the state from window to window.",
               "true"),
      {.names = "--text",
       .value = "FILE",
       .help = "Upload this text (unless the server has the same bytes) and learn to write it: "
               "makes the task language.",
       .group = kWhat,
       .set = Into(&job->text_path)},
      {.names = "--csv",
       .value = "FILE",
       .help = "Upload this table likewise and forecast --target: makes the task forecast.",
       .group = kWhat,
       .set = Into(&job->csv_path)},
      {.names = "--dataset",
       .value = "ID",
       .help = "language, forecast: a data set that is on the server (gradwatch datasets).",
       .field = "task.language.dataset task.forecast.dataset",
       .group = kWhat,
       .set = Into(&job->dataset)},
      {.names = "--target",
       .value = "COLUMN",
       .help = "forecast: a column that is predicted; may be repeated.",
       .field = "task.forecast.target_columns",
       .group = kWhat,
       .repeated = true,
       .set = Into(&job->targets)},
      {.names = "--input",
       .value = "COLUMN",
       .help = "forecast: a column that is seen; may be repeated.",
       .default_text = "the targets",
       .field = "task.forecast.input_columns",
       .group = kWhat,
       .repeated = true,
       .set = Into(&job->inputs)},
  };
}

// --- network ---

Flag InitFlag(JobFlags* job, const std::string& names, const std::string& tensor, std::string help,
              std::string default_text) {
  const std::string field = absl::StrCat("model.initialization.", tensor);
  return {.names = names,
          .value = "INIT",
          .help = std::move(help),
          .default_text = std::move(default_text),
          .field = field,
          .group = kModel,
          .set = [job, tensor](const std::string& text) {
            const absl::StatusOr<v1::Initializer> parsed = ParseInitializer(text);
            if (!parsed.ok()) return parsed.status();
            job->edits.push_back([tensor, value = *parsed](v1::Job* target) {
              v1::Initialization* init = target->mutable_model()->mutable_initialization();
              init->GetReflection()
                  ->MutableMessage(init, init->GetDescriptor()->FindFieldByName(tensor))
                  ->CopyFrom(value);
              return absl::OkStatus();
            });
            return absl::OkStatus();
          }};
}

std::vector<Flag> ModelFlags(JobFlags* job) {
  const auto field = [job](auto... parts) { return FieldFlag(job, parts..., kModel); };
  return {
      field("--cell", "CELL", "model.cell",
            "The recurrent cell: rnn-tanh, rnn-relu, rnn-sigmoid, gru or lstm.", "lstm"),
      field("--layers", "N", "model.layers", "Recurrent layers, 1 to 8.", "1"),
      field("--hidden", "N", "model.hidden_units", "Units of each layer, 1 to 4096.", "128"),
      field("--token-input", "KIND", "model.token_input",
            "How characters enter: one-hot or embedding.", "one-hot"),
      field("--embedding-width", "N", "model.embedding_width",
            "Width of the embedding, 1 to 4096, with --token-input embedding.", "64"),
      InitFlag(job, "--init-recurrent", "recurrent_weights",
               "Recurrent weights: uniform, orthogonal:GAIN, identity:SCALE, normal:DEVIATION or "
               "constant:VALUE.",
               "uniform"),
      InitFlag(job, "--init-input", "input_weights", "Input weights, likewise.", "uniform"),
      InitFlag(job, "--init-bias", "biases", "Biases of the cells, likewise.", "uniform"),
      InitFlag(job, "--init-readout", "readout_weights", "Weights of the read-out, likewise.",
               "uniform"),
      InitFlag(job, "--init-readout-bias", "readout_bias", "Bias of the read-out, likewise.",
               "uniform"),
      InitFlag(job, "--init-embedding", "embedding", "Embedding, likewise.", "normal:1"),
      field("--forget-bias", "X", "model.initialization.forget_gate_bias",
            "lstm: bias of the forget gate; above 0 it remembers longer.", "as --init-bias"),
  };
}

// --- optimizer and length ---

absl::Status ForSgd(const std::string& flag, v1::Job* job) {
  if (job->optimizer().has_sgd()) return absl::OkStatus();
  return Invalid(absl::StrCat(flag, " is for sgd: add --optimizer sgd"));
}

std::vector<Flag> OptimizerFlags(JobFlags* job) {
  const auto field = [job](auto... parts) { return FieldFlag(job, parts..., kOptimizer); };
  return {
      {.names = "--optimizer",
       .value = "sgd|adam",
       .help = "The optimizer.",
       .default_text = "adam",
       .field = "optimizer",
       .group = kOptimizer,
       .set = OneOf({"sgd", "adam"}, &job->optimizer)},
      field("--lr", "RATE", "optimizer.learning_rate", "Learning rate, above 0.", "0.002"),
      {.names = "--momentum",
       .value = "M",
       .help = "sgd: momentum, 0 to below 1.",
       .default_text = "0",
       .field = "optimizer.sgd.momentum",
       .group = kOptimizer,
       .set =
           [job](const std::string& text) {
             const absl::StatusOr<double> value = ParseNumber("", text);
             if (!value.ok()) return Invalid(absl::StrCat("wants a number, not '", text, "'"));
             job->edits.push_back([momentum = *value](v1::Job* target) {
               const absl::Status status = ForSgd("--momentum", target);
               if (status.ok()) target->mutable_optimizer()->mutable_sgd()->set_momentum(momentum);
               return status;
             });
             return absl::OkStatus();
           }},
      {.names = "--nesterov",
       .help = "sgd: Nesterov's form of momentum.",
       .field = "optimizer.sgd.nesterov",
       .group = kOptimizer,
       .set =
           [job](const std::string&) {
             job->edits.push_back([](v1::Job* target) {
               const absl::Status status = ForSgd("--nesterov", target);
               if (status.ok()) target->mutable_optimizer()->mutable_sgd()->set_nesterov(true);
               return status;
             });
             return absl::OkStatus();
           }},
      field("--warmup", "STEPS", "optimizer.warmup_cosine.warmup_steps",
            "Raise the rate over so many steps, then lower it along half a cosine.",
            "a constant rate"),
      field("--lr-min", "RATE", "optimizer.warmup_cosine.learning_rate_min",
            "Where that cosine ends; also turns it on.", "0"),
      field("--steps", "N", "training.step_limit", "Steps until the job succeeds.", "2000"),
      field("--batch", "N", "training.batch_size", "Sequences in a mini-batch, 1 to 65536.", "32"),
      field("--truncation", "K", "training.truncation",
            "The gradient goes back at most so many time steps.", "the full length"),
      field("--precision", "KIND", "training.precision", "Arithmetic: float32 or float64.",
            "float32"),
      field("--skip-non-finite", "true|false", "training.non_finite.skip",
            "Leave the weights alone in a step that is not finite.", "true"),
      field("--non-finite-max", "N", "training.non_finite.consecutive_max",
            "Fail after so many steps in a row that are not finite.", "5"),
      {.names = "--ladder",
       .help = "When training goes wrong, skip steps, lower the rate, go back to a checkpoint, and "
               "only then end the job; a job file sets its rungs.",
       .field = "ladder",
       .group = kOptimizer,
       .set =
           [job](const std::string&) {
             job->edits.push_back([](v1::Job* target) {
               target->mutable_ladder();
               return absl::OkStatus();
             });
             return absl::OkStatus();
           }},
  };
}

// --- measuring and the job itself ---

std::vector<Flag> MeasureFlags(JobFlags* job) {
  const auto field = [job](auto... parts) { return FieldFlag(job, parts..., kMeasure); };
  return {
      field("--stats", "LEVEL", "statistics_level",
            "What is measured at each step: off, basic (norms by tensor, growth factor) or full "
            "(arrays over time steps, histograms).",
            "basic"),
      field("--compare-steps", "true|false", "diagnostics.compare_steps",
            "Measure the cosine of successive gradients and the distance of the weights from the "
            "first; keeps two copies of the weights.",
            "false"),
      field("--recurrent-every", "N", "diagnostics.recurrent_every_steps",
            "Measure the recurrent matrices (largest singular value, spectral radius) every so "
            "many steps; 0 never.",
            "0"),
      field("--probe-every", "N", "diagnostics.probe_every_steps",
            "Send a gradient back from the last time step alone every so many steps; 0 never. With "
            "a loss at each time step it costs as much as a second forward and backward pass.",
            "0"),
      field("--noise-every", "N", "diagnostics.noise_every_steps",
            "Measure how much the gradient differs between parts of the batch (noise scale, signal "
            "to noise) every so many steps; 0 never. It costs as much as a second forward and "
            "backward pass.",
            "0"),
      field("--noise-parts", "N", "diagnostics.noise_parts",
            "Into how many parts of equal size the batch is cut for that, 2 to 16.", "2"),
      field("--eval-every", "N", "evaluation.every_steps",
            "Evaluate on held-out examples every so many steps; 0 never.", "100"),
      field("--eval-examples", "N", "evaluation.examples", "Examples of an evaluation.", "1000"),
      {.names = "--shadow-clip",
       .value = "POLICIES",
       .help = "Measure, and do not apply, what these thresholds would do: norms separated by "
               "commas, also l1:NORM, inf:NORM, parameter:NORM, value:X; at most 8.",
       .field = "shadow_clips",
       .group = kMeasure,
       .repeated = true,
       .set =
           [job](const std::string& text) {
             const absl::StatusOr<std::vector<v1::ClipPolicy>> policies = ParsePolicies(text);
             if (!policies.ok()) return policies.status();
             job->edits.push_back([policies = *policies](v1::Job* target) {
               for (const v1::ClipPolicy& policy : policies) *target->add_shadow_clips() = policy;
               return absl::OkStatus();
             });
             return absl::OkStatus();
           }},
      {.names = "--rule",
       .value = "RULE:SETTINGS",
       .help =
           "Settings of an alert rule, such as EXPLODING_ABS:threshold=500 or "
           "NON_FINITE:disabled; also second=, severity=, and for=, warmup=, resolve=, cooldown=, "
           "window= (steps). May be repeated; gradwatch alerts rules lists them.",
       .field = "rules",
       .group = kMeasure,
       .repeated = true,
       .set =
           [job](const std::string& text) {
             const absl::StatusOr<v1::RuleSettings> rule = ParseRule(text);
             if (!rule.ok()) return rule.status();
             job->edits.push_back([rule = *rule](v1::Job* target) {
               MergeRule(rule, target->mutable_rules());
               return absl::OkStatus();
             });
             return absl::OkStatus();
           }},
      {.names = "--custom-rule",
       .value = "NAME: EXPRESSION",
       .help = "A rule of the job's own, such as 'SLOW: duration_us > 3 * median for 5'; after the "
               "name also ,severity= ,warmup= ,cooldown=. May be repeated; README.md has the "
               "language.",
       .field = "custom_rules",
       .group = kMeasure,
       .repeated = true,
       .set =
           [job](const std::string& text) {
             const absl::StatusOr<v1::CustomRule> rule = ParseCustomRule(text);
             if (!rule.ok()) return rule.status();
             job->edits.push_back([rule = *rule](v1::Job* target) {
               MergeCustomRule(rule, target->mutable_custom_rules());
               return absl::OkStatus();
             });
             return absl::OkStatus();
           }},
  };
}

std::vector<Flag> NamingFlags(JobFlags* job) {
  const auto field = [job](auto... parts) { return FieldFlag(job, parts..., kJob); };
  return {
      field("--seed", "N", "seed", "Seed of every random choice.", "derived from the job's id"),
      field("--name", "TEXT", "display_name", "A name for people.", ""),
      {.names = "--label",
       .value = "KEY=VALUE",
       .help = "A label for filters and people; may be repeated.",
       .field = "labels",
       .group = kJob,
       .repeated = true,
       .set =
           [job](const std::string& text) {
             v1::Job scratch;
             if (absl::Status status = ParseLabel(text, scratch.mutable_labels()); !status.ok()) {
               return status;
             }
             job->edits.push_back(
                 [text](v1::Job* target) { return ParseLabel(text, target->mutable_labels()); });
             return absl::OkStatus();
           }},
  };
}

void Append(std::vector<Flag> more, std::vector<Flag>* flags) {
  for (Flag& flag : more) flags->push_back(std::move(flag));
}

absl::Status ApplyTask(const JobFlags& flags, v1::Job* job) {
  std::string wanted = flags.task;
  for (const auto& [path, task, flag] : {std::tuple(flags.text_path, "language", "--text"),
                                         std::tuple(flags.csv_path, "forecast", "--csv")}) {
    if (path.empty()) continue;
    if (!wanted.empty() && wanted != task) {
      return Invalid(absl::StrCat(flag, " makes the task ", task, ", but the task ", wanted,
                                  " is asked for as well"));
    }
    wanted = task;
  }
  if (!wanted.empty()) {
    for (const TaskName& task : kTasks) {
      // A file's settings of the same task stay.
      if (wanted == task.flag && !(job->has_task() && KindOf(job->task()) == task.field &&
                                   job->task().kind_case() != v1::Task::KIND_NOT_SET)) {
        v1::Task* const fresh = job->mutable_task();
        fresh->GetReflection()->MutableMessage(fresh,
                                               fresh->GetDescriptor()->FindFieldByName(task.field));
      }
    }
  }
  if (!flags.dataset.empty()) {
    if (!flags.text_path.empty() || !flags.csv_path.empty()) {
      return Invalid("--dataset names data on the server, --text and --csv upload some: give one");
    }
    const absl::Status status = SetOfTask("--dataset", "dataset", DatasetName(flags.dataset), job);
    if (!status.ok()) return status;
  }
  for (const auto& [columns, flag] :
       {std::pair(&flags.targets, "--target"), std::pair(&flags.inputs, "--input")}) {
    if (columns->empty()) continue;
    if (!job->task().has_forecast()) {
      return Invalid(absl::StrCat(flag, " is for a forecast: add --csv FILE or --task forecast"));
    }
    auto* field = columns == &flags.targets
                      ? job->mutable_task()->mutable_forecast()->mutable_target_columns()
                      : job->mutable_task()->mutable_forecast()->mutable_input_columns();
    field->Assign(columns->begin(), columns->end());
  }
  return absl::OkStatus();
}

}  // namespace

bool ClipFlags::given() const {
  return !global.empty() || !value.empty() || !parameter.empty() || !order.empty() ||
         !convention.empty();
}

absl::StatusOr<v1::Clipping> ClipFlags::ToProto() const {
  v1::Clipping clipping;
  if (!value.empty()) {
    v1::ValueClip* const clip = clipping.add_policies()->mutable_value();
    std::vector<std::string> bounds = absl::StrSplit(value, ',');
    if (bounds.size() > 2) return Invalid("--clip-value wants MIN,MAX or one number");
    for (const std::string& bound : bounds) {
      if (bound.empty() && bounds.size() == 2) continue;
      const absl::StatusOr<double> number = ParseNumber("--clip-value", bound);
      if (!number.ok()) return number.status();
      if (bounds.size() == 1) clip->set_minimum(-*number);
      if (bounds.size() == 2 && &bound == &bounds[0]) {
        clip->set_minimum(*number);
      } else {
        clip->set_maximum(*number);
      }
    }
  }
  v1::NormOrder norm_order = v1::NORM_ORDER_UNSPECIFIED;
  if (order == "l1") norm_order = v1::NORM_ORDER_L1;
  if (order == "l2") norm_order = v1::NORM_ORDER_L2;
  if (order == "inf") norm_order = v1::NORM_ORDER_INF;
  v1::NormConvention norm_convention = v1::NORM_CONVENTION_UNSPECIFIED;
  if (convention == "torch") norm_convention = v1::NORM_CONVENTION_TORCH;
  if (convention == "exact") norm_convention = v1::NORM_CONVENTION_EXACT;
  const auto fill = [&](absl::string_view flag, const std::string& text, auto* clip) {
    const absl::StatusOr<double> number = ParseNumber(flag, text);
    if (!number.ok()) return number.status();
    clip->set_max_norm(*number);
    clip->set_order(norm_order);
    clip->set_convention(norm_convention);
    return absl::OkStatus();
  };
  absl::Status status;
  if (!parameter.empty()) {
    status =
        fill("--clip-parameter-norm", parameter, clipping.add_policies()->mutable_parameter_norm());
  }
  // An order or convention alone belongs to the default policy.
  const std::string norm = !global.empty()                      ? global
                           : value.empty() && parameter.empty() ? "1"
                                                                : "none";
  if (status.ok() && norm != "none") {
    status = fill("--clip", norm, clipping.add_policies()->mutable_global_norm());
  }
  if (!status.ok()) return status;
  return clipping;
}

std::vector<Flag> FlagsOf(ClipFlags* clip) {
  constexpr char kGlobal[] = "clipping.policies.global_norm.max_norm";
  return {
      {.names = "--clip",
       .value = "NORM|none",
       .help = "Scale the whole gradient down to this norm; none: no clipping.",
       .default_text = "1.0",
       .field = absl::StrCat(kGlobal, " clipping"),
       .group = kClip,
       .set = Into(&clip->global)},
      {.names = "--clip-value",
       .value = "MIN,MAX",
       .help = "Hold every entry between these (either may be empty; one number X is -X,X); alone "
               "it replaces the global norm.",
       .field = "clipping.policies.value",
       .group = kClip,
       .set = Into(&clip->value)},
      {.names = "--clip-parameter-norm",
       .value = "NORM",
       .help = "Scale each parameter tensor down to this norm; alone it replaces the global norm.",
       .field = "clipping.policies.parameter_norm",
       .group = kClip,
       .set = Into(&clip->parameter)},
      {.names = "--clip-order",
       .value = "l1|l2|inf",
       .help = "Which norm is meant.",
       .default_text = "l2",
       .field = "clipping.policies.global_norm.order clipping.policies.parameter_norm.order",
       .group = kClip,
       .set = OneOf({"l1", "l2", "inf"}, &clip->order)},
      {.names = "--clip-convention",
       .value = "torch|exact",
       .help = "At the threshold: as torch.nn.utils.clip_grad_norm_, or exactly onto it.",
       .default_text = "torch",
       .field = "clipping.policies.global_norm.convention "
                "clipping.policies.parameter_norm.convention",
       .group = kClip,
       .set = OneOf({"torch", "exact"}, &clip->convention)},
  };
}

absl::StatusOr<std::vector<v1::ClipPolicy>> ParsePolicies(const std::string& text) {
  std::vector<v1::ClipPolicy> policies;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    std::pair<std::string, std::string> pair = absl::StrSplit(part, absl::MaxSplits(':', 1));
    if (!absl::StrContains(part, ':')) pair = {"l2", std::string(part)};
    const auto& [kind, text_of_number] = pair;
    v1::ClipPolicy& policy = policies.emplace_back();
    double number = 0;
    const bool known =
        kind == "l2" || kind == "l1" || kind == "inf" || kind == "parameter" || kind == "value";
    if (!known || !absl::SimpleAtod(text_of_number, &number)) {
      return Invalid(absl::StrCat(
          "wants norms separated by commas, or l1:NORM, inf:NORM, parameter:NORM, value:X, not '",
          part, "'"));
    }
    if (kind == "value") {
      policy.mutable_value()->set_minimum(-number);
      policy.mutable_value()->set_maximum(number);
    } else if (kind == "parameter") {
      policy.mutable_parameter_norm()->set_max_norm(number);
    } else {
      policy.mutable_global_norm()->set_max_norm(number);
      if (kind == "l1") policy.mutable_global_norm()->set_order(v1::NORM_ORDER_L1);
      if (kind == "inf") policy.mutable_global_norm()->set_order(v1::NORM_ORDER_INF);
    }
  }
  return policies;
}

absl::StatusOr<v1::Initializer> ParseInitializer(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  const auto& [kind, number] = parts;
  v1::Initializer initializer;
  double value = 1;
  if (!number.empty() && !absl::SimpleAtod(number, &value)) {
    return Invalid(absl::StrCat("wants a number after '", kind, ":', not '", number, "'"));
  }
  if (kind == "uniform" && number.empty()) {
    initializer.set_uniform(true);
  } else if (kind == "orthogonal") {
    initializer.set_orthogonal_gain(value);
  } else if (kind == "identity") {
    initializer.set_identity_scale(value);
  } else if (kind == "normal" && !number.empty()) {
    initializer.set_normal_deviation(value);
  } else if (kind == "constant" && !number.empty()) {
    initializer.set_constant(value);
  } else {
    return Invalid(absl::StrCat(
        "wants uniform, orthogonal:GAIN, identity:SCALE, normal:DEVIATION or constant:VALUE, not '",
        text, "'"));
  }
  return initializer;
}

namespace {

absl::StatusOr<v1::Severity> ParseSeverity(const std::string& text) {
  v1::Severity severity = v1::SEVERITY_UNSPECIFIED;
  const std::string name = absl::StrCat("SEVERITY_", absl::AsciiStrToUpper(text));
  if (v1::Severity_Parse(name, &severity) && severity != v1::SEVERITY_UNSPECIFIED) return severity;
  return Invalid(absl::StrCat("knows no severity '", text, "': there are info, warn and crit"));
}

}  // namespace

absl::StatusOr<v1::RuleSettings> ParseRule(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  v1::RuleSettings settings;
  const std::string name = absl::StrCat(
      "RULE_ID_", absl::StrReplaceAll(absl::AsciiStrToUpper(parts.first), {{"-", "_"}}));
  v1::RuleId id = v1::RULE_ID_UNSPECIFIED;
  std::vector<std::string> known;
  for (int i = 1; i < v1::RuleId_descriptor()->value_count(); ++i) {
    const auto* value = v1::RuleId_descriptor()->value(i);
    if (value->number() != v1::RULE_ID_CUSTOM) known.push_back(value->name().substr(8));
  }
  if (!v1::RuleId_Parse(name, &id) || id == v1::RULE_ID_UNSPECIFIED || id == v1::RULE_ID_CUSTOM) {
    return Invalid(absl::StrCat("knows no rule '", parts.first, "'", DidYouMean(parts.first, known),
                                " There are ", absl::StrJoin(known, ", ")));
  }
  settings.set_id(id);
  for (const absl::string_view item : absl::StrSplit(parts.second, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(item, absl::MaxSplits('=', 1));
    const std::string& key = pair.first;
    const std::string& value = pair.second;
    const auto steps = [&](auto set) {
      int64_t number = 0;
      if (!absl::SimpleAtoi(value, &number)) return false;
      (settings.*set)(number);
      return true;
    };
    bool good = false;
    if (key == "threshold") {
      double number = 0;
      good = absl::SimpleAtod(value, &number);
      settings.set_threshold(number);
    } else if (key == "second") {
      double number = 0;
      good = absl::SimpleAtod(value, &number);
      settings.set_second_threshold(number);
    } else if (key == "severity") {
      const absl::StatusOr<v1::Severity> severity = ParseSeverity(value);
      if (!severity.ok()) return severity.status();
      settings.set_severity(*severity);
      good = true;
    } else if (key == "warmup") {
      good = steps(&v1::RuleSettings::set_warmup_steps);
    } else if (key == "for") {
      good = steps(&v1::RuleSettings::set_for_steps);
    } else if (key == "resolve") {
      good = steps(&v1::RuleSettings::set_resolve_steps);
    } else if (key == "cooldown") {
      good = steps(&v1::RuleSettings::set_cooldown_steps);
    } else if (key == "window") {
      good = steps(&v1::RuleSettings::set_window_steps);
    } else if ((key == "disabled" || key == "enabled") && value.empty()) {
      settings.set_disabled(key == "disabled");
      good = true;
    } else {
      return Invalid(absl::StrCat("knows no setting '", key,
                                  "' of a rule: there are threshold=, second=, severity=, warmup=, "
                                  "for=, resolve=, cooldown=, window= and disabled, enabled"));
    }
    if (!good) return Invalid(absl::StrCat("wants a number in '", item, "'"));
  }
  return settings;
}

void MergeRule(const v1::RuleSettings& rule,
               google::protobuf::RepeatedPtrField<v1::RuleSettings>* rules) {
  for (v1::RuleSettings& other : *rules) {
    if (other.id() == rule.id()) {
      other.MergeFrom(rule);
      return;
    }
  }
  *rules->Add() = rule;
}

absl::StatusOr<v1::CustomRule> ParseCustomRule(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    return Invalid(absl::StrCat("wants NAME: EXPRESSION, not '", text, "'"));
  }
  const std::vector<std::string> head = absl::StrSplit(text.substr(0, colon), ',');
  v1::CustomRule rule;
  rule.set_name(std::string(absl::StripAsciiWhitespace(head[0])));
  rule.set_expression(std::string(absl::StripAsciiWhitespace(text.substr(colon + 1))));
  for (size_t i = 1; i < head.size(); ++i) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(absl::StripAsciiWhitespace(head[i]), absl::MaxSplits('=', 1));
    int64_t steps = 0;
    if (pair.first == "severity") {
      const absl::StatusOr<v1::Severity> severity = ParseSeverity(pair.second);
      if (!severity.ok()) return severity.status();
      rule.set_severity(*severity);
    } else if (pair.first != "warmup" && pair.first != "cooldown") {
      return Invalid(absl::StrCat("knows no setting '", pair.first,
                                  "' of a custom rule: there are severity=, warmup=, cooldown="));
    } else if (!absl::SimpleAtoi(pair.second, &steps)) {
      return Invalid(absl::StrCat("wants a number in '", head[i], "'"));
    } else if (pair.first == "warmup") {
      rule.set_warmup_steps(steps);
    } else {
      rule.set_cooldown_steps(steps);
    }
  }
  return rule;
}

void MergeCustomRule(const v1::CustomRule& rule,
                     google::protobuf::RepeatedPtrField<v1::CustomRule>* rules) {
  for (v1::CustomRule& other : *rules) {
    if (other.name() == rule.name()) {
      other = rule;
      return;
    }
  }
  *rules->Add() = rule;
}

absl::Status ParseLabel(const std::string& text,
                        google::protobuf::Map<std::string, std::string>* labels) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return Invalid(absl::StrCat("wants KEY=VALUE, not '", text, "'"));
  }
  (*labels)[text.substr(0, equals)] = text.substr(equals + 1);
  return absl::OkStatus();
}

std::vector<Flag> FlagsOf(JobFlags* job) {
  std::vector<Flag> flags;
  Append(TaskFlags(job), &flags);
  Append(ModelFlags(job), &flags);
  Append(OptimizerFlags(job), &flags);
  Append(FlagsOf(&job->clip), &flags);
  Append(MeasureFlags(job), &flags);
  Append(NamingFlags(job), &flags);
  return flags;
}

absl::StatusOr<v1::Job> BuildJob(const JobFlags& flags) {
  v1::Job job;
  if (!flags.file.empty()) {
    absl::Status status = ReadSpecFile(flags.file, &job);
    // A file that is not there is a wrong argument, not a job that is not there.
    if (!status.ok() && !absl::IsInvalidArgument(status)) status = Invalid(status.message());
    if (!status.ok()) return status;
  }
  if (absl::Status status = ApplyTask(flags, &job); !status.ok()) return status;
  if (flags.optimizer == "sgd") job.mutable_optimizer()->mutable_sgd();
  if (flags.optimizer == "adam") job.mutable_optimizer()->mutable_adam();
  for (const auto& edit : flags.edits) {
    if (absl::Status status = edit(&job); !status.ok()) return status;
  }
  if (flags.clip.given()) {
    absl::StatusOr<v1::Clipping> clipping = flags.clip.ToProto();
    if (!clipping.ok()) return clipping.status();
    *job.mutable_clipping() = *std::move(clipping);
  }
  return job;
}

absl::Status UploadError(const absl::Status& status) {
  return absl::StartsWith(status.message(), "cannot read") ? Invalid(status.message()) : status;
}

absl::StatusOr<v1::Job> BuildJobAndUpload(const JobFlags& flags, Session* session) {
  absl::StatusOr<v1::Job> job = BuildJob(flags);
  const bool is_text = !flags.text_path.empty();
  if (!job.ok() || (!is_text && flags.csv_path.empty())) return job;
  const absl::StatusOr<client::Client*> client = session->Connect();
  if (!client.ok()) return client.status();
  const client::Upload upload{.path = is_text ? flags.text_path : flags.csv_path,
                              .kind = is_text ? v1::Dataset::KIND_TEXT : v1::Dataset::KIND_TABLE,
                              .dataset_id = {},
                              .display_name = {}};
  const absl::StatusOr<client::UploadResult> uploaded = (*client)->UploadFile(upload, true);
  if (!uploaded.ok()) return UploadError(uploaded.status());
  const v1::Dataset& dataset = uploaded->dataset;
  session->Note(absl::StrCat(uploaded->reused ? "found " : "uploaded ", upload.path, " as ",
                             dataset.name(), " (", FormatBytes(dataset.size_bytes()), ")"));
  if (is_text) {
    job->mutable_task()->mutable_language()->set_dataset(dataset.name());
  } else {
    job->mutable_task()->mutable_forecast()->set_dataset(dataset.name());
  }
  return job;
}

}  // namespace gradwatch::cli
