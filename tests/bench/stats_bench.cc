// Gradient statistics of one tensor of so many float32 entries, and the growth through time of so
// many time steps.
//
//   build/dev/bench/stats_bench --benchmark_filter=Summarize

#include <cstdint>
#include <vector>

#include "benchmark/benchmark.h"
#include "server/base/philox.h"
#include "server/stats/gradient_stats.h"
#include "server/stats/growth.h"

namespace gradwatch::stats {
namespace {

std::vector<float> Values(int64_t entries) {
  RandomStream random(1, StreamOf("benchmark"), 0);
  std::vector<float> values(static_cast<size_t>(entries));
  for (float& value : values) value = static_cast<float>(random.NextNormal());
  return values;
}

void BM_Norm(benchmark::State& state) {
  const std::vector<float> values = Values(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Norm<float>(values));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void BM_Summarize(benchmark::State& state) {
  const std::vector<float> values = Values(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Summarize<float>(values));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void BM_SummarizeWithHistogram(benchmark::State& state) {
  const std::vector<float> values = Values(state.range(0));
  Log2Histogram histogram;
  for (auto _ : state) {
    benchmark::DoNotOptimize(Summarize<float>(values, &histogram));
    benchmark::DoNotOptimize(histogram);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void BM_MeasureGrowth(benchmark::State& state) {
  const std::vector<double> norms(static_cast<size_t>(state.range(0)), 0.5);
  const std::vector<double> carries(norms.size() - 1, 0.4);
  const std::vector<LayerCarry> layers = {{norms, carries}, {norms, carries}};
  Growth growth;
  for (auto _ : state) {
    benchmark::DoNotOptimize(MeasureGrowth(layers, static_cast<int>(state.range(0)), &growth));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK(BM_Norm)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_Summarize)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_SummarizeWithHistogram)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_MeasureGrowth)->Arg(50)->Arg(400);

}  // namespace
}  // namespace gradwatch::stats

BENCHMARK_MAIN();
