#ifndef GRADWATCH_TESTS_UNIT_CLIENT_EXAMPLE_RUN_H_
#define GRADWATCH_TESTS_UNIT_CLIENT_EXAMPLE_RUN_H_

#include <algorithm>
#include <cmath>
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

// A finished job "jobs/x" on temporal order with T = 50 and those steps, folded into `buckets`.
inline RunFacts ExampleRun(const std::vector<ExampleStep>& steps, int buckets = 100) {
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
  const auto count = static_cast<int64_t>(steps.size());
  facts.digest = RunDigest(0, count - 1);
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
    clipped += example.clipped ? 1 : 0;
    AddStep(step, history.mutable_buckets(static_cast<int>(i * folded / count)));
    facts.digest.Add(step);
  }
  if (count > 0) job.set_clip_rate(static_cast<double>(clipped) / static_cast<double>(count));
  facts.server_address = "127.0.0.1:7070";
  facts.now = absl::FromUnixSeconds(1'700'000'000);
  return facts;
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
