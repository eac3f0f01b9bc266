#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "tests/unit/jobs/dataset_testing.h"
#include "tests/unit/jobs/job_testing.h"

// What strangers may send in place of a job: each gets the fitting code, the path of the field, the
// value and what is allowed; nothing is stored and the manager goes on.

namespace gradwatch::jobs {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using v1::Job;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct BadJob {
  std::string name;
  // Spoils a request that is in order.
  std::function<void(v1::CreateJobRequest*)> spoil;
  std::string field;
  // What the description of the field says: the value, or what is allowed.
  std::string says;
  StatusCode code = StatusCode::kInvalidArgument;
};

// One that spoils the job only.
BadJob Bad(std::string name, std::function<void(Job*)> spoil, std::string field, std::string says) {
  return {
      std::move(name),
      [spoil = std::move(spoil)](v1::CreateJobRequest* request) { spoil(request->mutable_job()); },
      std::move(field), std::move(says)};
}

v1::GlobalNormClip* AddGlobal(Job* job) {
  return job->mutable_clipping()->add_policies()->mutable_global_norm();
}
v1::ValueClip* AddValue(Job* job) {
  return job->mutable_clipping()->add_policies()->mutable_value();
}
v1::ForecastTask* Forecast(Job* job) {
  v1::ForecastTask* task = job->mutable_task()->mutable_forecast();
  task->set_dataset("datasets/table");
  task->add_target_columns("y");
  return task;
}
v1::LanguageTask* Language(Job* job) {
  v1::LanguageTask* task = job->mutable_task()->mutable_language();
  task->set_dataset("datasets/text");
  return task;
}

std::vector<BadJob> IdAndTextTable() {
  return {
      {"IdWithSlash", [](auto* r) { r->set_job_id("a/b"); }, "job_id", "a/b"},
      {"IdThatClimbs", [](auto* r) { r->set_job_id("../../etc/passwd"); }, "job_id", "letter"},
      {"IdUpperCase", [](auto* r) { r->set_job_id("Job"); }, "job_id", "a-z"},
      {"IdStartsWithDigit", [](auto* r) { r->set_job_id("1a"); }, "job_id", "1a"},
      {"IdTooLong", [](auto* r) { r->set_job_id(std::string(64, 'a')); }, "job_id", "63"},
      {"IdWithNul", [](auto* r) { r->set_job_id(std::string("a\0b", 3)); }, "job_id", "\\x00"},
      {"RequestIdTooLong", [](auto* r) { r->set_request_id(std::string(65, 'r')); }, "request_id",
       "64"},
      Bad(
          "DisplayNameTooLong", [](Job* j) { j->set_display_name(std::string(129, 'x')); },
          "display_name", "at most 128"),
      Bad(
          "DisplayNameNotUtf8", [](Job* j) { j->set_display_name("\xff\xfe"); }, "display_name",
          "UTF-8"),
      Bad(
          "LabelKeyUpperCase", [](Job* j) { (*j->mutable_labels())["Team"] = "x"; },
          "labels['Team']", "label key"),
      Bad(
          "LabelKeyEmpty", [](Job* j) { (*j->mutable_labels())[""] = "x"; }, "labels['']",
          "label key"),
      Bad(
          "LabelValueWithBlank", [](Job* j) { (*j->mutable_labels())["a"] = "x y"; }, "labels['a']",
          "'x y'"),
      Bad(
          "LabelValueTooLong", [](Job* j) { (*j->mutable_labels())["a"] = std::string(64, 'x'); },
          "labels['a']", "63"),
      Bad(
          "TooManyLabels",
          [](Job* j) {
            for (char c = 'a'; c < 'a' + 17; ++c) {
              (*j->mutable_labels())[std::string("k") + c] = "v";
            }
          },
          "labels", "at most 16"),
  };
}

std::vector<BadJob> TaskTable() {
  return {
      Bad(
          "TimeStepsZero", [](Job* j) { j->mutable_task()->mutable_adding()->set_time_steps(0); },
          "task.adding.time_steps", "2 to 10000"),
      Bad(
          "TimeStepsNegative",
          [](Job* j) { j->mutable_task()->mutable_adding()->set_time_steps(-5); },
          "task.adding.time_steps", "-5"),
      Bad(
          "TimeStepsLowest",
          [](Job* j) {
            j->mutable_task()->mutable_mackey_glass()->set_time_steps(
                std::numeric_limits<int32_t>::min());
          },
          "task.mackey_glass.time_steps", "-2147483648"),
      Bad(
          "TimeStepsABillion",
          [](Job* j) {
            j->mutable_task()->mutable_temporal_order()->set_time_steps(1'000'000'000);
          },
          "task.temporal_order.time_steps", "1000000000"),
      Bad(
          "TimeStepsTooShortForTheTask",
          [](Job* j) { j->mutable_task()->mutable_temporal_order()->set_time_steps(9); },
          "task.temporal_order.time_steps", "10 to 10000"),
      Bad(
          "MinimumAboveTimeSteps",
          [](Job* j) {
            j->mutable_task()->mutable_adding()->set_time_steps(50);
            j->mutable_task()->mutable_adding()->set_time_steps_min(51);
          },
          "task.adding.time_steps_min", "2 to 50"),
      Bad(
          "DelayZero", [](Job* j) { j->mutable_task()->mutable_copy_memory()->set_delay(0); },
          "task.copy_memory.delay", "1 to 9980"),
      Bad(
          "HorizonTooFar",
          [](Job* j) { j->mutable_task()->mutable_mackey_glass()->set_horizon(1001); },
          "task.mackey_glass.horizon", "1 to 1000"),
      Bad(
          "WarmupWholeWindow",
          [](Job* j) {
            j->mutable_task()->mutable_mackey_glass()->set_time_steps(30);
            j->mutable_task()->mutable_mackey_glass()->set_warmup_time_steps(30);
          },
          "task.mackey_glass.warmup_time_steps", "0 to 29"),
      Bad(
          "LanguageWithoutDataset", [](Job* j) { j->mutable_task()->mutable_language(); },
          "task.language.dataset", "is required"),
      Bad(
          "LanguageDatasetPath", [](Job* j) { Language(j)->set_dataset("/etc/passwd"); },
          "task.language.dataset", "datasets/{id}"),
      Bad(
          "LanguageDatasetClimbs", [](Job* j) { Language(j)->set_dataset("datasets/../x"); },
          "task.language.dataset", "datasets/../x"),
      Bad(
          "LanguageOfATable", [](Job* j) { Language(j)->set_dataset("datasets/table"); },
          "task.language.dataset", "table"),
      Bad(
          "LanguageHeldOutNan", [](Job* j) { Language(j)->set_held_out_share(kNan); },
          "task.language.held_out_share", "nan"),
      Bad(
          "LanguageTextTooShort",
          [](Job* j) {
            Language(j)->set_time_steps(10'000);
            j->mutable_training()->set_batch_size(1000);
          },
          "task.language.dataset", ""),
      {"LanguageDatasetUnknown",
       [](auto* r) { Language(r->mutable_job())->set_dataset("datasets/none"); }, "",
       "datasets/none", StatusCode::kNotFound},
      {"ForecastDatasetUnknown",
       [](auto* r) { Forecast(r->mutable_job())->set_dataset("datasets/none"); }, "",
       "datasets/none", StatusCode::kNotFound},
      Bad(
          "ForecastOfAText", [](Job* j) { Forecast(j)->set_dataset("datasets/text"); },
          "task.forecast.dataset", "text"),
      Bad(
          "ForecastWithoutTargets", [](Job* j) { Forecast(j)->clear_target_columns(); },
          "task.forecast.target_columns", "at least one column"),
      Bad(
          "ForecastUnknownColumn", [](Job* j) { Forecast(j)->set_target_columns(0, "nope"); },
          "task.forecast.target_columns[0]", "nope"),
      Bad(
          "ForecastColumnTwice", [](Job* j) { Forecast(j)->add_target_columns("y"); },
          "task.forecast.target_columns[1]", "twice"),
      Bad(
          "ForecastColumnOfWords", [](Job* j) { Forecast(j)->add_input_columns("word"); },
          "task.forecast.input_columns[0]", "word"),
      Bad(
          "ForecastColumnWithAHole", [](Job* j) { Forecast(j)->set_target_columns(0, "hole"); },
          "task.forecast.target_columns[0]", "row 3"),
      Bad(
          "ForecastHeldOutAll", [](Job* j) { Forecast(j)->set_held_out_share(1.0); },
          "task.forecast.held_out_share", "0.01 to 0.9"),
      Bad(
          "ForecastHorizonNegative", [](Job* j) { Forecast(j)->set_horizon(-1); },
          "task.forecast.horizon", "-1"),
  };
}

std::vector<BadJob> ModelTable() {
  const auto init = [](Job* j) { return j->mutable_model()->mutable_initialization(); };
  return {
      Bad(
          "UnknownCell",
          [](Job* j) { j->mutable_model()->set_cell(static_cast<v1::Model::Cell>(42)); },
          "model.cell", "CELL_LSTM"),
      Bad(
          "LayersZero", [](Job* j) { j->mutable_model()->set_layers(0); }, "model.layers",
          "1 to 8"),
      Bad(
          "LayersNine", [](Job* j) { j->mutable_model()->set_layers(9); }, "model.layers", "9"),
      Bad(
          "HiddenUnitsZero", [](Job* j) { j->mutable_model()->set_hidden_units(0); },
          "model.hidden_units", "1 to 4096"),
      Bad(
          "HiddenUnitsNegative", [](Job* j) { j->mutable_model()->set_hidden_units(-128); },
          "model.hidden_units", "-128"),
      Bad(
          "HiddenUnitsABillion",
          [](Job* j) { j->mutable_model()->set_hidden_units(1'000'000'000); }, "model.hidden_units",
          "1000000000"),
      Bad(
          "UnknownTokenInput",
          [](Job* j) {
            j->mutable_model()->set_token_input(static_cast<v1::Model::TokenInput>(7));
          },
          "model.token_input", "TOKEN_INPUT_EMBEDDING"),
      Bad(
          "EmbeddingWidthWithoutEmbedding",
          [](Job* j) { j->mutable_model()->set_embedding_width(8); }, "model.embedding_width",
          "TOKEN_INPUT_EMBEDDING"),
      Bad(
          "EmbeddingWidthZero",
          [](Job* j) {
            j->mutable_model()->set_token_input(v1::Model::TOKEN_INPUT_EMBEDDING);
            j->mutable_model()->set_embedding_width(0);
          },
          "model.embedding_width", "1 to 4096"),
      Bad(
          "UniformFalse", [=](Job* j) { init(j)->mutable_biases()->set_uniform(false); },
          "model.initialization.biases.uniform", "true"),
      Bad(
          "OrthogonalBias", [=](Job* j) { init(j)->mutable_biases()->set_orthogonal_gain(1); },
          "model.initialization.biases.orthogonal_gain", "not allowed for biases"),
      Bad(
          "OrthogonalGainZero",
          [=](Job* j) { init(j)->mutable_recurrent_weights()->set_orthogonal_gain(0); },
          "model.initialization.recurrent_weights.orthogonal_gain", "above 0"),
      Bad(
          "IdentityOnInputWeights",
          [=](Job* j) { init(j)->mutable_input_weights()->set_identity_scale(1); },
          "model.initialization.input_weights.identity_scale", "recurrent_weights"),
      Bad(
          "IdentityInfinite",
          [=](Job* j) { init(j)->mutable_recurrent_weights()->set_identity_scale(kInfinity); },
          "model.initialization.recurrent_weights.identity_scale", "finite"),
      Bad(
          "DeviationNegative",
          [=](Job* j) { init(j)->mutable_readout_weights()->set_normal_deviation(-1); },
          "model.initialization.readout_weights.normal_deviation", "0 to 100"),
      Bad(
          "ConstantNan", [=](Job* j) { init(j)->mutable_readout_bias()->set_constant(kNan); },
          "model.initialization.readout_bias.constant", "nan"),
      Bad(
          "ForgetBiasWithoutLstm",
          [=](Job* j) {
            j->mutable_model()->set_cell(v1::Model::CELL_GRU);
            init(j)->set_forget_gate_bias(1);
          },
          "model.initialization.forget_gate_bias", "CELL_LSTM"),
      Bad(
          "ForgetBiasNan", [=](Job* j) { init(j)->set_forget_gate_bias(kNan); },
          "model.initialization.forget_gate_bias", "finite"),
  };
}

std::vector<BadJob> TrainingTable() {
  return {
      Bad(
          "LearningRateZero", [](Job* j) { j->mutable_optimizer()->set_learning_rate(0); },
          "optimizer.learning_rate", "above 0"),
      Bad(
          "LearningRateNan", [](Job* j) { j->mutable_optimizer()->set_learning_rate(kNan); },
          "optimizer.learning_rate", "nan"),
      Bad(
          "LearningRateInfinite",
          [](Job* j) { j->mutable_optimizer()->set_learning_rate(kInfinity); },
          "optimizer.learning_rate", "at most 1000"),
      Bad(
          "MomentumOne", [](Job* j) { j->mutable_optimizer()->mutable_sgd()->set_momentum(1); },
          "optimizer.sgd.momentum", "below 1"),
      Bad(
          "NesterovWithoutMomentum",
          [](Job* j) { j->mutable_optimizer()->mutable_sgd()->set_nesterov(true); },
          "optimizer.sgd.nesterov", "momentum above 0"),
      Bad(
          "Beta1One", [](Job* j) { j->mutable_optimizer()->mutable_adam()->set_beta1(1); },
          "optimizer.adam.beta1", "below 1"),
      Bad(
          "Beta2Negative", [](Job* j) { j->mutable_optimizer()->mutable_adam()->set_beta2(-0.1); },
          "optimizer.adam.beta2", "-0.1"),
      Bad(
          "EpsilonZero", [](Job* j) { j->mutable_optimizer()->mutable_adam()->set_epsilon(0); },
          "optimizer.adam.epsilon", "above 0"),
      Bad(
          "WarmupBeyondStepLimit",
          [](Job* j) { j->mutable_optimizer()->mutable_warmup_cosine()->set_warmup_steps(11); },
          "optimizer.warmup_cosine.warmup_steps", "0 to 10"),
      Bad(
          "LeastRateAboveRate",
          [](Job* j) {
            j->mutable_optimizer()->mutable_warmup_cosine()->set_learning_rate_min(0.1);
          },
          "optimizer.warmup_cosine.learning_rate_min", "0 to 0.002"),
      Bad(
          "StepLimitZero", [](Job* j) { j->mutable_training()->set_step_limit(0); },
          "training.step_limit", "1 to 1000000000"),
      Bad(
          "StepLimitHuge",
          [](Job* j) {
            j->mutable_training()->set_step_limit(std::numeric_limits<int64_t>::max());
          },
          "training.step_limit", "9223372036854775807"),
      Bad(
          "BatchSizeZero", [](Job* j) { j->mutable_training()->set_batch_size(0); },
          "training.batch_size", "1 to 65536"),
      Bad(
          "BatchSizeNegative", [](Job* j) { j->mutable_training()->set_batch_size(-1); },
          "training.batch_size", "-1"),
      Bad(
          "TruncationBeyondTimeSteps", [](Job* j) { j->mutable_training()->set_truncation(51); },
          "training.truncation", "1 to 50"),
      Bad(
          "TruncationZero", [](Job* j) { j->mutable_training()->set_truncation(0); },
          "training.truncation", "1 to 50"),
      Bad(
          "UnknownPrecision",
          [](Job* j) {
            j->mutable_training()->set_precision(static_cast<v1::Training::Precision>(16));
          },
          "training.precision", "PRECISION_FLOAT64"),
      Bad(
          "ConsecutiveMaxZero",
          [](Job* j) { j->mutable_training()->mutable_non_finite()->set_consecutive_max(0); },
          "training.non_finite.consecutive_max", "1 to 1000000"),
      Bad(
          "EveryStepsNegative", [](Job* j) { j->mutable_evaluation()->set_every_steps(-1); },
          "evaluation.every_steps", "0 to 1000000000"),
      Bad(
          "ExamplesZero", [](Job* j) { j->mutable_evaluation()->set_examples(0); },
          "evaluation.examples", "1 to 1000000"),
      Bad(
          "UnknownLevel",
          [](Job* j) { j->set_statistics_level(static_cast<v1::StatisticsLevel>(9)); },
          "statistics_level", "STATISTICS_LEVEL_FULL"),
      Bad(
          "RecurrentEveryNegative",
          [](Job* j) { j->mutable_diagnostics()->set_recurrent_every_steps(-1); },
          "diagnostics.recurrent_every_steps", "0 to 1000000000"),
      Bad(
          "ProbeEveryNegative", [](Job* j) { j->mutable_diagnostics()->set_probe_every_steps(-1); },
          "diagnostics.probe_every_steps", "0 to 1000000000"),
      Bad(
          "NoiseEveryNegative", [](Job* j) { j->mutable_diagnostics()->set_noise_every_steps(-1); },
          "diagnostics.noise_every_steps", "0 to 1000000000"),
      Bad(
          "NoiseOfOnePart", [](Job* j) { j->mutable_diagnostics()->set_noise_parts(1); },
          "diagnostics.noise_parts", "2 to 16"),
      Bad(
          "NoiseOfManyParts", [](Job* j) { j->mutable_diagnostics()->set_noise_parts(17); },
          "diagnostics.noise_parts", "2 to 16"),
      Bad(
          "NoiseOfMorePartsThanRows",
          [](Job* j) {
            j->mutable_training()->set_batch_size(5);
            j->mutable_diagnostics()->set_noise_every_steps(10);
            j->mutable_diagnostics()->set_noise_parts(6);
          },
          "diagnostics.noise_parts", "2 to 5 are allowed"),
      Bad(
          "NoiseOfASingleRow",
          [](Job* j) {
            j->mutable_training()->set_batch_size(1);
            j->mutable_diagnostics()->set_noise_every_steps(10);
          },
          "diagnostics.noise_parts", "noise_every_steps must be 0"),
      Bad(
          "MoreMemoryThanAJobMayHold",
          [](Job* j) {
            j->mutable_model()->set_hidden_units(4096);
            j->mutable_model()->set_layers(8);
            j->mutable_training()->set_batch_size(65'536);
            j->mutable_task()->mutable_adding()->set_time_steps(10'000);
          },
          "model", "4294967296"),
  };
}

std::vector<BadJob> ClippingAndRulesTable() {
  return {
      Bad(
          "ShadowWithoutKind", [](Job* j) { j->add_shadow_clips(); }, "shadow_clips[0]",
          "exactly one of"),
      Bad(
          "ShadowThresholdZero",
          [](Job* j) { j->add_shadow_clips()->mutable_global_norm()->set_max_norm(0); },
          "shadow_clips[0].global_norm.max_norm", "above 0"),
      Bad(
          "TooManyShadows",
          [](Job* j) {
            for (int i = 0; i < 9; ++i) {
              j->add_shadow_clips()->mutable_global_norm()->set_max_norm(1);
            }
          },
          "shadow_clips", "at most 8"),
      Bad(
          "PolicyWithoutKind", [](Job* j) { j->mutable_clipping()->add_policies(); },
          "clipping.policies[0]", "exactly one of"),
      Bad(
          "GlobalNormWithoutThreshold", [](Job* j) { AddGlobal(j); },
          "clipping.policies[0].global_norm.max_norm", "is required"),
      Bad(
          "ThresholdNan", [](Job* j) { AddGlobal(j)->set_max_norm(kNan); },
          "clipping.policies[0].global_norm.max_norm", "nan"),
      Bad(
          "ThresholdInfinite", [](Job* j) { AddGlobal(j)->set_max_norm(kInfinity); },
          "clipping.policies[0].global_norm.max_norm", "inf"),
      Bad(
          "ThresholdZero", [](Job* j) { AddGlobal(j)->set_max_norm(0); },
          "clipping.policies[0].global_norm.max_norm", "above 0"),
      Bad(
          "ParameterThresholdNegative",
          [](Job* j) {
            j->mutable_clipping()->add_policies()->mutable_parameter_norm()->set_max_norm(-2);
          },
          "clipping.policies[0].parameter_norm.max_norm", "-2"),
      Bad(
          "UnknownOrder",
          [](Job* j) {
            AddGlobal(j)->set_max_norm(1);
            AddGlobal(j)->set_max_norm(1);
            j->mutable_clipping()->mutable_policies(1)->mutable_global_norm()->set_order(
                static_cast<v1::NormOrder>(5));
          },
          "clipping.policies[1].global_norm.order", "NORM_ORDER_L1"),
      Bad(
          "UnknownConvention",
          [](Job* j) {
            v1::GlobalNormClip* clip = AddGlobal(j);
            clip->set_max_norm(1);
            clip->set_convention(static_cast<v1::NormConvention>(5));
          },
          "clipping.policies[0].global_norm.convention", "NORM_CONVENTION_EXACT"),
      Bad(
          "ValueClipWithoutBounds", [](Job* j) { AddValue(j); }, "clipping.policies[0].value",
          "a minimum, a maximum or both"),
      Bad(
          "MinimumAboveZero", [](Job* j) { AddValue(j)->set_minimum(0.5); },
          "clipping.policies[0].value.minimum", "at most 0"),
      Bad(
          "MaximumBelowZero", [](Job* j) { AddValue(j)->set_maximum(-0.5); },
          "clipping.policies[0].value.maximum", "at least 0"),
      Bad(
          "MinimumNan", [](Job* j) { AddValue(j)->set_minimum(kNan); },
          "clipping.policies[0].value.minimum", "nan"),
      Bad(
          "BothBoundsZero",
          [](Job* j) {
            v1::ValueClip* clip = AddValue(j);
            clip->set_minimum(0);
            clip->set_maximum(0);
          },
          "clipping.policies[0].value", "both 0"),
      Bad(
          "NinePolicies",
          [](Job* j) {
            for (int i = 0; i < 9; ++i) AddGlobal(j)->set_max_norm(1);
          },
          "clipping.policies", "at most 8"),
      Bad(
          "RuleWithoutId", [](Job* j) { j->add_rules(); }, "rules[0].id", ""),
      Bad(
          "RuleUnknown", [](Job* j) { j->add_rules()->set_id(static_cast<v1::RuleId>(77)); },
          "rules[0].id", "77"),
      Bad(
          "LadderLossFactor", [](Job* j) { j->mutable_ladder()->set_loss_factor(1.4); },
          "ladder.loss_factor", "0, or 1.5 to 1000000"),
      Bad(
          "LadderNormFactor", [](Job* j) { j->mutable_ladder()->set_norm_factor(kNan); },
          "ladder.norm_factor", "nan"),
      Bad(
          "LadderRateFactor", [](Job* j) { j->mutable_ladder()->set_rate_factor(1.0); },
          "ladder.rate_factor", "above 0, below 1"),
      Bad(
          "LadderCheckpoints", [](Job* j) { j->mutable_ladder()->set_checkpoints(4); },
          "ladder.checkpoints", "1 to 3"),
      Bad(
          "LadderCalmSteps", [](Job* j) { j->mutable_ladder()->set_calm_steps(0); },
          "ladder.calm_steps", "1 to 10000"),
      Bad(
          "FaultWithoutKind", [](Job* j) { j->mutable_fault_injection(); }, "fault_injection",
          "factor and not_a_number"),
      Bad(
          "FaultFactor", [](Job* j) { j->mutable_fault_injection()->set_factor(kInfinity); },
          "fault_injection.factor", "finite"),
      Bad(
          "FaultNotANumber", [](Job* j) { j->mutable_fault_injection()->set_not_a_number(false); },
          "fault_injection.not_a_number", "true"),
      Bad(
          "FaultBatches",
          [](Job* j) {
            j->mutable_fault_injection()->set_factor(2);
            j->mutable_fault_injection()->set_batches(0);
          },
          "fault_injection.batches", "1 to 1000000000"),
      Bad(
          "FaultOfTokens",
          [](Job* j) {
            j->mutable_task()->mutable_temporal_order();
            j->mutable_fault_injection()->set_factor(2);
          },
          "fault_injection", "numeric input"),
      Bad(
          "RuleTwice",
          [](Job* j) {
            j->add_rules()->set_id(v1::RULE_ID_EXPLODING_ABS);
            j->add_rules()->set_id(v1::RULE_ID_EXPLODING_ABS);
          },
          "rules[1].id", ""),
      Bad(
          "RuleThresholdNan",
          [](Job* j) {
            v1::RuleSettings* rule = j->add_rules();
            rule->set_id(v1::RULE_ID_EXPLODING_ABS);
            rule->set_threshold(kNan);
          },
          "rules[0].threshold", "nan"),
      Bad(
          "RuleStepsNegative",
          [](Job* j) {
            v1::RuleSettings* rule = j->add_rules();
            rule->set_id(v1::RULE_ID_EXPLODING_ABS);
            rule->set_for_steps(-1);
          },
          "rules[0].for_steps", "-1"),
      Bad(
          "CustomRuleColumn",
          [](Job* j) {
            v1::CustomRule* rule = j->add_custom_rules();
            rule->set_name("OWN");
            rule->set_expression("loss > 1 or 2");
          },
          "custom_rules[0].expression", "column 10: wants 'for'"),
      Bad(
          "CustomRuleSelector",
          [](Job* j) {
            v1::CustomRule* rule = j->add_custom_rules();
            rule->set_name("OWN");
            rule->set_expression("tensor.norm[rnn.weight_hh_l7] > 1");
          },
          "custom_rules[0].expression", "selects nothing"),
  };
}

std::vector<BadJob> WholeTable() {
  std::vector<BadJob> all;
  for (const auto& part :
       {IdAndTextTable(), TaskTable(), ModelTable(), TrainingTable(), ClippingAndRulesTable()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

class BadJobTest : public JobManagerTest, public testing::WithParamInterface<BadJob> {
 protected:
  void SetUp() override {
    std::string text, table = "y,word,hole\n";
    for (int i = 0; i < 4000; ++i) {
      text += "abc";
      table += std::to_string(i % 17) + ",w," + (i == 2 ? "" : "1") + "\n";
    }
    ASSERT_TRUE(UploadAll(&datasets_, "text", v1::Dataset::KIND_TEXT, text).ok());
    ASSERT_TRUE(UploadAll(&datasets_, "table", v1::Dataset::KIND_TABLE, table).ok());
  }
};

TEST_P(BadJobTest, IsRefusedWithTheFieldAndNothingIsStored) {
  const BadJob& bad = GetParam();
  v1::CreateJobRequest request = RequestOf("");
  bad.spoil(&request);

  const absl::Status status = manager().Create(request).status();

  EXPECT_EQ(status.code(), bad.code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(bad.says));
  const auto violations = FieldViolationsOf(status);
  if (bad.code == StatusCode::kInvalidArgument) {
    ASSERT_FALSE(violations.empty()) << status;
    EXPECT_EQ(violations[0].field, bad.field) << status;
    EXPECT_THAT(violations[0].description, HasSubstr(bad.says));
    EXPECT_EQ(violations.size(), 1u) << status;
  } else {
    EXPECT_EQ(ReasonOf(status), "DATASET_NOT_FOUND");
  }
  EXPECT_EQ(manager().List({})->jobs_size(), 0);
  EXPECT_EQ(manager().Snapshots().size(), 0u);
  EXPECT_EQ(datasets_.Get("datasets/text")->jobs_using(), 0);
  EXPECT_EQ(datasets_.Get("datasets/table")->jobs_using(), 0);
  Create("good", 2);
  AwaitState("jobs/good", Job::STATE_SUCCEEDED);
}

INSTANTIATE_TEST_SUITE_P(Table, BadJobTest, testing::ValuesIn(WholeTable()),
                         [](const auto& tested) { return tested.param.name; });

TEST(BadJobTableTest, HasAtLeastSixtyRows) { EXPECT_GE(WholeTable().size(), 60u); }

TEST_F(JobManagerTest, EveryBadFieldIsNamedAtOnce) {
  v1::CreateJobRequest request = RequestOf("Bad Id", -3);
  Job* job = request.mutable_job();
  job->mutable_model()->set_hidden_units(0);
  job->mutable_model()->set_layers(99);
  job->mutable_optimizer()->set_learning_rate(-1);
  job->mutable_task()->mutable_adding()->set_time_steps(1);
  AddGlobal(job)->set_max_norm(kNan);

  const absl::Status status = manager().Create(request).status();

  std::vector<std::string> fields;
  for (const auto& violation : FieldViolationsOf(status)) fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::IsSupersetOf({"job_id", "training.step_limit", "model.hidden_units",
                                             "model.layers", "optimizer.learning_rate",
                                             "task.adding.time_steps",
                                             "clipping.policies[0].global_norm.max_norm"}));
}

TEST_F(JobManagerTest, BadFieldsComeBeforeAMissingDataSet) {
  v1::CreateJobRequest request = RequestOf("a");
  Language(request.mutable_job())->set_dataset("datasets/none");
  request.mutable_job()->mutable_model()->set_layers(99);

  const absl::Status status = manager().Create(request).status();

  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolationsOf(status).at(0).field, "model.layers");
}

TEST_F(JobManagerTest, BadGradientChecksAreRefused) {
  v1::CheckGradientsRequest request;
  request.set_entries_per_tensor(0);
  request.set_difference(kNan);
  request.mutable_job()->mutable_model()->set_layers(99);
  std::vector<std::string> fields;
  const absl::Status status = manager().CheckGradients(request).status();
  for (const auto& violation : FieldViolationsOf(status)) fields.push_back(violation.field);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(fields, testing::ElementsAre("entries_per_tensor", "difference", "model.layers"));

  request.Clear();
  request.mutable_job()->mutable_model()->set_hidden_units(512);
  request.mutable_job()->mutable_training()->set_batch_size(512);
  const absl::Status large = manager().CheckGradients(request).status();
  EXPECT_EQ(large.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.message()), HasSubstr("1e+11"));
}

}  // namespace
}  // namespace gradwatch::jobs
