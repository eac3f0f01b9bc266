#ifndef GRADWATCH_TESTS_BENCH_PRETEND_TRAINER_H_
#define GRADWATCH_TESTS_BENCH_PRETEND_TRAINER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "gradwatch/v1/job.pb.h"
#include "server/jobs/trainer_factory.h"

namespace gradwatch::bench {

using SteadyTime = std::chrono::steady_clock::time_point;

// What a trainer of the engine reports of an early step of `job`, which lacks defaults.
v1::StepStats TypicalStats(v1::Job job);

// Factory of trainers without arithmetic: a step reports `typical`, slightly changed, after `work`
// (called with the step's number) has returned. `entered` and `left` see when a step begins and
// ends: what lies between two steps is the price of publication.
struct PretendScript {
  v1::StepStats typical;
  std::function<void(int64_t step)> work = [](int64_t) {};
  std::function<void(int64_t step, SteadyTime time)> entered = [](int64_t, SteadyTime) {};
  std::function<void(int64_t step, SteadyTime time)> left = [](int64_t, SteadyTime) {};
};
jobs::TrainerFactory PretendTrainers(std::shared_ptr<const PretendScript> script);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_PRETEND_TRAINER_H_
