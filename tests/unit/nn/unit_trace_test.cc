// What a LayerTrace says of units, gates and carried states, against slow references.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/nn/network.h"
#include "tests/unit/nn/batches.h"
#include "tests/unit/nn/slow_network.h"

namespace gradwatch::nn {
namespace {

constexpr double kGateError = 2e-6;  // See GateSums.

NetworkConfig ConfigWith(Cell cell, int layers, int64_t hidden) {
  NetworkConfig config;
  config.cell = cell;
  config.layers = layers;
  config.hidden = hidden;
  config.features = 3;
  config.outputs = 2;
  return config;
}

class UnitTrace : public testing::TestWithParam<Cell> {};
INSTANTIATE_TEST_SUITE_P(All, UnitTrace, testing::ValuesIn(kAllCells),
                         [](const auto& cell) { return NameOf(cell.param); });

TEST_P(UnitTrace, MeansOfGatesAndSlopesAreThoseOfASlowReference) {
  const NetworkConfig config = ConfigWith(GetParam(), 2, 7);
  const Batch batch = MakeBatch(config, {.rows = 4, .time_steps = 6, .ragged = true});
  Network<double> network(config, 4, 6);
  network.Initialize(1);
  for (double& weight : network.weights()) weight *= 3.0;  // Some gates close.
  SlowNetwork slow(network);
  for (int64_t b = 0; b < 4; ++b) slow.Outputs(batch, b);

  network.ForwardBackward(batch, Detail::kFull);

  for (size_t layer = 0; layer < 2; ++layer) {
    const LayerTrace& trace = network.traces()[layer];
    const SlowNetwork::Seen& seen = slow.seen(layer);
    const auto positions = static_cast<double>(seen.positions);
    EXPECT_NEAR(trace.activation_slope, seen.slopes / positions / 7.0, 4.0 * kGateError);
    for (size_t gate = 0; gate < static_cast<size_t>(trace.gates); ++gate) {
      double sum = 0.0;
      double closed = 0.0;
      for (const double of_unit : seen.gates[gate]) {
        sum += of_unit / positions;
        closed += of_unit / positions < 0.05 ? 1.0 : 0.0;
      }
      EXPECT_NEAR(trace.gate_mean[gate], sum / 7.0, kGateError) << gate;
      EXPECT_EQ(trace.gate_closed_units[gate], closed / 7.0) << gate;
    }
    const bool keeps = GetParam() == Cell::kLstm || GetParam() == Cell::kGru;
    EXPECT_EQ(std::isnan(trace.keep_time_constant), !keeps);
    if (!keeps) continue;
    std::vector<double> constants;
    for (const double of_unit : seen.gates[1]) {
      constants.push_back(-1.0 / std::log(of_unit / positions));
    }
    std::sort(constants.begin(), constants.end());
    // The derivative of -1 / ln m by m is (1 / ln m)^2 / m.
    const auto tolerance = [](double constant) {
      return kGateError * constant * constant * std::exp(1.0 / constant) + 1e-12;
    };
    EXPECT_NEAR(trace.keep_time_constant, constants[3], tolerance(constants[3]));
    EXPECT_NEAR(trace.keep_time_constant_max, constants[6], tolerance(constants[6]));
  }
}

TEST_P(UnitTrace, SimilarityIsTheMeanCosineOverPairsOfLastStates) {
  const NetworkConfig config = ConfigWith(GetParam(), 1, 7);
  const Batch batch = MakeBatch(config, {.rows = 5, .time_steps = 6, .ragged = true});
  Network<double> network(config, 5, 6);
  network.Initialize(1);

  network.ForwardBackward(batch, Detail::kFull);

  double sum = 0.0;
  int pairs = 0;
  const auto last = [&](int64_t row) {
    return network.hidden_state(0, batch.lengths[static_cast<size_t>(row)] - 1, row);
  };
  for (int64_t a = 0; a < 5; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      double product = 0.0, norm_a = 0.0, norm_b = 0.0;
      for (size_t i = 0; i < 7; ++i) {
        product += last(a)[i] * last(b)[i];
        norm_a += last(a)[i] * last(a)[i];
        norm_b += last(b)[i] * last(b)[i];
      }
      if (norm_a == 0.0 || norm_b == 0.0) continue;
      sum += product / std::sqrt(norm_a * norm_b);
      ++pairs;
    }
  }
  ASSERT_GT(pairs, 0);
  EXPECT_NEAR(network.traces()[0].state_similarity, sum / pairs, 1e-12);
}

TEST(UnitTrace, AStateThatIgnoresTheInputIsSimilar) {
  const NetworkConfig config = ConfigWith(Cell::kRnnTanh, 1, 4);
  Network<double> network(config, 3, 5);
  network.weights()[4 * 3 + 4 * 4] = 0.5;  // A bias of one unit, and nothing else.

  network.ForwardBackward(MakeBatch(config, {.rows = 3, .time_steps = 5}), Detail::kFull);
  EXPECT_NEAR(network.traces()[0].state_similarity, 1.0, 1e-12);

  network.ForwardBackward(MakeBatch(config, {.rows = 1, .time_steps = 5}), Detail::kFull);
  EXPECT_TRUE(std::isnan(network.traces()[0].state_similarity));
}

TEST(UnitTrace, GatesThatNeverCloseKeepForEver) {
  const NetworkConfig config = ConfigWith(Cell::kLstm, 1, 2);
  Network<double> network(config, 2, 3);
  const std::vector<double> bias = {0, 0, 60, 0, 0, 0, 0, 0};  // i, f, g, o.
  std::copy(bias.begin(), bias.end(), network.weights().begin() + 8 * 3 + 8 * 2);

  network.ForwardBackward(MakeBatch(config, {.rows = 2, .time_steps = 3}), Detail::kFull);

  const LayerTrace& trace = network.traces()[0];
  EXPECT_EQ(trace.keep_time_constant_max, std::numeric_limits<double>::infinity());
  EXPECT_EQ(trace.gate_mean[1], 0.75);
  EXPECT_EQ(trace.gate_mean[2], 0.0);
  EXPECT_EQ(trace.gate_closed_units[2], 1.0);
}

TEST(UnitTrace, AGateThatIsNotANumberHasNoMean) {
  const NetworkConfig config = ConfigWith(Cell::kGru, 1, 3);
  Network<double> network(config, 2, 3);
  network.Initialize(1);
  Batch batch = MakeBatch(config, {.rows = 2, .time_steps = 3});
  batch.inputs[0] = std::numeric_limits<double>::quiet_NaN();

  network.ForwardBackward(batch, Detail::kFull);

  EXPECT_TRUE(std::isnan(network.traces()[0].gate_mean[0]));
  EXPECT_TRUE(std::isnan(network.traces()[0].keep_time_constant));
  EXPECT_TRUE(std::isnan(network.traces()[0].activation_slope));
  EXPECT_TRUE(std::isnan(network.traces()[0].state_similarity));
}

TEST_P(UnitTrace, DriftIsWhatTheStateGrowsByFromWindowToWindow) {
  const NetworkConfig config = ConfigWith(GetParam(), 1, 7);
  Network<double> network(config, 3, 6);
  network.Initialize(1);
  Batch batch = MakeBatch(config, {.rows = 3, .time_steps = 6});
  network.ForwardBackward(batch, Detail::kFull);
  EXPECT_TRUE(std::isnan(network.traces()[0].hidden_drift));
  const std::vector<double> before(network.state().begin(), network.state().end());
  batch.restart = {0, 1, 0};

  network.ForwardBackward(batch, Detail::kFull);

  // h [3, 7], and for the LSTM c after it; row 1 began anew.
  const auto drift = [&](size_t begin) {
    double from = 0.0, to = 0.0;
    for (size_t i = 0; i < 21; ++i) {
      if (i / 7 == 1) continue;
      from += before[begin + i] * before[begin + i];
      to += network.state()[begin + i] * network.state()[begin + i];
    }
    return std::log(std::sqrt(to / from));
  };
  EXPECT_NEAR(network.traces()[0].hidden_drift, drift(0), 1e-12);
  if (GetParam() == Cell::kLstm) {
    EXPECT_NEAR(network.traces()[0].cell_drift, drift(21), 1e-12);
  } else {
    EXPECT_TRUE(std::isnan(network.traces()[0].cell_drift));
  }
}

}  // namespace
}  // namespace gradwatch::nn
