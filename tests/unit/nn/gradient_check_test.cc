#include "server/nn/gradient_check.h"

#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/nn/batches.h"

namespace gradwatch::nn {
namespace {

// Small weights keep third derivatives small, against which a central difference errs.
NetworkConfig SmallNetwork(Cell cell, int layers) {
  NetworkConfig config;
  config.cell = cell;
  config.layers = layers;
  config.hidden = 5;
  config.features = 3;
  config.outputs = 2;
  return config;
}

void FillState(Network<double>& network) {
  RandomStream random(7, StreamOf("test state"), 0);
  for (double& value : network.state()) value = random.NextNormal();
}

void ExpectGradientsAgree(Network<double>& network, const Batch& batch) {
  GradientCheckOptions options;
  options.entries_per_tensor = 0;
  int64_t entries = 0;
  int64_t kinks = 0;
  for (const TensorCheck& check : CheckGradients(network, batch, options)) {
    EXPECT_LE(check.worst_excess, 1.0)
        << check.name << "[" << check.worst_entry << "] is off by " << check.worst_absolute;
    EXPECT_LE(check.norm_relative, 1e-7) << check.name;
    entries += check.entries;
    kinks += check.kinks;
  }
  EXPECT_LE(kinks, entries / 10);
}

// Cell, layers, loss at, truncation, ragged.
using Setting = std::tuple<Cell, int, LossAt, int64_t, bool>;

class GradientCheck : public testing::TestWithParam<Setting> {};

TEST_P(GradientCheck, AgreesWithCentralDifferences) {
  const auto [cell, layers, loss_at, truncation, ragged] = GetParam();
  NetworkConfig config = SmallNetwork(cell, layers);
  config.loss_at = loss_at;
  config.truncation = truncation;
  Network<double> network(config, 4, 7);
  network.Initialize(3);

  ExpectGradientsAgree(network, MakeBatch(config, {.rows = 4, .ragged = ragged}));
}

std::string NameOfSetting(const testing::TestParamInfo<Setting>& info) {
  const auto [cell, layers, loss_at, truncation, ragged] = info.param;
  return NameOf(cell) + std::to_string(layers) +
         (loss_at == LossAt::kEachStep ? "EachStep" : "LastStep") +
         (truncation > 0 ? "Truncated" : "Full") + (ragged ? "Ragged" : "Even");
}

INSTANTIATE_TEST_SUITE_P(All, GradientCheck,
                         testing::Combine(testing::ValuesIn(kAllCells), testing::Values(1, 2),
                                          testing::Values(LossAt::kEachStep, LossAt::kLastStep),
                                          testing::Values(int64_t{0}, int64_t{3}), testing::Bool()),
                         NameOfSetting);

class GradientCheckOfCell : public testing::TestWithParam<Cell> {};

TEST_P(GradientCheckOfCell, HoldsForOneHotTokensAndCrossEntropy) {
  NetworkConfig config = SmallNetwork(GetParam(), 1);
  config.input = Input::kOneHot;
  config.vocabulary = 6;
  config.outputs = 4;
  config.loss = Loss::kCrossEntropy;
  Network<double> network(config, 3, 7);
  network.Initialize(5);

  ExpectGradientsAgree(network, MakeBatch(config, {.ragged = true, .weighted = true}));
}

TEST_P(GradientCheckOfCell, HoldsForEmbeddedTokensAndCarriedState) {
  NetworkConfig config = SmallNetwork(GetParam(), 2);
  config.input = Input::kEmbedding;
  config.vocabulary = 6;
  config.embedding_width = 4;
  config.loss = Loss::kCrossEntropy;
  config.truncation = 4;
  Network<double> network(config, 3, 7);
  network.Initialize(5);
  FillState(network);

  ExpectGradientsAgree(network, MakeBatch(config, {.restart = false, .weighted = true}));
}

TEST_P(GradientCheckOfCell, HoldsForWeightsAtTheLastStepOfRaggedRows) {
  NetworkConfig config = SmallNetwork(GetParam(), 2);
  config.loss_at = LossAt::kLastStep;
  Network<double> network(config, 4, 9);
  network.Initialize(8);

  ExpectGradientsAgree(
      network, MakeBatch(config, {.rows = 4, .time_steps = 9, .ragged = true, .weighted = true}));
}

INSTANTIATE_TEST_SUITE_P(All, GradientCheckOfCell, testing::ValuesIn(kAllCells),
                         [](const auto& cell) { return NameOf(cell.param); });

TEST(CheckGradients, LeavesWeightsStateAndGradientsOfTheBatch) {
  NetworkConfig config = SmallNetwork(Cell::kLstm, 1);
  Network<double> network(config, 3, 7);
  network.Initialize(1);
  FillState(network);
  const Batch batch = MakeBatch(config, {.restart = false});
  const std::vector<double> weights(network.weights().begin(), network.weights().end());
  const std::vector<double> state(network.state().begin(), network.state().end());

  CheckGradients(network, batch, {.entries_per_tensor = 2});

  EXPECT_THAT(network.weights(), testing::ElementsAreArray(weights));
  EXPECT_THAT(network.state(), testing::ElementsAreArray(state));
  const std::vector<double> gradients(network.gradients().begin(), network.gradients().end());
  network.ForwardBackward(batch);
  EXPECT_THAT(network.gradients(), testing::ElementsAreArray(gradients));
}

TEST(CheckGradients, ChecksABoundedSampleThatTheSeedChooses) {
  NetworkConfig config = SmallNetwork(Cell::kGru, 1);
  Network<double> network(config, 3, 7);
  network.Initialize(1);
  const Batch batch = MakeBatch(config, {});

  const auto checks = CheckGradients(network, batch, {.seed = 9, .entries_per_tensor = 4});

  ASSERT_EQ(checks.size(), network.parameters().size());
  for (const TensorCheck& check : checks) EXPECT_LE(check.entries, 4) << check.name;
  EXPECT_EQ(checks[0].entries, 4);
  EXPECT_EQ(checks.back().name, "readout.bias");
  EXPECT_EQ(checks.back().entries, 2);
}

TEST(CheckGradients, CountsTheStepsThatCrossAKink) {
  NetworkConfig config = SmallNetwork(Cell::kRnnRelu, 1);
  config.bias_init = {Init::Kind::kConstant, 0.0};
  config.input_init = {Init::Kind::kConstant, 0.0};
  config.recurrent_init = {Init::Kind::kConstant, 0.0};
  Network<double> network(config, 1, 1);
  network.Initialize(1);

  const auto checks = CheckGradients(network, MakeBatch(config, {.rows = 1, .time_steps = 1}), {});

  ASSERT_EQ(checks[2].name, "rnn.bias_ih_l0");
  EXPECT_EQ(checks[2].kinks, 5);
  EXPECT_EQ(checks[2].entries, 0);
}

}  // namespace
}  // namespace gradwatch::nn
