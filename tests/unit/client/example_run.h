#ifndef GRADWATCH_TESTS_UNIT_CLIENT_EXAMPLE_RUN_H_
#define GRADWATCH_TESTS_UNIT_CLIENT_EXAMPLE_RUN_H_

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "client/cli/report.h"
#include "client/cli/run_facts.h"

namespace gradwatch::cli {

// What a run of tests looks like at one step.
struct ExampleStep {
  double loss = 1.0;
  double norm = 0.5;
  double growth = 1.0;
  bool clipped = false;
  int lags = 0;  // Above 0: the state gradient is norm * growth^lag at so many lags.
};

// A finished job "jobs/x" on temporal order with T = 50 and those steps, folded into `buckets`;
// `change` has the last word on each.
inline RunFacts ExampleRun(const std::vector<ExampleStep>& steps, int buckets = 100,
                           const std::function<void(v1::StepStats*)>& change = nullptr) {
  RunFacts facts;
  v1::Job& job = facts.summary.job;
  job.set_name("jobs/x");
  job.set_uid("uid-1");
  job.set_server_build("9.9.9 (commit 0123456789ab, engine x86-64-v3)");
  job.set_state(v1::Job::STATE_SUCCEEDED);
  job.set_seed(42);
  job.set_step(static_cast<int64_t>(steps.size()));
  job.set_updates_applied(job.step());
  job.mutable_task()->mutable_temporal_order()->set_time_steps(50);
  job.mutable_training()->set_step_limit(job.step());
  job.set_statistics_level(v1::STATISTICS_LEVEL_BASIC);
  job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(0.5);
  for (const char* name : {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}) {
    job.add_parameters()->set_name(name);
  }
  const auto count = static_cast<int64_t>(steps.size());
  facts.digest = RunDigest(0, count - 1, job.parameters());
  v1::QueryStatsResponse& history = facts.summary.history;
  history.set_newest_step(count - 1);
  const int64_t folded = std::min<int64_t>(buckets, count);
  for (int64_t i = 0; i < folded; ++i) history.add_buckets();
  int64_t clipped = 0;
  for (int64_t i = 0; i < count; ++i) {
    const ExampleStep& example = steps[static_cast<size_t>(i)];
    v1::StepStats step;
    step.set_step(i);
    step.set_loss(example.loss);
    step.set_norm_before(example.norm);
    step.set_norm_after(std::min(example.norm, 0.5));
    step.set_clipped(example.clipped);
    step.mutable_growth()->set_growth_factor(example.growth);
    step.mutable_growth()->set_window(50);
    if (example.lags > 0) {
      job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
      v1::LayerTimeStats* const layer = step.add_layers();
      for (int lag = example.lags - 1; lag >= 0; --lag) {
        layer->add_state_gradient_norm(
            static_cast<float>(example.norm * std::pow(example.growth, lag)));
        layer->add_lag_profile(0);
      }
    }
    if (change) change(&step);
    clipped += example.clipped ? 1 : 0;
    AddStep(step, history.mutable_buckets(static_cast<int>(i * folded / count)));
    facts.digest.Add(step);
  }
  if (count > 0) job.set_clip_rate(static_cast<double>(clipped) / static_cast<double>(count));
  facts.server_address = "127.0.0.1:7070";
  facts.now = absl::FromUnixSeconds(1'700'000'000);
  return facts;
}

// A step of an LSTM of one layer with every diagnostic and two shadow clips.
inline void MeasureEverything(v1::StepStats* step) {
  const auto number = static_cast<double>(step->step());
  for (const double part : {1.0, 3.0}) {
    v1::TensorStats* const tensor = step->add_tensors();
    for (int gate = 1; gate <= 4; ++gate) tensor->add_gate_norms(part * gate);
  }
  v1::LayerTimeStats* const layer =
      step->layers().empty() ? step->add_layers() : step->mutable_layers(0);
  v1::RecurrentStats* const recurrent = step->add_recurrent();
  for (const double gate : {0.4, 0.7, 0.2, 0.5}) {
    layer->add_gate_mean(gate);
    recurrent->add_sigma_max(2 * gate);
    recurrent->add_spectral_radius(gate);
  }
  layer->set_keep_time_constant(3);
  layer->set_keep_time_constant_max(12);
  layer->set_activation_slope(0.6);
  layer->set_state_similarity(0.25);
  step->set_gradient_cosine(0.125);
  step->set_distance_ratio(0.001 * number);
  v1::ProbeStats* const probe = step->add_probe();
  for (int lag = 0; lag < 20; ++lag) {
    probe->add_lag_profile(static_cast<float>(std::pow(0.5, lag)));
  }
  probe->set_decay_factor(0.5);
  probe->set_horizon(9);
  for (const int length : {10, 20, 40}) {
    v1::LengthStats* const lengths = step->add_lengths();
    lengths->set_minimum(length);
    lengths->set_maximum(length + 2);
    lengths->set_rows(8);
    lengths->set_loss(0.01 * length);
  }
  step->mutable_noise()->set_noise_scale(200);
  for (const bool clips : {true, false}) {
    v1::ShadowReport* const shadow = step->add_shadow_reports();
    shadow->set_clipped(clips);
    shadow->set_coefficient(clips ? 0.25 : 1);
  }
}

// The run of such an LSTM.
inline RunFacts MeasuredRun(int steps = 200) {
  std::vector<ExampleStep> examples(static_cast<size_t>(steps));
  for (ExampleStep& example : examples) example.lags = 20;
  RunFacts facts = ExampleRun(examples, 100, MeasureEverything);
  v1::Job& job = facts.summary.job;
  job.mutable_model()->set_cell(v1::Model::CELL_LSTM);
  job.mutable_training()->set_batch_size(32);
  job.add_shadow_clips()->mutable_global_norm()->set_max_norm(0.25);
  job.add_shadow_clips()->mutable_value()->set_maximum(0.1);
  job.add_shadow_summaries()->set_clip_rate(1);
  job.mutable_shadow_summaries(0)->set_mean_coefficient(0.25);
  job.add_shadow_summaries()->set_clip_rate(0);
  return facts;
}

// Advice for that job: 0.2, or 2, instead of 0.5.
inline v1::ClipAdvice ExampleAdvice() {
  v1::ClipAdvice advice;
  advice.set_job("jobs/x");
  advice.set_basis(v1::ClipAdvice::BASIS_STEP_SIZE);
  advice.mutable_recommended()->set_max_norm(0.2);
  advice.mutable_recommended()->set_clip_rate(0.875);
  advice.mutable_recommended()->set_mean_coefficient(0.4);
  advice.mutable_alternative()->set_max_norm(2);
  advice.mutable_current()->set_max_norm(0.5);
  advice.mutable_window()->set_last_step(199);
  advice.mutable_window()->set_steps(200);
  advice.set_allowed_min(0.25);
  advice.set_allowed_max(5);
  advice.set_reason("With SGD the threshold sets the size of most steps.");
  advice.add_assumptions("the loss is a mean");
  advice.add_warnings("only 200 steps");
  return advice;
}

// An alert of that job.
inline v1::Alert ExampleAlert(int64_t step, const std::string& message) {
  v1::Alert alert;
  alert.set_name("jobs/x/alerts/1");
  alert.set_rule_name("EXPLODING_ABS");
  alert.set_severity(v1::SEVERITY_CRIT);
  alert.set_state(v1::Alert::STATE_RESOLVED);
  alert.set_resolve_reason(v1::Alert::RESOLVE_REASON_CONDITION);
  alert.set_firing_step(step);
  alert.set_resolved_step(step + 10);
  alert.set_first_value(1500);
  alert.set_peak_value(2500);
  alert.set_threshold(1000);
  alert.set_count(1);
  alert.set_tensor("rnn.weight_hh_l0");
  alert.set_message(message);
  alert.set_advice("clip at 1");
  return alert;
}

}  // namespace gradwatch::cli

#endif  // GRADWATCH_TESTS_UNIT_CLIENT_EXAMPLE_RUN_H_
