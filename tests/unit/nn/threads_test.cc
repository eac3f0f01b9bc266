// The number of threads, and whether they share rows or units, change no bit.

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/thread_team.h"
#include "server/nn/network.h"
#include "tests/unit/nn/batches.h"

namespace gradwatch::nn {
namespace {

// All that a run leaves behind. Numbers are compared as bits: NaN equals NaN.
struct Outcome {
  std::vector<uint64_t> bits;

  void Add(double value) {
    uint64_t bit;
    static_assert(sizeof(bit) == sizeof(value));
    std::memcpy(&bit, &value, sizeof(bit));
    bits.push_back(bit);
  }
  template <typename Values>
  void AddAll(const Values& values) {
    for (const auto value : values) Add(static_cast<double>(value));
  }
};

template <typename S>
Outcome RunsOf(const NetworkConfig& config, int64_t rows, int threads,
               Detail detail = Detail::kFull) {
  ThreadTeam team(threads);
  team.SetThreads(threads);
  Network<S> network(config, rows, 9, &team);
  network.Initialize(3);
  Outcome outcome;
  for (const bool ragged : {false, true}) {
    const Batch batch = MakeBatch(
        config,
        {.rows = rows, .time_steps = 9, .ragged = ragged, .restart = !ragged, .weighted = true});
    outcome.Add(network.ForwardBackward(batch, detail));
    outcome.AddAll(network.gradients());
    outcome.AddAll(network.state());
    for (const LayerTrace& trace : network.traces()) {
      for (const auto& values : {trace.state_gradient_norm, trace.carry_norm, trace.carry_ratio,
                                 trace.hidden_gradient_norm, trace.hidden_rms, trace.hidden_max,
                                 trace.cell_rms, trace.cell_max}) {
        outcome.AddAll(values);
      }
      outcome.Add(trace.saturated_share);
      outcome.Add(trace.dead_share);
      outcome.AddAll(trace.gate_closed);
      outcome.AddAll(trace.gate_open);
      outcome.AddAll(trace.gate_mean);
      outcome.AddAll(trace.gate_closed_units);
      for (const double value :
           {trace.keep_time_constant, trace.keep_time_constant_max, trace.activation_slope,
            trace.state_similarity, trace.hidden_drift, trace.cell_drift}) {
        outcome.Add(value);
      }
    }
    outcome.Add(network.Forward(batch));
  }
  return outcome;
}

class NetworkOfThreads : public testing::TestWithParam<Cell> {};
INSTANTIATE_TEST_SUITE_P(All, NetworkOfThreads, testing::ValuesIn(kAllCells),
                         [](const auto& param) { return NameOf(param.param); });

// Small weights are shared by rows; 5 rows do not divide by 2 or 3.
TEST_P(NetworkOfThreads, GivesTheSameBitsSharingRows) {
  NetworkConfig config;
  config.cell = GetParam();
  config.layers = 2;
  config.hidden = 37;
  config.features = 3;
  config.outputs = 2;
  config.truncation = 4;
  for (const LossAt at : {LossAt::kEachStep, LossAt::kLastStep}) {
    config.loss_at = at;
    const Outcome alone = RunsOf<float>(config, 5, 1);

    for (const int threads : {2, 3, 7}) {
      EXPECT_EQ(RunsOf<float>(config, 5, threads).bits, alone.bits) << threads << " threads";
    }
  }
}

// One member has the only row, and records some time steps only.
TEST_P(NetworkOfThreads, GivesTheSameBitsWithOneRow) {
  NetworkConfig config;
  config.cell = GetParam();
  config.hidden = 37;
  config.features = 3;
  config.loss_at = LossAt::kLastStep;
  for (const Detail detail : {Detail::kGrowth, Detail::kFull}) {
    const Outcome alone = RunsOf<float>(config, 1, 1, detail);

    EXPECT_EQ(RunsOf<float>(config, 1, 2, detail).bits, alone.bits);
  }
}

// Weights beyond the cache and few rows are shared by units.
TEST_P(NetworkOfThreads, GivesTheSameBitsSharingUnits) {
  NetworkConfig config;
  config.cell = GetParam();
  config.layers = 2;
  config.hidden = GatesOf(config.cell) == 1 ? 576 : 320;
  config.features = 5;
  const Outcome alone = RunsOf<float>(config, 4, 1);

  for (const int threads : {2, 3}) {
    EXPECT_EQ(RunsOf<float>(config, 4, threads).bits, alone.bits) << threads << " threads";
  }
}

TEST_P(NetworkOfThreads, GivesTheSameBitsForTokensInDouble) {
  NetworkConfig config;
  config.cell = GetParam();
  config.hidden = 40;
  config.vocabulary = 11;
  config.outputs = 11;
  config.loss = Loss::kCrossEntropy;
  for (const Input input : {Input::kOneHot, Input::kEmbedding}) {
    config.input = input;
    config.embedding_width = 6;
    const Outcome alone = RunsOf<double>(config, 6, 1);

    EXPECT_EQ(RunsOf<double>(config, 6, 4).bits, alone.bits);
  }
}

}  // namespace
}  // namespace gradwatch::nn
