#ifndef GRADWATCH_TESTS_UNIT_TRAIN_JOBS_H_
#define GRADWATCH_TESTS_UNIT_TRAIN_JOBS_H_

#include <cmath>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gradwatch/v1/job.pb.h"
#include "server/data/dataset_content.h"
#include "server/train/trainer.h"

namespace gradwatch::train {

// A job with what it reads. Small, defaults filled in.
struct TestJob {
  v1::Job job;
  std::shared_ptr<const data::DatasetContent> dataset;
};

// Every task in small, with a cell of its own each.
enum class Kind {
  kAdding,
  kRaggedAdding,
  kTemporalOrder,
  kCopyMemory,
  kLanguage,
  kForecast,
  kForecastWindows,
  kMackeyGlass
};

inline constexpr Kind kAllKinds[] = {
    Kind::kAdding,   Kind::kRaggedAdding, Kind::kTemporalOrder,   Kind::kCopyMemory,
    Kind::kLanguage, Kind::kForecast,     Kind::kForecastWindows, Kind::kMackeyGlass};

inline std::shared_ptr<const data::DatasetContent> SmallText() {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "the quick brown fox jumps over the lazy dog.\n";
  return *data::ParseText(text);
}

// Columns "wave" and "slope" with 300 rows.
inline std::shared_ptr<const data::DatasetContent> SmallTable() {
  std::string csv = "wave,slope\n";
  for (int i = 0; i < 300; ++i) {
    absl::StrAppend(&csv, 100.0 + 20.0 * std::sin(0.3 * i), ",", 0.5 * (i % 17), "\n");
  }
  return *data::ParseTable(csv);
}

inline void SetForecast(bool carry, v1::Job* job) {
  v1::ForecastTask* task = job->mutable_task()->mutable_forecast();
  task->set_dataset("datasets/table");
  task->add_target_columns("wave");
  task->add_input_columns("wave");
  task->add_input_columns("slope");
  task->set_time_steps(9);
  task->set_warmup_time_steps(2);
  task->set_carry_state(carry);
  job->mutable_model()->set_cell(v1::Model::CELL_GRU);
}

inline TestJob MakeJob(Kind kind) {
  TestJob made;
  v1::Job& job = made.job;
  job.set_name("jobs/test");
  job.set_seed(11);
  job.mutable_model()->set_hidden_units(6);
  job.mutable_training()->set_batch_size(5);
  job.mutable_training()->set_step_limit(40);
  job.mutable_optimizer()->set_learning_rate(0.02);
  job.mutable_evaluation()->set_examples(12);
  job.mutable_evaluation()->set_every_steps(4);
  switch (kind) {
    case Kind::kAdding:
      job.mutable_task()->mutable_adding()->set_time_steps(10);
      job.mutable_model()->set_cell(v1::Model::CELL_RNN_TANH);
      break;
    case Kind::kRaggedAdding:
      job.mutable_task()->mutable_adding()->set_time_steps(10);
      job.mutable_task()->mutable_adding()->set_time_steps_min(4);
      job.mutable_model()->set_layers(2);
      break;
    case Kind::kTemporalOrder:
      job.mutable_task()->mutable_temporal_order()->set_time_steps(12);
      job.mutable_model()->set_cell(v1::Model::CELL_RNN_SIGMOID);
      break;
    case Kind::kCopyMemory:
      job.mutable_task()->mutable_copy_memory()->set_delay(3);
      job.mutable_model()->set_token_input(v1::Model::TOKEN_INPUT_EMBEDDING);
      job.mutable_model()->set_embedding_width(4);
      job.mutable_training()->set_truncation(7);
      break;
    case Kind::kLanguage:
      job.mutable_task()->mutable_language()->set_dataset("datasets/text");
      job.mutable_task()->mutable_language()->set_time_steps(8);
      made.dataset = SmallText();
      for (const char32_t c : made.dataset->vocabulary) job.add_vocabulary(c);
      break;
    case Kind::kForecast:
    case Kind::kForecastWindows:
      SetForecast(kind == Kind::kForecast, &job);
      made.dataset = SmallTable();
      break;
    case Kind::kMackeyGlass:
      job.mutable_task()->mutable_mackey_glass()->set_time_steps(15);
      job.mutable_model()->set_cell(v1::Model::CELL_RNN_RELU);
      break;
  }
  FillDefaults(&job);
  return made;
}

// SGD with momentum, at the rate that the job has.
inline void UseMomentum(v1::Job* job) {
  job->mutable_optimizer()->mutable_sgd()->set_momentum(0.9);
  job->mutable_optimizer()->mutable_sgd()->set_nesterov(false);
}

// Feedback explosion: adding, T = 50, tanh, recurrent gain 1.2, learning rate 0.1 (Pascanu et al.
// 2013 train their networks so). Not clipped.
inline v1::Job ExplodingJob(uint64_t seed) {
  v1::Job job;
  job.set_name("jobs/boom");
  job.set_seed(seed);
  job.mutable_task()->mutable_adding()->set_time_steps(50);
  job.mutable_model()->set_cell(v1::Model::CELL_RNN_TANH);
  job.mutable_model()->set_hidden_units(48);
  v1::Initialization* initialization = job.mutable_model()->mutable_initialization();
  initialization->mutable_input_weights()->set_normal_deviation(0.1);
  initialization->mutable_readout_weights()->set_normal_deviation(0.1);
  initialization->mutable_recurrent_weights()->set_orthogonal_gain(1.2);
  initialization->mutable_biases()->set_constant(0.0);
  initialization->mutable_readout_bias()->set_constant(0.0);
  job.mutable_optimizer()->mutable_sgd();
  job.mutable_optimizer()->set_learning_rate(0.1);
  job.mutable_training()->set_batch_size(32);
  job.mutable_evaluation()->set_every_steps(0);
  job.mutable_clipping();
  FillDefaults(&job);
  return job;
}

// Temporal order, T = 50, which a tanh network with recurrent gain 1.1 learns only with clipping.
inline v1::Job TemporalOrderJob(uint64_t seed) {
  v1::Job job = ExplodingJob(seed);
  job.mutable_task()->mutable_temporal_order()->set_time_steps(50);
  job.mutable_model()->set_hidden_units(50);
  job.mutable_model()->mutable_initialization()->mutable_recurrent_weights()->set_orthogonal_gain(
      1.1);
  job.mutable_training()->set_batch_size(20);
  job.mutable_training()->set_step_limit(2500);
  job.mutable_evaluation()->set_every_steps(100);
  job.mutable_evaluation()->set_examples(10'000);
  FillDefaults(&job);
  return job;
}

inline void ClipGlobalNorm(double max_norm, v1::Job* job) {
  job->mutable_clipping()->clear_policies();
  job->mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(max_norm);
  FillDefaults(job);
}

inline std::unique_ptr<Trainer> NewTrainer(const TestJob& made) {
  return *Trainer::Create(made.job, made.dataset);
}

}  // namespace gradwatch::train

#endif  // GRADWATCH_TESTS_UNIT_TRAIN_JOBS_H_
