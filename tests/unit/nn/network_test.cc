#include "server/nn/network.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/nn/gradient_check.h"
#include "tests/unit/nn/batches.h"
#include "tests/unit/nn/slow_network.h"

namespace gradwatch::nn {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

NetworkConfig ConfigOf(Cell cell, int layers = 1, int64_t hidden = 6) {
  NetworkConfig config;
  config.cell = cell;
  config.layers = layers;
  config.hidden = hidden;
  config.features = 3;
  config.outputs = 2;
  return config;
}

template <typename Span>
auto Copy(const Span& span) {
  return std::vector<typename Span::value_type>(span.begin(), span.end());
}

void ExpectSlowOutputs(const NetworkConfig& config, const BatchShape& shape) {
  const Batch batch = MakeBatch(config, shape);
  Network<double> network(config, shape.rows, shape.time_steps);
  network.Initialize(2);

  network.Forward(batch);

  SlowNetwork slow(network);
  for (int64_t b = 0; b < shape.rows; ++b) {
    const auto expected = slow.Outputs(batch, b);
    for (size_t t = 0; t < expected.size(); ++t) {
      if (config.loss_at == LossAt::kLastStep && t + 1 < expected.size()) continue;
      const auto output = network.output(static_cast<int64_t>(t), b);
      for (size_t o = 0; o < output.size(); ++o) {
        ASSERT_NEAR(output[o], expected[t][o], 1e-12 * (1.0 + std::abs(expected[t][o])))
            << "row " << b << " t " << t;
      }
    }
  }
}

class NetworkOfCell : public testing::TestWithParam<Cell> {};
INSTANTIATE_TEST_SUITE_P(All, NetworkOfCell, testing::ValuesIn(kAllCells),
                         [](const auto& cell) { return NameOf(cell.param); });

TEST_P(NetworkOfCell, GivesTheOutputsOfASlowReference) {
  for (const int64_t hidden : {1, 7, 16, 33}) {
    for (const BatchShape& shape :
         {BatchShape{.rows = 1, .time_steps = 1}, BatchShape{.rows = 5, .time_steps = 9},
          BatchShape{.rows = 9, .time_steps = 4, .ragged = true}}) {
      ExpectSlowOutputs(ConfigOf(GetParam(), 1, hidden), shape);
      ExpectSlowOutputs(ConfigOf(GetParam(), 3, hidden), shape);
    }
  }
}

TEST_P(NetworkOfCell, GivesTheOutputsOfASlowReferenceForTokens) {
  NetworkConfig config = ConfigOf(GetParam(), 2);
  config.vocabulary = 5;
  config.embedding_width = 3;
  for (const Input input : {Input::kOneHot, Input::kEmbedding}) {
    config.input = input;
    ExpectSlowOutputs(config, {.rows = 4, .time_steps = 6, .ragged = true});
  }
}

TEST_P(NetworkOfCell, HasExactGradientsAtOddAndLargeSizes) {
  for (const int64_t hidden : {1, 7, 97}) {
    NetworkConfig config = ConfigOf(GetParam(), 2, hidden);
    const BatchShape shape = hidden == 97 ? BatchShape{.rows = 19, .time_steps = 31, .ragged = true}
                                          : BatchShape{.rows = 1, .time_steps = hidden};
    Network<double> network(config, shape.rows, shape.time_steps);
    network.Initialize(4);

    const auto checks =
        CheckGradients(network, MakeBatch(config, shape), {.seed = 1, .entries_per_tensor = 3});

    for (const TensorCheck& check : checks) EXPECT_LE(check.worst_excess, 1.0) << check.name;
  }
}

TEST_P(NetworkOfCell, AgreesInFloatAndDouble) {
  NetworkConfig config = ConfigOf(GetParam(), 2, 40);
  const Batch batch = MakeBatch(config, {.rows = 12, .time_steps = 50, .ragged = true});
  Network<double> exact(config, 12, 50);
  Network<float> rounded(config, 12, 50);
  exact.Initialize(3);
  rounded.Initialize(3);
  // The same weights, not only weights that were rounded from the same.
  std::copy(rounded.weights().begin(), rounded.weights().end(), exact.weights().begin());

  const double loss = exact.ForwardBackward(batch);
  const double rounded_loss = rounded.ForwardBackward(batch);

  EXPECT_NEAR(rounded_loss, loss, 1e-5 * loss);
  for (const Parameter& parameter : exact.parameters()) {
    double error = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < parameter.size; ++i) {
      const auto index = static_cast<size_t>(parameter.offset + i);
      const double gradient = exact.gradients()[index];
      const double difference = rounded.gradients()[index] - gradient;
      error += difference * difference;
      norm += gradient * gradient;
    }
    EXPECT_LE(std::sqrt(error), 1e-4 * std::sqrt(norm)) << parameter.name;
  }
}

TEST_P(NetworkOfCell, GivesTheSameBitsAtEveryDetail) {
  NetworkConfig config = ConfigOf(GetParam(), 2, 13);
  config.truncation = 4;
  const Batch batch = MakeBatch(config, {.rows = 5, .time_steps = 11, .ragged = true});
  std::vector<double> losses;
  std::vector<std::vector<float>> gradients;
  for (const Detail detail : {Detail::kNone, Detail::kGrowth, Detail::kFull}) {
    Network<float> network(config, 5, 11);
    network.Initialize(1);
    losses.push_back(network.ForwardBackward(batch, detail));
    gradients.push_back(Copy(network.gradients()));
  }

  EXPECT_THAT(losses, Each(losses[0]));
  EXPECT_THAT(gradients, Each(gradients[0]));
}

TEST_P(NetworkOfCell, GivesTheSameBitsAgainAndInALargerPlan) {
  const NetworkConfig config = ConfigOf(GetParam(), 2, 13);
  const Batch batch = MakeBatch(config, {.rows = 5, .time_steps = 11, .ragged = true});
  Network<float> network(config, 5, 11);
  Network<float> larger(config, 9, 40);
  network.Initialize(1);
  larger.Initialize(1);

  const double loss = network.ForwardBackward(batch);
  const std::vector<float> gradients = Copy(network.gradients());

  EXPECT_EQ(network.ForwardBackward(batch), loss);
  EXPECT_THAT(network.gradients(), ElementsAreArray(gradients));
  EXPECT_EQ(larger.ForwardBackward(batch), loss);
  EXPECT_THAT(larger.gradients(), ElementsAreArray(gradients));
}

// --- carried state -------------------------------------------------------------------------------

// Time steps [first, first + count) of a batch of full rows.
Batch Window(const Batch& batch, int64_t first, int64_t count, bool restart) {
  Batch window = batch;
  const auto cut = [&](auto& values, int64_t width) {
    if (values.empty()) return;
    values = {values.begin() + first * batch.rows * width,
              values.begin() + (first + count) * batch.rows * width};
  };
  window.time_steps = count;
  window.lengths.assign(static_cast<size_t>(batch.rows), static_cast<int32_t>(count));
  window.restart.assign(static_cast<size_t>(batch.rows), restart ? 1 : 0);
  cut(window.inputs, batch.features);
  cut(window.target_values, batch.outputs);
  cut(window.weights, 1);
  return window;
}

TEST_P(NetworkOfCell, CarriesTheStateFromWindowToWindow) {
  const NetworkConfig config = ConfigOf(GetParam(), 2);
  const Batch whole = MakeBatch(config, {.rows = 3, .time_steps = 10});
  Network<double> network(config, 3, 10);
  network.Initialize(1);
  network.Predict(whole);
  const std::vector<double> expected = Copy(network.output(9, 2));

  network.Predict(Window(whole, 0, 6, /*restart=*/true));
  network.Predict(Window(whole, 6, 4, /*restart=*/false));

  EXPECT_THAT(network.output(3, 2), ElementsAreArray(expected));
}

TEST_P(NetworkOfCell, ResumesExactlyFromASavedState) {
  const NetworkConfig config = ConfigOf(GetParam(), 2);
  const Batch whole = MakeBatch(config, {.rows = 3, .time_steps = 10});
  const Batch second = Window(whole, 6, 4, /*restart=*/false);
  Network<float> network(config, 3, 10);
  network.Initialize(1);
  network.Predict(Window(whole, 0, 6, /*restart=*/true));
  const std::vector<float> state = Copy(network.state());
  const double loss = network.ForwardBackward(second);

  Network<float> resumed(config, 3, 10);
  std::copy(network.weights().begin(), network.weights().end(), resumed.weights().begin());
  std::copy(state.begin(), state.end(), resumed.state().begin());

  EXPECT_EQ(resumed.ForwardBackward(second), loss);
  EXPECT_THAT(resumed.gradients(), ElementsAreArray(Copy(network.gradients())));
  EXPECT_THAT(resumed.state(), ElementsAreArray(Copy(network.state())));
}

TEST(Network, RestartsOnlyTheRowsThatSaySo) {
  const NetworkConfig config = ConfigOf(Cell::kLstm);
  const Batch batch = MakeBatch(config, {.rows = 2, .time_steps = 3});
  Network<double> network(config, 2, 3);
  network.Initialize(1);
  network.Predict(batch);
  const std::vector<double> fresh_0 = Copy(network.output(0, 0));
  const std::vector<double> fresh_1 = Copy(network.output(0, 1));
  Batch next = batch;
  next.restart = {1, 0};

  network.Predict(next);

  EXPECT_THAT(network.output(0, 0), ElementsAreArray(fresh_0));
  EXPECT_NE(Copy(network.output(0, 1)), fresh_1);
}

TEST(Network, KeepsEachRowsStateAfterItsOwnLastStep) {
  const NetworkConfig config = ConfigOf(Cell::kGru);
  const Batch batch = MakeBatch(config, {.rows = 3, .time_steps = 6, .ragged = true});
  Network<double> network(config, 3, 6);
  network.Initialize(1);

  network.Predict(batch);

  for (int64_t b = 0; b < 3; ++b) {
    const auto last = network.hidden_state(0, batch.lengths[static_cast<size_t>(b)] - 1, b);
    EXPECT_THAT(network.state().subspan(static_cast<size_t>(b * 6), 6),
                ElementsAreArray(Copy(last)));
  }
  network.ResetState();
  EXPECT_THAT(network.state(), Each(0.0));
}

// --- loss ----------------------------------------------------------------------------------------

// A network whose read-out is its bias whatever it reads.
Network<double>& SetBias(Network<double>& network, const std::vector<double>& bias) {
  std::fill(network.weights().begin(), network.weights().end(), 0.0);
  std::copy(bias.begin(), bias.end(),
            network.weights().end() - static_cast<ptrdiff_t>(bias.size()));
  return network;
}

TEST(Network, MeanSquaredLossIsTheWeightedMeanOverValidPositions) {
  const NetworkConfig config = ConfigOf(Cell::kRnnTanh);
  Network<double> network(config, 2, 2);
  SetBias(network, {1.0, 2.0});
  Batch batch = MakeBatch(config, {.rows = 2, .time_steps = 2});
  batch.lengths = {2, 1};
  batch.target_values = {0, 0, 1, 0, 4, 2, kInfinity, kInfinity};
  batch.weights = {1.0, 3.0, 2.0, 100.0};

  const double loss = network.ForwardBackward(batch);

  // Means over the two outputs: (1 + 4)/2, (0 + 4)/2, (9 + 0)/2.
  EXPECT_DOUBLE_EQ(loss, (1.0 * 2.5 + 3.0 * 2.0 + 2.0 * 4.5) / 6.0);
  EXPECT_DOUBLE_EQ(network.gradients().back(), (1.0 * 2.0 + 3.0 * 2.0 + 2.0 * 0.0) / 6.0);
}

TEST(Network, CrossEntropyIsStableForLargeOutputs) {
  NetworkConfig config = ConfigOf(Cell::kRnnTanh);
  config.loss = Loss::kCrossEntropy;
  Network<double> network(config, 1, 1);
  SetBias(network, {5000.0, 4999.0});
  Batch batch = MakeBatch(config, {.rows = 1, .time_steps = 1});
  batch.target_classes = {1};

  const double loss = network.ForwardBackward(batch);

  EXPECT_NEAR(loss, 1.0 + std::log1p(std::exp(-1.0)), 1e-12);
  EXPECT_NEAR(network.gradients().back(), 1.0 / (1.0 + std::exp(1.0)) - 1.0, 1e-12);
}

TEST(Network, RowLossesAreWhatEachRowAddsToTheLoss) {
  for (const LossAt loss_at : {LossAt::kLastStep, LossAt::kEachStep}) {
    NetworkConfig config = ConfigOf(Cell::kGru);
    config.loss_at = loss_at;
    Network<double> network(config, 5, 7);
    network.Initialize(1);
    const Batch batch =
        MakeBatch(config, {.rows = 5, .time_steps = 7, .ragged = true, .weighted = true});
    const double loss = network.ForwardBackward(batch);
    std::vector<double> parts(5);

    network.RowLosses(absl::MakeSpan(parts));

    double sum = 0.0;
    for (const double part : parts) sum += part;
    EXPECT_NEAR(sum, loss, 1e-15);
    for (size_t row = 0; row < 5; ++row) {
      // A target that the output meets takes away what the row added.
      Batch met = batch;
      for (size_t t = 0; t < batch.target_values.size() / 10; ++t) {
        if (loss_at == LossAt::kEachStep && static_cast<int32_t>(t) >= batch.lengths[row]) break;
        const auto output = network.output(static_cast<int64_t>(t), static_cast<int64_t>(row));
        std::copy(output.begin(), output.end(),
                  met.target_values.begin() + static_cast<ptrdiff_t>((t * 5 + row) * 2));
      }
      EXPECT_NEAR(loss - network.Forward(met), parts[row], 1e-15);
    }
  }
}

TEST(Network, LossIsZeroWhenNoPositionHasWeight) {
  const NetworkConfig config = ConfigOf(Cell::kGru);
  Network<double> network(config, 2, 3);
  network.Initialize(1);
  Batch batch = MakeBatch(config, {.rows = 2, .time_steps = 3});
  std::fill(batch.weights.begin(), batch.weights.end(), 0.0);

  EXPECT_EQ(network.ForwardBackward(batch), 0.0);
  EXPECT_THAT(network.gradients(), Each(0.0));
}

TEST_P(NetworkOfCell, NeverReadsBeyondARowsLength) {
  const NetworkConfig config = ConfigOf(GetParam(), 2);
  Batch batch = MakeBatch(config, {.rows = 4, .time_steps = 6, .ragged = true});
  Network<double> network(config, 4, 6);
  network.Initialize(1);
  const double loss = network.ForwardBackward(batch);
  const std::vector<double> gradients = Copy(network.gradients());

  for (int64_t t = 0; t < 6; ++t) {
    for (int64_t b = batch.valid_rows(t); b < 4; ++b) {
      const auto position = static_cast<size_t>(t * 4 + b);
      batch.weights[position] = kInfinity;
      std::fill_n(batch.inputs.begin() + static_cast<int64_t>(position) * 3, 3, kInfinity);
    }
  }

  EXPECT_EQ(network.ForwardBackward(batch, Detail::kFull), loss);
  EXPECT_THAT(network.gradients(), ElementsAreArray(gradients));
}

// --- traces --------------------------------------------------------------------------------------

TEST(LayerTrace, HoldsWhatTheDetailAsksFor) {
  const NetworkConfig config = ConfigOf(Cell::kLstm);
  const Batch batch = MakeBatch(config, {.rows = 2, .time_steps = 5});
  Network<double> network(config, 2, 5);
  network.Initialize(1);

  network.ForwardBackward(batch, Detail::kNone);
  EXPECT_THAT(network.traces()[0].state_gradient_norm, IsEmpty());

  network.ForwardBackward(batch, Detail::kGrowth);
  EXPECT_EQ(network.traces()[0].state_gradient_norm.size(), 5u);
  EXPECT_EQ(network.traces()[0].carry_norm.size(), 4u);
  EXPECT_THAT(network.traces()[0].strides, IsEmpty());
  EXPECT_THAT(network.traces()[0].carry_ratio, IsEmpty());
  EXPECT_THAT(network.traces()[0].hidden_rms, IsEmpty());

  network.ForwardBackward(batch, Detail::kFull);
  EXPECT_EQ(network.traces()[0].carry_ratio.size(), 4u);
  EXPECT_EQ(network.traces()[0].hidden_rms.size(), 5u);
  EXPECT_EQ(network.traces()[0].cell_rms.size(), 5u);
  EXPECT_EQ(network.traces()[0].gates, 4);
}

TEST(LayerTrace, OneTimeStepHasNoCarry) {
  const NetworkConfig config = ConfigOf(Cell::kGru);
  Network<double> network(config, 2, 5);
  network.Initialize(1);

  network.ForwardBackward(MakeBatch(config, {.rows = 2, .time_steps = 1}), Detail::kFull);

  EXPECT_EQ(network.traces()[0].state_gradient_norm.size(), 1u);
  EXPECT_THAT(network.traces()[0].carry_ratio, IsEmpty());
}

TEST(LayerTrace, StatesAreMeasuredOverValidRows) {
  const NetworkConfig config = ConfigOf(Cell::kRnnTanh, 2);
  const Batch batch = MakeBatch(config, {.rows = 4, .time_steps = 5, .ragged = true});
  Network<double> network(config, 4, 5);
  network.Initialize(1);

  network.ForwardBackward(batch, Detail::kFull);

  for (int layer = 0; layer < 2; ++layer) {
    for (int64_t t = 0; t < 5; ++t) {
      double sum = 0.0;
      double largest = 0.0;
      const int64_t rows = batch.valid_rows(t);
      for (int64_t b = 0; b < rows; ++b) {
        for (const double h : network.hidden_state(layer, t, b)) {
          sum += h * h;
          largest = std::max(largest, std::abs(h));
        }
      }
      const LayerTrace& trace = network.traces()[static_cast<size_t>(layer)];
      EXPECT_NEAR(trace.hidden_rms[static_cast<size_t>(t)],
                  std::sqrt(sum / static_cast<double>(rows * 6)), 1e-14);
      EXPECT_EQ(trace.hidden_max[static_cast<size_t>(t)], largest);
    }
  }
}

// Biases alone decide the state: weights are zero.
TEST(LayerTrace, CountsSaturatedTanhUnitsAndDeadReluUnits) {
  NetworkConfig config = ConfigOf(Cell::kRnnTanh, 1, 4);
  const Batch batch = MakeBatch(config, {.rows = 2, .time_steps = 3});
  const auto trace_of = [&](Cell cell) {
    config.cell = cell;
    Network<double> network(config, 2, 3);
    const std::vector<double> bias = {-9.0, 9.0, -0.1, 0.1};
    std::copy(bias.begin(), bias.end(), network.weights().begin() + 4 * 3 + 4 * 4);
    network.ForwardBackward(batch, Detail::kFull);
    return network.traces()[0];
  };

  EXPECT_EQ(trace_of(Cell::kRnnTanh).saturated_share, 0.5);
  EXPECT_TRUE(std::isnan(trace_of(Cell::kRnnTanh).dead_share));
  EXPECT_EQ(trace_of(Cell::kRnnRelu).dead_share, 0.5);
  EXPECT_EQ(trace_of(Cell::kRnnRelu).saturated_share, 0.5);
  EXPECT_EQ(trace_of(Cell::kRnnSigmoid).gates, 1);
  EXPECT_EQ(trace_of(Cell::kRnnSigmoid).gate_closed[0], 0.25);
  EXPECT_EQ(trace_of(Cell::kRnnSigmoid).gate_open[0], 0.25);
}

TEST(LayerTrace, CountsClosedAndOpenGatesOneByOne) {
  NetworkConfig config = ConfigOf(Cell::kLstm, 1, 2);
  Network<double> network(config, 2, 3);
  const std::vector<double> bias = {-9, -9, 9, 0, -9, 9, 9, -9};  // i, f, g, o.
  std::copy(bias.begin(), bias.end(), network.weights().begin() + 8 * 3 + 8 * 2);

  network.ForwardBackward(MakeBatch(config, {.rows = 2, .time_steps = 3}), Detail::kFull);

  const LayerTrace& trace = network.traces()[0];
  EXPECT_EQ(trace.gates, 4);
  EXPECT_EQ(trace.gate_closed[0], 1.0);
  EXPECT_EQ(trace.gate_open[0], 0.0);
  EXPECT_EQ(trace.gate_closed[1], 0.0);
  EXPECT_EQ(trace.gate_open[1], 0.5);
  EXPECT_EQ(trace.gate_closed[2], 0.0);
  EXPECT_EQ(trace.gate_open[2], 1.0);
  EXPECT_EQ(trace.gate_closed[3], 0.5);
  EXPECT_EQ(trace.gate_open[3], 0.5);
}

// The norms that Detail::kGrowth takes of one row are those of Detail::kFull at the same time
// steps.
template <typename S>
std::vector<int> ExpectStrides(Network<S>* network, const Batch& batch) {
  network->ForwardBackward(batch, Detail::kFull);
  const absl::Span<const double> full = network->traces().back().state_gradient_norm;
  const std::vector<double> all(full.begin(), full.end());
  network->ForwardBackward(batch, Detail::kGrowth);
  const LayerTrace& trace = network->traces().back();
  EXPECT_EQ(trace.state_gradient_norm.size(), trace.strides.size() + 1);
  EXPECT_EQ(trace.carry_norm.size(), trace.strides.size());
  size_t t = 0;
  for (size_t i = 0; i < trace.state_gradient_norm.size(); ++i) {
    EXPECT_EQ(trace.state_gradient_norm[i], all[t]) << "time step " << t;
    if (i == trace.strides.size()) break;
    EXPECT_EQ(trace.carry_norm[i], all[t]) << "time step " << t;
    t += static_cast<size_t>(trace.strides[i]);
  }
  EXPECT_EQ(t + 1, all.size());
  return {trace.strides.begin(), trace.strides.end()};
}

TEST(LayerTrace, GrowthOfOneRowWithOneLossIsMeasuredInStrides) {
  for (const Cell cell : kAllCells) {
    NetworkConfig config = ConfigOf(cell, 2, 20);
    config.loss_at = LossAt::kLastStep;
    config.recurrent_init = {Init::Kind::kOrthogonal, cell == Cell::kRnnSigmoid ? 4.0 : 1.0};
    Network<float> network(config, 1, 70);
    network.Initialize(1);
    const auto strides = [&](int64_t time_steps) {
      SCOPED_TRACE(testing::Message() << NameOf(cell) << ", " << time_steps);
      return ExpectStrides(&network, MakeBatch(config, {.rows = 1, .time_steps = time_steps}));
    };
    EXPECT_THAT(strides(1), IsEmpty());
    EXPECT_THAT(strides(2), ElementsAre(1));
    EXPECT_THAT(strides(3), ElementsAre(1, 1));
    EXPECT_THAT(strides(5), ElementsAre(2, 1, 1));
    EXPECT_THAT(strides(9), ElementsAre(4, 2, 1, 1));
    EXPECT_THAT(strides(10), ElementsAre(1, 4, 2, 1, 1));
    EXPECT_THAT(strides(70), ElementsAre(5, 16, 16, 16, 8, 4, 2, 1, 1));
    // The layer below gets gradients at every time step.
    EXPECT_THAT(network.traces()[0].strides, IsEmpty());
    EXPECT_EQ(network.traces()[0].state_gradient_norm.size(), 70u);
  }
}

TEST(LayerTrace, StridesAreShortWhereTheGradientIsNearlyLost) {
  NetworkConfig config = ConfigOf(Cell::kRnnTanh);
  config.loss_at = LossAt::kLastStep;
  config.recurrent_init = {Init::Kind::kIdentity, 2e-2};
  Network<double> network(config, 1, 25);
  network.Initialize(1);

  // At lag 16 the norm is about 1e-27.
  EXPECT_THAT(ExpectStrides(&network, MakeBatch(config, {.rows = 1, .time_steps = 25})),
              ElementsAre(1, 1, 1, 1, 1, 1, 1, 1, 8, 4, 2, 1, 1));
}

TEST(LayerTrace, TakesEveryTimeStepOfWhatIsNoProductOfRatios) {
  NetworkConfig config = ConfigOf(Cell::kGru);
  const auto measured = [&config](int64_t rows) {
    Network<double> network(config, rows, 17);
    network.Initialize(1);
    network.ForwardBackward(MakeBatch(config, {.rows = rows, .time_steps = 17}), Detail::kGrowth);
    return network.traces()[0].state_gradient_norm.size();
  };
  EXPECT_EQ(measured(1), 17u);  // A loss at every step.
  config.loss_at = LossAt::kLastStep;
  EXPECT_EQ(measured(1), 6u);
  EXPECT_EQ(measured(2), 17u);
  config.truncation = 5;
  EXPECT_EQ(measured(1), 17u);
}

TEST(LayerTrace, HasNoCarryRatioWhereTheGradientIsLost) {
  NetworkConfig config = ConfigOf(Cell::kRnnTanh);
  config.loss_at = LossAt::kLastStep;
  config.recurrent_init = {Init::Kind::kConstant, 0.0};
  Network<double> network(config, 2, 4);
  network.Initialize(1);

  network.ForwardBackward(MakeBatch(config, {.rows = 2, .time_steps = 4}), Detail::kFull);

  EXPECT_EQ(network.traces()[0].carry_norm[2], 0.0);
  for (const double ratio : network.traces()[0].carry_ratio) EXPECT_TRUE(std::isnan(ratio));
}

// --- the first non-finite tensor
// ---------------------------------------------------------------------

struct Found {
  NonFinite::Stage stage;
  std::string tensor;
  int layer;
  int64_t time_step;
};

void ExpectFound(const std::optional<NonFinite>& found, const Found& expected) {
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->stage, expected.stage);
  EXPECT_EQ(found->tensor, expected.tensor);
  EXPECT_EQ(found->layer, expected.layer);
  EXPECT_EQ(found->time_step, expected.time_step);
}

TEST_P(NetworkOfCell, FindsNothingNonFiniteWhenAllIsFinite) {
  const NetworkConfig config = ConfigOf(GetParam(), 2);
  Network<float> network(config, 3, 7);
  network.Initialize(1);

  network.ForwardBackward(MakeBatch(config, {}));

  EXPECT_FALSE(network.FirstNonFinite().has_value());
}

TEST_P(NetworkOfCell, FindsANonFiniteInputFirst) {
  const NetworkConfig config = ConfigOf(GetParam(), 2);
  Batch batch = MakeBatch(config, {});
  batch.inputs[(4 * 3 + 1) * 3] = std::nan("");
  Network<float> network(config, 3, 7);
  network.Initialize(1);

  const double loss = network.ForwardBackward(batch);

  EXPECT_TRUE(std::isnan(loss));
  ExpectFound(network.FirstNonFinite(), {NonFinite::Stage::kInput, "input", -1, 4});
}

TEST_P(NetworkOfCell, FindsTheLayerAndTimeStepOfANonFiniteState) {
  NetworkConfig config = ConfigOf(GetParam(), 2);
  config.input = Input::kOneHot;
  config.vocabulary = 3;
  Batch batch = MakeBatch(config, {});
  std::fill(batch.tokens.begin(), batch.tokens.end(), 0);
  batch.tokens[5 * 3] = 2;
  Network<float> network(config, 3, 7);
  network.Initialize(1);
  network.weights()[2] = std::numeric_limits<float>::quiet_NaN();  // First unit, token 2.

  network.ForwardBackward(batch);

  const std::string tensor = GetParam() == Cell::kLstm ? "c_l0" : "h_l0";
  ExpectFound(network.FirstNonFinite(), {NonFinite::Stage::kHidden, tensor, 0, 5});
}

TEST(Network, FindsAReluStateThatOverflows) {
  NetworkConfig config = ConfigOf(Cell::kRnnRelu);
  config.recurrent_init = {Init::Kind::kIdentity, 1e10};
  config.input_init = {Init::Kind::kConstant, 1.0};
  config.bias_init = {Init::Kind::kConstant, 0.0};
  Batch batch = MakeBatch(config, {});
  std::fill(batch.inputs.begin(), batch.inputs.end(), 1.0);
  Network<float> network(config, 3, 7);
  network.Initialize(1);

  const double loss = network.ForwardBackward(batch);

  // 3, 3e10, 3e20, 3e30, and 3e40 is beyond float.
  EXPECT_FALSE(std::isfinite(loss));
  ExpectFound(network.FirstNonFinite(), {NonFinite::Stage::kHidden, "h_l0", 0, 4});
}

TEST(Network, FindsANonFiniteReadoutAndLoss) {
  const NetworkConfig config = ConfigOf(Cell::kRnnTanh);
  Batch batch = MakeBatch(config, {});
  Network<float> network(config, 3, 7);
  network.Initialize(1);
  batch.target_values[0] = kInfinity;

  network.ForwardBackward(batch);
  ExpectFound(network.FirstNonFinite(), {NonFinite::Stage::kLoss, "loss", -1, -1});

  network.weights().back() = std::numeric_limits<float>::infinity();
  network.ForwardBackward(batch);
  ExpectFound(network.FirstNonFinite(), {NonFinite::Stage::kReadout, "readout", -1, 0});
}

TEST(Network, FindsTheTimeStepWhereTheBackwardPassOverflows) {
  // The states stay zero, the gradient at them grows by 1e10 at each time step back.
  NetworkConfig config = ConfigOf(Cell::kRnnTanh);
  config.loss_at = LossAt::kLastStep;
  config.recurrent_init = {Init::Kind::kIdentity, 1e10};
  config.input_init = {Init::Kind::kConstant, 0.0};
  config.bias_init = {Init::Kind::kConstant, 0.0};
  config.readout_init = {Init::Kind::kConstant, 1.0};
  config.readout_bias_init = {Init::Kind::kConstant, 0.0};
  Batch batch = MakeBatch(config, {});
  std::fill(batch.target_values.begin(), batch.target_values.end(), 1.0);
  Network<float> network(config, 3, 7);
  network.Initialize(1);

  const double loss = network.ForwardBackward(batch);

  EXPECT_EQ(loss, 1.0);
  // About 1 at t = 6, 1e30 at t = 3, beyond float at t = 2.
  ExpectFound(network.FirstNonFinite(), {NonFinite::Stage::kBackward, "gate_gradient_l0", 0, 2});
}

}  // namespace
}  // namespace gradwatch::nn
