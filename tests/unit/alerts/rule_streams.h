#ifndef GRADWATCH_TESTS_UNIT_ALERTS_RULE_STREAMS_H_
#define GRADWATCH_TESTS_UNIT_ALERTS_RULE_STREAMS_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "absl/time/time.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/rule_engine.h"

// Step statistics made by hand, and what an engine makes of them.
namespace gradwatch::alerts {

constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinite = std::numeric_limits<double>::infinity();

// A complete job with two layers, that clips or not.
inline v1::Job MakeJob(bool clips = false) {
  v1::Job job;
  job.set_name("jobs/boom");
  job.mutable_model()->set_cell(v1::Model::CELL_RNN_TANH);
  job.mutable_model()->mutable_initialization()->mutable_recurrent_weights()->set_orthogonal_gain(
      1.2);
  job.mutable_optimizer()->set_learning_rate(0.1);
  job.mutable_training()->mutable_non_finite()->set_consecutive_max(5);
  job.mutable_clipping();
  if (clips) {
    job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(1.0);
  }
  job.mutable_model()->set_layers(2);
  job.mutable_model()->set_hidden_units(10);
  job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  const auto add = [&job](const char* name, int layer, bool recurrent, std::vector<int64_t> shape) {
    v1::ParameterInfo& parameter = *job.add_parameters();
    parameter.set_name(name);
    parameter.set_layer(layer);
    parameter.set_recurrent(recurrent);
    parameter.mutable_shape()->Add(shape.begin(), shape.end());
  };
  add("rnn.weight_ih_l0", 0, false, {10, 2});
  add("rnn.weight_hh_l0", 0, true, {10, 10});
  add("rnn.weight_hh_l1", 1, true, {10, 10});
  add("readout.weight", -1, false, {1, 10});
  add("rnn.bias_ih_l0", 0, false, {10});
  return job;
}

// A healthy step; the loss falls slowly.
inline v1::StepStats MakeStep(int64_t step) {
  v1::StepStats stats;
  stats.set_step(step);
  stats.set_loss(1.0 / (1.0 + 0.001 * static_cast<double>(step)));
  stats.set_norm_before(1.0);
  stats.set_last_finite_norm(1.0);
  stats.set_norm_after(1.0);
  stats.set_clip_coefficient(1.0);
  stats.set_learning_rate(0.1);
  stats.set_update_norm(0.1);
  stats.set_update_ratio(1e-3);
  stats.set_gradient_cosine(0.1);
  for (const double norm : {0.1, 0.9, 0.4, 0.2, 0.1}) {
    v1::TensorStats& tensor = *stats.add_tensors();
    tensor.set_norm(norm);
    tensor.set_max_abs(norm);
    tensor.set_weight_norm(3.0);
    tensor.set_update_ratio(1e-3);
  }
  v1::GrowthStats& growth = *stats.mutable_growth();
  growth.set_growth_factor(0.98);
  growth.set_window(50);
  growth.set_layer(1);
  for (int l = 0; l < 2; ++l) {
    v1::LayerTimeStats& layer = *stats.add_layers();
    layer.set_layer(l);
    for (int t = 0; t < 50; ++t) layer.add_hidden_rms(0.5F);
    layer.set_hidden_max_abs(1.0);
    layer.set_saturated_share(0.1);
    layer.set_activation_slope(0.8);
    for (int gate = 0; gate < 4; ++gate) layer.add_gate_closed_share(0.05);
  }
  return stats;
}

inline v1::StepStats MakeNonFiniteStep(int64_t step) {
  v1::StepStats stats = MakeStep(step);
  stats.set_loss(kNotANumber);
  stats.set_norm_before(kNotANumber);
  stats.set_nonfinite_count(17);
  stats.set_skipped(true);
  stats.clear_growth();
  stats.clear_layers();
  stats.mutable_nonfinite_origin()->set_tensor("h");
  stats.mutable_nonfinite_origin()->set_layer(0);
  stats.mutable_nonfinite_origin()->set_time_step(31);
  return stats;
}

// Changes a healthy step into one that shows something.
using Symptom = std::function<void(v1::StepStats*)>;

// A rule engine and the number of the next step.
struct Stream {
  explicit Stream(const v1::Job& job) : engine(job) {}

  // Feeds `count` steps with the symptom (none: healthy).
  void Feed(int count, const Symptom& symptom = nullptr) {
    for (int i = 0; i < count; ++i) {
      v1::StepStats stats = MakeStep(next_step);
      if (symptom) symptom(&stats);
      FeedStep(stats);
    }
  }

  void FeedNonFinite(int count) {
    for (int i = 0; i < count; ++i) FeedStep(MakeNonFiniteStep(next_step));
  }

  void FeedStep(const v1::StepStats& stats) {
    engine.Observe(stats, absl::FromUnixSeconds(1000 + next_step), &changed);
    ++next_step;
  }

  RuleEngine engine;
  std::vector<v1::Alert> changed;
  int64_t next_step = 0;
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_TESTS_UNIT_ALERTS_RULE_STREAMS_H_
