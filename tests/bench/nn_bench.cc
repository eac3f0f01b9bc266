// Milliseconds of one ForwardBackward (loss and gradients, no optimizer), float32, one thread.
//
//   build/dev/bench/nn_bench --benchmark_filter=Lstm/charlm
//
// The engine is optimised in every preset. Random order keeps a busy machine from favouring one:
// --benchmark_enable_random_interleaving=true --benchmark_repetitions=5

#include <cstdint>
#include <string>

#include "benchmark/benchmark.h"
#include "server/base/batch.h"
#include "server/base/philox.h"
#include "server/nn/network.h"

namespace gradwatch::nn {
namespace {

struct Setting {
  const char* name;
  int64_t rows;
  int64_t time_steps;
  int64_t inputs;
  int64_t hidden;
  int64_t vocabulary;  // 0: features, mean squared error at the last step.
};

constexpr Setting kSettings[] = {{"s128", 32, 64, 64, 128, 0},     {"m256", 64, 50, 128, 256, 0},
                                 {"charlm", 64, 64, 64, 256, 65},  {"l512", 32, 128, 128, 512, 0},
                                 {"xl1024", 16, 35, 256, 1024, 0}, {"tiny", 1, 100, 2, 32, 0},
                                 {"adding", 20, 400, 2, 128, 0}};

NetworkConfig ConfigOf(const Setting& setting, Cell cell) {
  NetworkConfig config;
  config.cell = cell;
  config.hidden = setting.hidden;
  config.loss_at = LossAt::kLastStep;
  config.features = setting.inputs;
  if (setting.vocabulary > 0) {
    config.input = Input::kEmbedding;
    config.vocabulary = setting.vocabulary;
    config.embedding_width = setting.inputs;
    config.outputs = setting.vocabulary;
    config.loss = Loss::kCrossEntropy;
    config.loss_at = LossAt::kEachStep;
  }
  return config;
}

Batch BatchOf(const Setting& setting) {
  RandomStream random(1, StreamOf("benchmark"), 0);
  Batch batch;
  batch.rows = setting.rows;
  batch.time_steps = setting.time_steps;
  const int64_t positions = setting.rows * setting.time_steps;
  batch.lengths.assign(static_cast<size_t>(setting.rows), static_cast<int32_t>(setting.time_steps));
  batch.restart.assign(static_cast<size_t>(setting.rows), 1);
  if (setting.vocabulary > 0) {
    const auto token = [&] {
      return static_cast<int32_t>(random.NextBelow(static_cast<uint32_t>(setting.vocabulary)));
    };
    for (int64_t i = 0; i < positions; ++i) {
      batch.tokens.push_back(token());
      batch.target_classes.push_back(token());
      batch.weights.push_back(1.0);
    }
    return batch;
  }
  batch.features = setting.inputs;
  batch.outputs = 1;
  for (int64_t i = 0; i < positions * setting.inputs; ++i) {
    batch.inputs.push_back(random.NextNormal());
  }
  for (int64_t b = 0; b < setting.rows; ++b) {
    batch.target_values.push_back(random.NextNormal());
    batch.weights.push_back(1.0);
  }
  return batch;
}

void Step(benchmark::State& state, const Setting& setting, Cell cell, Detail detail) {
  Network<float> network(ConfigOf(setting, cell), setting.rows, setting.time_steps);
  network.Initialize(1);
  const Batch batch = BatchOf(setting);
  for (auto _ : state) {
    benchmark::DoNotOptimize(network.ForwardBackward(batch, detail));
  }
}

void Register() {
  for (const Setting& setting : kSettings) {
    const auto add = [&](const std::string& cell_name, Cell cell, const char* detail_name,
                         Detail detail) {
      benchmark::RegisterBenchmark(
          (cell_name + "/" + setting.name + "/" + detail_name).c_str(),
          [&setting, cell, detail](benchmark::State& state) { Step(state, setting, cell, detail); })
          ->Unit(benchmark::kMillisecond);
    };
    add("Lstm", Cell::kLstm, "none", Detail::kNone);
    add("Lstm", Cell::kLstm, "growth", Detail::kGrowth);
    add("Lstm", Cell::kLstm, "full", Detail::kFull);
    add("Gru", Cell::kGru, "none", Detail::kNone);
    add("Gru", Cell::kGru, "full", Detail::kFull);
    add("Rnn", Cell::kRnnTanh, "none", Detail::kNone);
    add("Rnn", Cell::kRnnTanh, "full", Detail::kFull);
  }
}

}  // namespace
}  // namespace gradwatch::nn

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  gradwatch::nn::Register();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
