#include "server/nn/initialize.h"

#include <cmath>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/nn/batches.h"

namespace gradwatch::nn {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAreArray;
using testing::Ge;
using testing::Le;

NetworkConfig LstmConfig() {
  NetworkConfig config;
  config.hidden = 25;
  config.input = Input::kEmbedding;
  config.vocabulary = 40;
  config.embedding_width = 16;
  config.outputs = 9;
  return config;
}

Parameter Find(const NetworkConfig& config, const std::string& name) {
  for (const Parameter& parameter : ParametersOf(config)) {
    if (parameter.name == name) return parameter;
  }
  ADD_FAILURE() << "no parameter " << name;
  return {};
}

std::vector<double> Values(const NetworkConfig& config, const std::string& name,
                           uint64_t seed = 1) {
  const Parameter parameter = Find(config, name);
  std::vector<double> values(static_cast<size_t>(parameter.size));
  FillInitialValues(config, parameter, seed, absl::MakeSpan(values));
  return values;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double MeanSquare(const std::vector<double>& values) {
  return std::inner_product(values.begin(), values.end(), values.begin(), 0.0) /
         static_cast<double>(values.size());
}

TEST(InitialValuesTest, AreUniformWithinOneOverRootHiddenByDefault) {
  for (const char* name : {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0",
                           "rnn.bias_hh_l0", "readout.weight", "readout.bias"}) {
    EXPECT_THAT(Values(LstmConfig(), name), Each(AllOf(Ge(-0.2), Le(0.2)))) << name;
  }
  const std::vector<double> weights = Values(LstmConfig(), "rnn.weight_hh_l0");
  // 2500 values of variance 0.04 / 3: the mean is within 5 standard errors of 0.0023.
  EXPECT_NEAR(Mean(weights), 0.0, 0.0115);
  EXPECT_NEAR(MeanSquare(weights), 0.04 / 3.0, 0.0015);
}

TEST(InitialValuesTest, EmbedTokensAsStandardNormalsByDefault) {
  const std::vector<double> values = Values(LstmConfig(), "embedding.weight");

  EXPECT_NEAR(Mean(values), 0.0, 0.2);
  EXPECT_NEAR(MeanSquare(values), 1.0, 0.3);
}

TEST(InitialValuesTest, AreTheSameForASeedAndOthersForAnother) {
  const std::vector<double> values = Values(LstmConfig(), "rnn.weight_hh_l0", 5);

  EXPECT_THAT(Values(LstmConfig(), "rnn.weight_hh_l0", 5), ElementsAreArray(values));
  EXPECT_NE(Values(LstmConfig(), "rnn.weight_hh_l0", 6), values);
}

TEST(InitialValuesTest, OfOneTensorDoNotDependOnTheOthers) {
  NetworkConfig deeper = LstmConfig();
  deeper.layers = 3;
  deeper.input_init = {Init::Kind::kConstant, 0.0};

  EXPECT_THAT(Values(deeper, "rnn.weight_hh_l0"),
              ElementsAreArray(Values(LstmConfig(), "rnn.weight_hh_l0")));
}

// Each gate's block B [H, columns]: B B^T or B^T B is gain^2 times the identity.
void ExpectOrthogonalBlocks(const std::vector<double>& values, int64_t blocks, int64_t rows,
                            int64_t columns, double gain) {
  ASSERT_EQ(static_cast<int64_t>(values.size()), blocks * rows * columns);
  for (int64_t block = 0; block < blocks; ++block) {
    const double* b = values.data() + block * rows * columns;
    const bool wide = columns > rows;
    const int64_t n = std::min(rows, columns);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double product = 0.0;
        for (int64_t k = 0; k < std::max(rows, columns); ++k) {
          product += wide ? b[i * columns + k] * b[j * columns + k]
                          : b[k * columns + i] * b[k * columns + j];
        }
        EXPECT_NEAR(product, i == j ? gain * gain : 0.0, 1e-12);
      }
    }
  }
}

TEST(InitialValuesTest, OrthogonalIsMadePerGateBlock) {
  NetworkConfig config = LstmConfig();
  config.recurrent_init = {Init::Kind::kOrthogonal, 1.2};
  config.input_init = {Init::Kind::kOrthogonal, 0.5};
  config.readout_init = {Init::Kind::kOrthogonal, 2.0};

  ExpectOrthogonalBlocks(Values(config, "rnn.weight_hh_l0"), 4, 25, 25, 1.2);
  ExpectOrthogonalBlocks(Values(config, "rnn.weight_ih_l0"), 4, 25, 16, 0.5);
  ExpectOrthogonalBlocks(Values(config, "readout.weight"), 1, 9, 25, 2.0);
}

TEST(InitialValuesTest, OrthogonalHasNoPreferredSign) {
  NetworkConfig config = LstmConfig();
  config.recurrent_init = {Init::Kind::kOrthogonal, 1.0};
  int positive = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<double> values = Values(config, "rnn.weight_hh_l0", seed);
    for (size_t gate = 0; gate < 4; ++gate) positive += values[gate * 625] > 0.0 ? 1 : 0;
  }
  // 200 fair coins stay within 4 standard deviations of 7.1.
  EXPECT_NEAR(positive, 100, 28);
}

TEST(InitialValuesTest, IdentityIsMadePerGateBlock) {
  NetworkConfig config = LstmConfig();
  config.hidden = 2;
  config.embedding_width = 3;
  config.recurrent_init = {Init::Kind::kIdentity, 1.5};
  config.input_init = {Init::Kind::kIdentity, 1.0};

  EXPECT_THAT(Values(config, "rnn.weight_hh_l0"),
              ElementsAreArray({1.5, 0., 0., 1.5, 1.5, 0., 0., 1.5,  //
                                1.5, 0., 0., 1.5, 1.5, 0., 0., 1.5}));
  EXPECT_THAT(Values(config, "rnn.weight_ih_l0"),
              ElementsAreArray({1., 0., 0., 0., 1., 0., 1., 0., 0., 0., 1., 0.,  //
                                1., 0., 0., 0., 1., 0., 1., 0., 0., 0., 1., 0.}));
}

TEST(InitialValuesTest, NormalHasTheDeviationAndConstantTheValue) {
  NetworkConfig config = LstmConfig();
  config.recurrent_init = {Init::Kind::kNormal, 0.3};
  config.readout_bias_init = {Init::Kind::kConstant, -0.25};

  EXPECT_NEAR(std::sqrt(MeanSquare(Values(config, "rnn.weight_hh_l0"))), 0.3, 0.02);
  EXPECT_THAT(Values(config, "readout.bias"), Each(-0.25));
}

TEST(InitialValuesTest, ForgetGateBiasStandsInTheInputBiasAlone) {
  NetworkConfig config = LstmConfig();
  config.hidden = 2;
  config.bias_init = {Init::Kind::kConstant, 0.5};
  config.forget_gate_bias = 3.0;

  EXPECT_THAT(Values(config, "rnn.bias_ih_l0"), ElementsAreArray({.5, .5, 3., 3., .5, .5, .5, .5}));
  EXPECT_THAT(Values(config, "rnn.bias_hh_l0"), ElementsAreArray({.5, .5, 0., 0., .5, .5, .5, .5}));
}

TEST(InitialValuesTest, ForgetGateBiasIsForTheLstmAlone) {
  NetworkConfig config = LstmConfig();
  config.cell = Cell::kGru;
  config.bias_init = {Init::Kind::kConstant, 0.5};
  config.forget_gate_bias = 3.0;

  EXPECT_THAT(Values(config, "rnn.bias_ih_l0"), Each(0.5));
}

}  // namespace
}  // namespace gradwatch::nn
