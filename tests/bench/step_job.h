#ifndef GRADWATCH_TESTS_BENCH_STEP_JOB_H_
#define GRADWATCH_TESTS_BENCH_STEP_JOB_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/train/trainer.h"
#include "tests/bench/shapes.h"

namespace gradwatch::bench {

// What one benchmark of steps trains.
struct StepSettings {
  v1::Model::Cell cell = v1::Model::CELL_LSTM;
  int64_t layers = 1;
  Shape shape;
  bool adam = true;
  double rate = 1e-3;
  double clip = 1.0;  // Largest global L2 norm; 0 means no clipping.
  v1::StatisticsLevel statistics = v1::STATISTICS_LEVEL_OFF;
  v1::Diagnostics diagnostics;  // What is absent has its default.
  uint64_t seed = 1;
};

// off (or none, as the peer calls it), basic, full. INVALID_ARGUMENT for another name.
absl::StatusOr<v1::StatisticsLevel> StatisticsNamed(absl::string_view name);

// default, none, or one measurement at every step and no other: compare, recurrent, probe, noise.
// INVALID_ARGUMENT for another name.
absl::StatusOr<v1::Diagnostics> DiagnosticsNamed(absl::string_view name);

// The service's own trainer on one fixed batch of random numbers: features with normal targets for
// the last step, or tokens with a token to tell at every step. The batch is made once, as the
// peer's is, so a step holds no making of data.
absl::StatusOr<std::unique_ptr<train::Trainer>> NewStepTrainer(const StepSettings& settings);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_STEP_JOB_H_
