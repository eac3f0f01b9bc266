#include <algorithm>

#include "server/train/trainer.h"

namespace gradwatch::train {
namespace {

constexpr int kTimeSteps = 50;

void FillAdding(v1::AddingTask* task) {
  if (!task->has_time_steps()) task->set_time_steps(kTimeSteps);
  if (!task->has_time_steps_min()) task->set_time_steps_min(task->time_steps());
}

void FillTemporalOrder(v1::TemporalOrderTask* task) {
  if (!task->has_time_steps()) task->set_time_steps(kTimeSteps);
  if (!task->has_time_steps_min()) task->set_time_steps_min(task->time_steps());
}

void FillCopyMemory(v1::CopyMemoryTask* task) {
  if (!task->has_delay()) task->set_delay(100);
}

void FillLanguage(v1::LanguageTask* task) {
  if (!task->has_time_steps()) task->set_time_steps(kTimeSteps);
  if (!task->has_held_out_share()) task->set_held_out_share(0.1);
}

void FillForecast(v1::ForecastTask* task) {
  if (task->input_columns().empty()) *task->mutable_input_columns() = task->target_columns();
  if (!task->has_time_steps()) task->set_time_steps(kTimeSteps);
  if (!task->has_horizon()) task->set_horizon(1);
  if (!task->has_held_out_share()) task->set_held_out_share(0.2);
  if (!task->has_warmup_time_steps()) task->set_warmup_time_steps(0);
  if (!task->has_carry_state()) task->set_carry_state(true);
}

void FillMackeyGlass(v1::MackeyGlassTask* task) {
  if (!task->has_time_steps()) task->set_time_steps(100);
  if (!task->has_horizon()) task->set_horizon(6);
  if (!task->has_warmup_time_steps()) {
    task->set_warmup_time_steps(std::clamp(task->time_steps(), 1, 21) - 1);
  }
}

void FillTask(v1::Task* task) {
  switch (task->kind_case()) {
    case v1::Task::kTemporalOrder:
      return FillTemporalOrder(task->mutable_temporal_order());
    case v1::Task::kCopyMemory:
      return FillCopyMemory(task->mutable_copy_memory());
    case v1::Task::kLanguage:
      return FillLanguage(task->mutable_language());
    case v1::Task::kForecast:
      return FillForecast(task->mutable_forecast());
    case v1::Task::kMackeyGlass:
      return FillMackeyGlass(task->mutable_mackey_glass());
    case v1::Task::kAdding:
    case v1::Task::KIND_NOT_SET:
      return FillAdding(task->mutable_adding());
  }
}

void FillUniform(v1::Initializer* initializer) {
  if (initializer->kind_case() == v1::Initializer::KIND_NOT_SET) initializer->set_uniform(true);
}

void FillModel(v1::Model* model) {
  if (model->cell() == v1::Model::CELL_UNSPECIFIED) model->set_cell(v1::Model::CELL_LSTM);
  if (!model->has_layers()) model->set_layers(1);
  if (!model->has_hidden_units()) model->set_hidden_units(128);
  if (model->token_input() == v1::Model::TOKEN_INPUT_UNSPECIFIED) {
    model->set_token_input(v1::Model::TOKEN_INPUT_ONE_HOT);
  }
  v1::Initialization* initialization = model->mutable_initialization();
  FillUniform(initialization->mutable_input_weights());
  FillUniform(initialization->mutable_recurrent_weights());
  FillUniform(initialization->mutable_biases());
  FillUniform(initialization->mutable_readout_weights());
  FillUniform(initialization->mutable_readout_bias());
  // What only an embedding has is filled in only for one.
  if (model->token_input() == v1::Model::TOKEN_INPUT_EMBEDDING) {
    if (!model->has_embedding_width()) model->set_embedding_width(64);
    v1::Initializer* embedding = initialization->mutable_embedding();
    if (embedding->kind_case() == v1::Initializer::KIND_NOT_SET) {
      embedding->set_normal_deviation(1.0);
    }
  }
}

void FillSgd(v1::Sgd* sgd) {
  if (!sgd->has_momentum()) sgd->set_momentum(0.0);
  if (!sgd->has_nesterov()) sgd->set_nesterov(false);
}

void FillAdam(v1::Adam* adam) {
  if (!adam->has_beta1()) adam->set_beta1(0.9);
  if (!adam->has_beta2()) adam->set_beta2(0.999);
  if (!adam->has_epsilon()) adam->set_epsilon(1e-8);
}

void FillTraining(v1::Training* training) {
  if (!training->has_step_limit()) training->set_step_limit(2000);
  if (!training->has_batch_size()) training->set_batch_size(32);
  if (training->precision() == v1::Training::PRECISION_UNSPECIFIED) {
    training->set_precision(v1::Training::PRECISION_FLOAT32);
  }
  v1::NonFiniteHandling* non_finite = training->mutable_non_finite();
  if (!non_finite->has_skip()) non_finite->set_skip(true);
  if (!non_finite->has_consecutive_max()) non_finite->set_consecutive_max(5);
}

void FillOptimizer(int64_t step_limit, v1::Optimizer* optimizer) {
  if (!optimizer->has_learning_rate()) optimizer->set_learning_rate(0.002);
  if (optimizer->has_sgd()) {
    FillSgd(optimizer->mutable_sgd());
  } else {
    FillAdam(optimizer->mutable_adam());
  }
  if (optimizer->has_warmup_cosine()) {
    v1::WarmupCosine* schedule = optimizer->mutable_warmup_cosine();
    if (!schedule->has_warmup_steps()) {
      schedule->set_warmup_steps(std::max<int64_t>(0, step_limit / 10));
    }
    if (!schedule->has_learning_rate_min()) schedule->set_learning_rate_min(0.0);
  }
}

template <typename Clip>
void FillNormClip(Clip* clip) {
  if (clip->order() == v1::NORM_ORDER_UNSPECIFIED) clip->set_order(v1::NORM_ORDER_L2);
  if (clip->convention() == v1::NORM_CONVENTION_UNSPECIFIED) {
    clip->set_convention(v1::NORM_CONVENTION_TORCH);
  }
}

void FillPolicy(v1::ClipPolicy* policy) {
  if (policy->has_parameter_norm()) FillNormClip(policy->mutable_parameter_norm());
  if (policy->has_global_norm()) FillNormClip(policy->mutable_global_norm());
}

void FillClipping(v1::Job* job) {
  if (!job->has_clipping()) {
    job->mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(1.0);
  }
  for (v1::ClipPolicy& policy : *job->mutable_clipping()->mutable_policies()) FillPolicy(&policy);
  for (v1::ClipPolicy& policy : *job->mutable_shadow_clips()) FillPolicy(&policy);
}

void FillEvaluation(v1::Evaluation* evaluation) {
  if (!evaluation->has_every_steps()) evaluation->set_every_steps(100);
  if (!evaluation->has_examples()) evaluation->set_examples(1000);
}

void FillLadder(v1::ResponseLadder* ladder) {
  if (!ladder->has_loss_factor()) ladder->set_loss_factor(4.0);
  if (!ladder->has_norm_factor()) ladder->set_norm_factor(0.0);
  if (!ladder->has_skips_max()) ladder->set_skips_max(3);
  if (!ladder->has_rate_cuts_max()) ladder->set_rate_cuts_max(3);
  if (!ladder->has_rate_factor()) ladder->set_rate_factor(0.5);
  if (!ladder->has_rate_restore_steps()) ladder->set_rate_restore_steps(200);
  if (!ladder->has_rollbacks_max()) ladder->set_rollbacks_max(3);
  if (!ladder->has_batches_skipped()) ladder->set_batches_skipped(50);
  if (!ladder->has_checkpoint_every_steps()) ladder->set_checkpoint_every_steps(20);
  if (!ladder->has_checkpoints()) ladder->set_checkpoints(3);
  if (!ladder->has_calm_steps()) ladder->set_calm_steps(10);
}

void FillFaults(v1::FaultInjection* fault) {
  if (!fault->has_first_batch()) fault->set_first_batch(0);
  if (!fault->has_batches()) fault->set_batches(1);
}

void FillDiagnostics(v1::Diagnostics* diagnostics) {
  if (!diagnostics->has_compare_steps()) diagnostics->set_compare_steps(false);
  if (!diagnostics->has_recurrent_every_steps()) diagnostics->set_recurrent_every_steps(0);
  if (!diagnostics->has_probe_every_steps()) diagnostics->set_probe_every_steps(0);
  if (!diagnostics->has_noise_every_steps()) diagnostics->set_noise_every_steps(0);
  if (!diagnostics->has_noise_parts()) diagnostics->set_noise_parts(2);
}

}  // namespace

void FillDefaults(v1::Job* job) {
  FillTask(job->mutable_task());
  FillModel(job->mutable_model());
  FillTraining(job->mutable_training());
  FillOptimizer(job->training().step_limit(), job->mutable_optimizer());
  FillClipping(job);
  FillEvaluation(job->mutable_evaluation());
  if (job->has_ladder()) FillLadder(job->mutable_ladder());
  if (job->has_fault_injection()) FillFaults(job->mutable_fault_injection());
  if (job->statistics_level() == v1::STATISTICS_LEVEL_UNSPECIFIED) {
    job->set_statistics_level(v1::STATISTICS_LEVEL_BASIC);
  }
  FillDiagnostics(job->mutable_diagnostics());
}

}  // namespace gradwatch::train
