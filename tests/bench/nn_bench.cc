// What the network does beside full training steps, which `gradwatch_bench step` times: evaluation
// (forward alone) and batches whose rows end early. Float32, one thread; items are valid positions.
//
//   build/dev/bench/nn_bench --benchmark_filter=Forward

#include <cstdint>
#include <string>

#include "benchmark/benchmark.h"
#include "server/base/batch.h"
#include "server/base/philox.h"
#include "server/nn/network.h"

namespace gradwatch::nn {
namespace {

constexpr int64_t kRows = 32;
constexpr int64_t kTimeSteps = 64;
constexpr int64_t kFeatures = 64;
constexpr int64_t kHidden = 128;

NetworkConfig ConfigOf(Cell cell) {
  NetworkConfig config;
  config.cell = cell;
  config.hidden = kHidden;
  config.features = kFeatures;
  config.loss_at = LossAt::kLastStep;
  return config;
}

// Row b is valid for all time steps, or, ragged, for a share that falls to a quarter.
Batch BatchOf(bool ragged) {
  RandomStream random(1, StreamOf("benchmark"), 0);
  Batch batch;
  batch.rows = kRows;
  batch.time_steps = kTimeSteps;
  batch.features = kFeatures;
  batch.outputs = 1;
  for (int64_t b = 0; b < kRows; ++b) {
    const int64_t shorter = ragged ? b * (3 * kTimeSteps / 4) / (kRows - 1) : 0;
    batch.lengths.push_back(static_cast<int32_t>(kTimeSteps - shorter));
    batch.target_values.push_back(random.NextNormal());
  }
  batch.weights.assign(kRows, 1.0);
  batch.restart.assign(kRows, 1);
  for (int64_t t = 0; t < kTimeSteps; ++t) {
    for (int64_t b = 0; b < kRows; ++b) {
      const bool valid = t < batch.lengths[static_cast<size_t>(b)];
      for (int64_t f = 0; f < kFeatures; ++f) {
        batch.inputs.push_back(valid ? random.NextNormal() : 0.0);
      }
    }
  }
  return batch;
}

int64_t ValidPositions(const Batch& batch) {
  int64_t positions = 0;
  for (const int32_t length : batch.lengths) positions += length;
  return positions;
}

void BM_Forward(benchmark::State& state, Cell cell, bool ragged) {
  Network<float> network(ConfigOf(cell), kRows, kTimeSteps);
  network.Initialize(1);
  const Batch batch = BatchOf(ragged);
  for (auto _ : state) benchmark::DoNotOptimize(network.Forward(batch));
  state.SetItemsProcessed(state.iterations() * ValidPositions(batch));
}

void BM_ForwardBackward(benchmark::State& state, Cell cell, bool ragged) {
  Network<float> network(ConfigOf(cell), kRows, kTimeSteps);
  network.Initialize(1);
  const Batch batch = BatchOf(ragged);
  for (auto _ : state) {
    benchmark::DoNotOptimize(network.ForwardBackward(batch, Detail::kFull));
  }
  state.SetItemsProcessed(state.iterations() * ValidPositions(batch));
}

BENCHMARK_CAPTURE(BM_Forward, lstm, Cell::kLstm, false);
BENCHMARK_CAPTURE(BM_Forward, gru, Cell::kGru, false);
BENCHMARK_CAPTURE(BM_Forward, rnn, Cell::kRnnTanh, false);
BENCHMARK_CAPTURE(BM_Forward, lstm_ragged, Cell::kLstm, true);
BENCHMARK_CAPTURE(BM_ForwardBackward, lstm, Cell::kLstm, false);
BENCHMARK_CAPTURE(BM_ForwardBackward, lstm_ragged, Cell::kLstm, true);
BENCHMARK_CAPTURE(BM_ForwardBackward, gru_ragged, Cell::kGru, true);
BENCHMARK_CAPTURE(BM_ForwardBackward, rnn_relu, Cell::kRnnRelu, false);

}  // namespace
}  // namespace gradwatch::nn

BENCHMARK_MAIN();
