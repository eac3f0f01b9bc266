// The growth factors at initialisation that were first measured on single networks in PyTorch, here
// as a mean over seeds.

#include <cmath>
#include <cstdio>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/philox.h"
#include "server/nn/network.h"

namespace gradwatch::nn {
namespace {

constexpr int kSeeds = 20;
constexpr int64_t kHidden = 48;
constexpr int64_t kRows = 32;
constexpr int64_t kTimeSteps = 100;

// The adding problem: a number in [0, 1) and a marker at each time step, one marker in each half;
// the target is the sum of the two marked numbers.
Batch AddingProblem(uint64_t seed) {
  Batch batch;
  batch.rows = kRows;
  batch.time_steps = kTimeSteps;
  batch.features = 2;
  batch.outputs = 1;
  batch.inputs.assign(kTimeSteps * kRows * 2, 0.0);
  batch.lengths.assign(kRows, kTimeSteps);
  batch.weights.assign(kRows, 1.0);
  batch.restart.assign(kRows, 1);
  for (int64_t b = 0; b < kRows; ++b) {
    RandomStream random(seed, StreamOf("adding"), static_cast<uint64_t>(b));
    const auto input = [&](int64_t t, int64_t f) -> double& {
      return batch.inputs[static_cast<size_t>((t * kRows + b) * 2 + f)];
    };
    for (int64_t t = 0; t < kTimeSteps; ++t) input(t, 0) = random.NextUniform();
    const int64_t half = kTimeSteps / 2;
    double sum = 0.0;
    for (const int64_t start : {int64_t{0}, half}) {
      const int64_t t = start + random.NextBelow(static_cast<uint32_t>(half));
      input(t, 1) = 1.0;
      sum += input(t, 0);
    }
    batch.target_values.push_back(sum);
  }
  return batch;
}

struct Row {
  std::string name;
  Cell cell;
  Init recurrent;
  bool pytorch_everywhere;  // Otherwise W_ih and read-out ~ N(0, 0.1^2), biases 0.
  std::optional<double> forget_gate_bias;
  double expected;
  double tolerance;
};

void PrintTo(const Row& row, std::ostream* os) { *os << row.name; }

struct Spread {
  double mean = 0.0;
  double deviation = 0.0;
};

Spread Measure(const Row& row) {
  NetworkConfig config;
  config.cell = row.cell;
  config.hidden = kHidden;
  config.features = 2;
  config.outputs = 1;
  config.loss_at = LossAt::kLastStep;
  config.recurrent_init = row.recurrent;
  config.forget_gate_bias = row.forget_gate_bias;
  if (!row.pytorch_everywhere) {
    config.input_init = {Init::Kind::kNormal, 0.1};
    config.readout_init = {Init::Kind::kNormal, 0.1};
    config.bias_init = {Init::Kind::kConstant, 0.0};
    config.readout_bias_init = {Init::Kind::kConstant, 0.0};
  }
  Network<double> network(config, kRows, kTimeSteps);
  std::vector<double> factors;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    network.Initialize(seed);
    network.ForwardBackward(AddingProblem(seed), Detail::kFull);
    double sum = 0.0;
    int count = 0;
    for (const double ratio : network.traces()[0].carry_ratio) {
      if (std::isnan(ratio)) continue;
      sum += std::log(ratio);
      ++count;
    }
    factors.push_back(std::exp(sum / count));
  }
  Spread spread;
  for (const double factor : factors) spread.mean += factor / kSeeds;
  for (const double factor : factors) {
    spread.deviation += (factor - spread.mean) * (factor - spread.mean) / (kSeeds - 1);
  }
  spread.deviation = std::sqrt(spread.deviation);
  return spread;
}

class GrowthTable : public testing::TestWithParam<Row> {};

TEST_P(GrowthTable, IsReproduced) {
  const Spread spread = Measure(GetParam());

  RecordProperty("mean", std::to_string(spread.mean));
  RecordProperty("deviation", std::to_string(spread.deviation));
  std::printf("%-22s listed %.4f  mean %.4f  deviation %.4f\n", GetParam().name.c_str(),
              GetParam().expected, spread.mean, spread.deviation);
  EXPECT_NEAR(spread.mean, GetParam().expected, GetParam().tolerance);
}

Init Orthogonal(double gain) { return {Init::Kind::kOrthogonal, gain}; }
Init Identity(double scale) { return {Init::Kind::kIdentity, scale}; }
Init Normal(double variance_times_hidden) {
  return {Init::Kind::kNormal, std::sqrt(variance_times_hidden / kHidden)};
}

INSTANTIATE_TEST_SUITE_P(
    All, GrowthTable,
    testing::Values(
        Row{"TanhOrthogonal05", Cell::kRnnTanh, Orthogonal(0.5), false, {}, 0.498, 0.02},
        Row{"TanhOrthogonal09", Cell::kRnnTanh, Orthogonal(0.9), false, {}, 0.888, 0.02},
        Row{"TanhOrthogonal10", Cell::kRnnTanh, Orthogonal(1.0), false, {}, 0.969, 0.02},
        Row{"TanhOrthogonal12", Cell::kRnnTanh, Orthogonal(1.2), false, {}, 1.017, 0.02},
        Row{"TanhOrthogonal15", Cell::kRnnTanh, Orthogonal(1.5), false, {}, 1.069, 0.02},
        Row{"TanhNormal15", Cell::kRnnTanh, Normal(1.5 * 1.5), false, {}, 1.054, 0.02},
        Row{"SigmoidNormal1", Cell::kRnnSigmoid, Normal(1.0), false, {}, 0.235, 0.02},
        Row{"SigmoidNormal16", Cell::kRnnSigmoid, Normal(16.0), false, {}, 0.635, 0.02},
        Row{"ReluIdentity10", Cell::kRnnRelu, Identity(1.0), false, {}, 0.9997, 0.02},
        Row{"ReluIdentity11", Cell::kRnnRelu, Identity(1.1), false, {}, 1.099, 0.02},
        // The first 0.623 is one low seed: PyTorch has 0.709 +- 0.044 over 200 seeds, and the mean
        // of 20 seeds has a standard error of 0.01.
        Row{"ReluOrthogonal10", Cell::kRnnRelu, Orthogonal(1.0), false, {}, 0.709, 0.03},
        Row{"ReluOrthogonal15", Cell::kRnnRelu, Orthogonal(1.5), false, {}, 1.100, 0.02},
        Row{"LstmDefault", Cell::kLstm, {}, true, {}, 0.637, 0.02},
        Row{"LstmForgetBias1", Cell::kLstm, {}, true, 1.0, 0.861, 0.02},
        Row{"LstmForgetBias5", Cell::kLstm, {}, true, 5.0, 1.026, 0.02},
        Row{"GruDefault", Cell::kGru, {}, true, {}, 0.657, 0.02}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace gradwatch::nn
