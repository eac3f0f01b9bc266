// The defaults that FillDefaults writes, against the texts of the proto comments.

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/util/message_differencer.h"
#include "gradwatch/v1/job.pb.h"
#include "gtest/gtest.h"
#include "server/train/trainer.h"

namespace gradwatch::train {
namespace {

// What a comment says: "Message.field" (a oneof counts as a field) to the text after "Default: ",
// without its full stop.
using Defaults = std::map<std::string, std::string>;

absl::string_view DefaultIn(absl::string_view comment) {
  const size_t at = comment.find("Default: ");
  if (at == absl::string_view::npos) return "";
  const absl::string_view text = comment.substr(at + sizeof("Default: ") - 1);
  const size_t end = std::min(text.find(". "), text.find(" Only with"));
  return absl::StripSuffix(absl::StripTrailingAsciiWhitespace(text.substr(0, end)), ".");
}

Defaults ReadDefaults(const std::string& file_name) {
  std::ifstream file(absl::StrCat(GRADWATCH_SOURCE_DIR, "/proto/gradwatch/v1/", file_name));
  EXPECT_TRUE(file.good()) << file_name;
  Defaults defaults;
  std::string comment;
  std::string message;
  for (std::string line; std::getline(file, line);) {
    const absl::string_view text = absl::StripLeadingAsciiWhitespace(line);
    if (absl::StartsWith(text, "// ")) {
      absl::StrAppend(&comment, text.substr(3), " ");
      continue;
    }
    const std::vector<std::string> words =
        absl::StrSplit(text, absl::ByAnyChar(" ;{"), absl::SkipEmpty());
    if (words.size() >= 2 && words[0] == "message") message = words[1];
    const std::string stated(DefaultIn(comment));
    comment.clear();
    if (stated.empty() || words.empty()) continue;
    size_t name = words[0] == "optional" || words[0] == "repeated" ? 2 : 1;
    defaults[absl::StrCat(message, ".", words[name])] = stated;
  }
  return defaults;
}

v1::Job Filled(const v1::Job& job) {
  v1::Job filled = job;
  FillDefaults(&filled);
  return filled;
}

v1::Initialization FilledInitialization() {
  v1::Job job;
  job.mutable_model()->set_token_input(v1::Model::TOKEN_INPUT_EMBEDDING);
  return Filled(job).model().initialization();
}

std::string UniformOr(const v1::Initializer& initializer) {
  if (initializer.uniform()) return "uniform";
  return absl::StrCat("normal with deviation ", initializer.normal_deviation());
}

// The text where it holds, so that a wrong default does not match.
std::string When(bool holds, absl::string_view text) {
  return std::string(holds ? text : absl::string_view());
}

std::string NameOf(bool value) { return value ? "true" : "false"; }

std::string NameOf(v1::NormOrder order) {
  return absl::StrCat(absl::StripPrefix(v1::NormOrder_Name(order), "NORM_ORDER_"));
}

std::string NameOf(v1::NormConvention convention) {
  return convention == v1::NORM_CONVENTION_TORCH ? "torch" : "exact";
}

// What FillDefaults does, in the words of the comments.
Defaults FilledDefaults() {
  v1::Job job;
  job.mutable_optimizer()->mutable_warmup_cosine();
  job.mutable_clipping()->add_policies()->mutable_parameter_norm();
  job.mutable_clipping()->add_policies()->mutable_global_norm();
  job.mutable_clipping()->add_policies()->mutable_value();
  job.mutable_model()->set_token_input(v1::Model::TOKEN_INPUT_EMBEDDING);
  job.mutable_ladder();
  job.mutable_fault_injection();
  const v1::Job filled = Filled(job);
  const v1::ResponseLadder& ladder = filled.ladder();
  const v1::Job bare = Filled(v1::Job());
  v1::Job sgd_job;
  sgd_job.mutable_optimizer()->mutable_sgd();
  const v1::Sgd sgd = Filled(sgd_job).optimizer().sgd();
  v1::Job task_job;
  const auto filled_task = [&] { return Filled(task_job).task(); };
  task_job.mutable_task()->mutable_temporal_order();
  const v1::TemporalOrderTask order = filled_task().temporal_order();
  task_job.mutable_task()->mutable_copy_memory();
  const v1::CopyMemoryTask copy = filled_task().copy_memory();
  task_job.mutable_task()->mutable_language();
  const v1::LanguageTask language = filled_task().language();
  task_job.mutable_task()->mutable_forecast()->add_target_columns("column");
  const v1::ForecastTask forecast = filled_task().forecast();
  task_job.mutable_task()->mutable_mackey_glass();
  const v1::MackeyGlassTask mackey_glass = filled_task().mackey_glass();
  task_job.mutable_task()->mutable_mackey_glass()->set_time_steps(8);
  const v1::MackeyGlassTask short_mackey_glass = filled_task().mackey_glass();

  const v1::Optimizer& optimizer = filled.optimizer();
  const v1::Initialization initialization = FilledInitialization();
  const v1::ParameterNormClip& parameter_norm = filled.clipping().policies(0).parameter_norm();
  const v1::GlobalNormClip& global_norm = filled.clipping().policies(1).global_norm();
  const v1::ValueClip& value = filled.clipping().policies(2).value();
  const auto same_as_time_steps = [](const auto& task) {
    return When(task.time_steps_min() == task.time_steps(), "time_steps");
  };
  return {
      {"Job.display_name", When(bare.display_name().empty(), "empty")},
      {"Job.task", absl::StrCat("adding with ", bare.task().adding().time_steps(), " time steps")},
      {"Job.model", absl::StrCat(When(bare.model().cell() == v1::Model::CELL_LSTM, "LSTM"), ", ",
                                 bare.model().layers(), " layer, ", bare.model().hidden_units(),
                                 " hidden units")},
      {"Job.statistics_level", v1::StatisticsLevel_Name(bare.statistics_level())},
      {"Job.seed",
       When(!bare.has_seed(),
            "derived from the job's id; the job that is returned always has the value in force")},
      {"Job.shadow_clips", When(bare.shadow_clips().empty(), "none")},
      {"Job.ladder", When(!bare.has_ladder(), "absent, nothing")},
      {"Job.fault_injection", When(!bare.has_fault_injection(), "absent, none")},
      {"ResponseLadder.loss_factor", absl::StrCat(ladder.loss_factor())},
      {"ResponseLadder.norm_factor", absl::StrCat(ladder.norm_factor())},
      {"ResponseLadder.skips_max", absl::StrCat(ladder.skips_max())},
      {"ResponseLadder.rate_cuts_max", absl::StrCat(ladder.rate_cuts_max())},
      {"ResponseLadder.rate_factor", absl::StrCat(ladder.rate_factor())},
      {"ResponseLadder.rate_restore_steps", absl::StrCat(ladder.rate_restore_steps())},
      {"ResponseLadder.rollbacks_max", absl::StrCat(ladder.rollbacks_max())},
      {"ResponseLadder.batches_skipped", absl::StrCat(ladder.batches_skipped())},
      {"ResponseLadder.checkpoint_every_steps", absl::StrCat(ladder.checkpoint_every_steps())},
      {"ResponseLadder.checkpoints", absl::StrCat(ladder.checkpoints())},
      {"ResponseLadder.calm_steps", absl::StrCat(ladder.calm_steps())},
      {"FaultInjection.first_batch", absl::StrCat(filled.fault_injection().first_batch())},
      {"FaultInjection.batches", absl::StrCat(filled.fault_injection().batches())},
      {"Model.cell", v1::Model::Cell_Name(bare.model().cell())},
      {"Model.layers", absl::StrCat(bare.model().layers())},
      {"Model.hidden_units", absl::StrCat(bare.model().hidden_units())},
      {"Model.token_input", v1::Model::TokenInput_Name(bare.model().token_input())},
      {"Model.embedding_width", absl::StrCat(filled.model().embedding_width())},
      {"Initialization.input_weights", UniformOr(initialization.input_weights())},
      {"Initialization.recurrent_weights", UniformOr(initialization.recurrent_weights())},
      {"Initialization.biases", UniformOr(initialization.biases())},
      {"Initialization.readout_weights", UniformOr(initialization.readout_weights())},
      {"Initialization.readout_bias", UniformOr(initialization.readout_bias())},
      {"Initialization.embedding", UniformOr(initialization.embedding())},
      {"Initialization.forget_gate_bias",
       When(!initialization.has_forget_gate_bias(), "unset, `biases` applies")},
      {"Optimizer.learning_rate", absl::StrCat(optimizer.learning_rate())},
      {"Optimizer.algorithm", When(optimizer.has_adam(), "adam")},
      {"Optimizer.schedule", When(!bare.optimizer().has_warmup_cosine(), "constant")},
      {"Sgd.momentum", absl::StrCat(sgd.momentum())},
      {"Sgd.nesterov", NameOf(sgd.nesterov())},
      {"Adam.beta1", absl::StrCat(optimizer.adam().beta1())},
      {"Adam.beta2", absl::StrCat(optimizer.adam().beta2())},
      {"Adam.epsilon", When(optimizer.adam().epsilon() == 1e-8, "1e-8")},
      {"WarmupCosine.warmup_steps",
       When(10 * optimizer.warmup_cosine().warmup_steps() == filled.training().step_limit(),
            "a tenth of the step limit, rounded down")},
      {"WarmupCosine.learning_rate_min",
       absl::StrCat(optimizer.warmup_cosine().learning_rate_min())},
      {"Training.step_limit", absl::StrCat(bare.training().step_limit())},
      {"Training.batch_size", absl::StrCat(bare.training().batch_size())},
      {"Training.truncation", When(!bare.training().has_truncation(), "unset, the full length")},
      {"Training.precision", v1::Training::Precision_Name(bare.training().precision())},
      {"NonFiniteHandling.skip", NameOf(bare.training().non_finite().skip())},
      {"NonFiniteHandling.consecutive_max",
       absl::StrCat(bare.training().non_finite().consecutive_max())},
      {"Evaluation.every_steps", absl::StrCat(bare.evaluation().every_steps())},
      {"Evaluation.examples", absl::StrCat(bare.evaluation().examples())},
      {"Diagnostics.compare_steps", NameOf(bare.diagnostics().compare_steps())},
      {"Diagnostics.recurrent_every_steps",
       absl::StrCat(bare.diagnostics().recurrent_every_steps())},
      {"Diagnostics.probe_every_steps", absl::StrCat(bare.diagnostics().probe_every_steps())},
      {"Diagnostics.noise_every_steps", absl::StrCat(bare.diagnostics().noise_every_steps())},
      {"Diagnostics.noise_parts", absl::StrCat(bare.diagnostics().noise_parts())},
      {"Task.kind", When(bare.task().has_adding(), "adding")},
      {"AddingTask.time_steps", absl::StrCat(bare.task().adding().time_steps())},
      {"AddingTask.time_steps_min", same_as_time_steps(bare.task().adding())},
      {"TemporalOrderTask.time_steps", absl::StrCat(order.time_steps())},
      {"TemporalOrderTask.time_steps_min", same_as_time_steps(order)},
      {"CopyMemoryTask.delay", absl::StrCat(copy.delay())},
      {"LanguageTask.time_steps", absl::StrCat(language.time_steps())},
      {"LanguageTask.held_out_share", absl::StrCat(language.held_out_share())},
      {"ForecastTask.input_columns",
       When(forecast.input_columns_size() == 1 && forecast.input_columns(0) == "column",
            "the target columns")},
      {"ForecastTask.time_steps", absl::StrCat(forecast.time_steps())},
      {"ForecastTask.horizon", absl::StrCat(forecast.horizon())},
      {"ForecastTask.held_out_share", absl::StrCat(forecast.held_out_share())},
      {"ForecastTask.warmup_time_steps", absl::StrCat(forecast.warmup_time_steps())},
      {"ForecastTask.carry_state", NameOf(forecast.carry_state())},
      {"MackeyGlassTask.time_steps", absl::StrCat(mackey_glass.time_steps())},
      {"MackeyGlassTask.horizon", absl::StrCat(mackey_glass.horizon())},
      {"MackeyGlassTask.warmup_time_steps",
       absl::StrCat(mackey_glass.warmup_time_steps(),
                    When(short_mackey_glass.warmup_time_steps() == 7,
                         ", or time_steps - 1 if that is less"))},
      {"ValueClip.minimum", When(!value.has_minimum(), "no lower bound")},
      {"ValueClip.maximum", When(!value.has_maximum(), "no upper bound")},
      {"ParameterNormClip.order", NameOf(parameter_norm.order())},
      {"ParameterNormClip.convention", NameOf(parameter_norm.convention())},
      {"GlobalNormClip.order", NameOf(global_norm.order())},
      {"GlobalNormClip.convention", NameOf(global_norm.convention())},
  };
}

TEST(FillDefaultsTest, DoesWhatEachProtoCommentSays) {
  Defaults stated;
  for (const char* file : {"job.proto", "task.proto", "clipping.proto"}) {
    for (const auto& [field, text] : ReadDefaults(file)) stated[field] = text;
  }

  EXPECT_EQ(FilledDefaults(), stated);
}

TEST(FillDefaultsTest, AddsOneGlobalNormOnlyWhereClippingIsAbsent) {
  v1::Job empty;
  empty.mutable_clipping();

  const v1::Job absent = Filled(v1::Job());

  ASSERT_EQ(absent.clipping().policies_size(), 1);
  EXPECT_EQ(absent.clipping().policies(0).global_norm().max_norm(), 1.0);
  EXPECT_EQ(absent.clipping().policies(0).global_norm().order(), v1::NORM_ORDER_L2);
  EXPECT_TRUE(Filled(empty).has_clipping());
  EXPECT_EQ(Filled(empty).clipping().policies_size(), 0);
}

TEST(FillDefaultsTest, KeepsWhatIsPresentGoodOrBad) {
  v1::Job job;
  job.mutable_task()->mutable_copy_memory()->set_delay(-3);
  job.mutable_model()->set_layers(0);
  job.mutable_optimizer()->set_learning_rate(-1.0);
  job.mutable_training()->mutable_non_finite()->set_skip(false);
  job.mutable_evaluation()->set_every_steps(0);

  const v1::Job filled = Filled(job);

  EXPECT_EQ(filled.task().copy_memory().delay(), -3);
  EXPECT_EQ(filled.model().layers(), 0);
  EXPECT_EQ(filled.optimizer().learning_rate(), -1.0);
  EXPECT_FALSE(filled.training().non_finite().skip());
  EXPECT_EQ(filled.evaluation().every_steps(), 0);
}

TEST(FillDefaultsTest, ChangesNothingTheSecondTime) {
  const v1::Job once = Filled(v1::Job());

  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(once, Filled(once)));
}

TEST(FillDefaultsTest, SetsWhatOnlyAnEmbeddingHasOnlyForOne) {
  EXPECT_FALSE(Filled(v1::Job()).model().has_embedding_width());
  EXPECT_FALSE(Filled(v1::Job()).model().initialization().has_embedding());
}

}  // namespace
}  // namespace gradwatch::train
