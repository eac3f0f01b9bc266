// What every rule together costs a step: one healthy, one where a rule keeps firing.
//
//   build/dev/bench/alerts_bench

#include <vector>

#include "benchmark/benchmark.h"
#include "tests/unit/alerts/rule_streams.h"

namespace gradwatch::alerts {
namespace {

void Observe(benchmark::State& state, const Symptom& symptom) {
  RuleEngine engine(MakeJob());
  v1::StepStats stats = MakeStep(0);
  if (symptom) symptom(&stats);
  std::vector<v1::Alert> changed;
  int64_t step = 0;
  for (auto _ : state) {
    stats.set_step(step++);
    changed.clear();
    engine.Observe(stats, absl::UnixEpoch(), &changed);
    benchmark::DoNotOptimize(changed);
  }
  state.SetItemsProcessed(state.iterations());
}

void BM_ObserveHealthyStep(benchmark::State& state) { Observe(state, nullptr); }

void BM_ObserveExplodedStep(benchmark::State& state) {
  Observe(state, [](v1::StepStats* stats) { stats->set_norm_before(1e6); });
}

BENCHMARK(BM_ObserveHealthyStep);
BENCHMARK(BM_ObserveExplodedStep);

}  // namespace
}  // namespace gradwatch::alerts

BENCHMARK_MAIN();
