// The network against fixtures that PyTorch computed: tests/golden/make_nn_fixtures.py.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/base/batch.h"
#include "server/nn/network.h"

namespace gradwatch::nn {
namespace {

using Json = nlohmann::json;

struct Fixture {
  Json json;
  NetworkConfig config;
  Batch batch;
};

std::filesystem::path Folder() {
  return std::filesystem::path(GRADWATCH_SOURCE_DIR) / "tests" / "golden" / "nn";
}

std::vector<std::string> FixtureNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

NetworkConfig ConfigOf(const Json& json) {
  const std::map<std::string, Cell> cells = {{"rnn_tanh", Cell::kRnnTanh},
                                             {"rnn_relu", Cell::kRnnRelu},
                                             {"rnn_sigmoid", Cell::kRnnSigmoid},
                                             {"gru", Cell::kGru},
                                             {"lstm", Cell::kLstm}};
  const std::map<std::string, Input> inputs = {{"features", Input::kFeatures},
                                               {"one_hot", Input::kOneHot},
                                               {"embedding", Input::kEmbedding}};
  NetworkConfig config;
  config.cell = cells.at(json.at("cell"));
  config.layers = json.at("layers");
  config.hidden = json.at("hidden");
  config.input = inputs.at(json.at("input"));
  config.features = json.at("features");
  config.vocabulary = json.at("vocabulary");
  config.embedding_width = json.at("embedding_width");
  config.outputs = json.at("outputs");
  config.loss = json.at("loss") == "mean_squared" ? Loss::kMeanSquared : Loss::kCrossEntropy;
  config.loss_at = json.at("loss_at") == "last_step" ? LossAt::kLastStep : LossAt::kEachStep;
  config.truncation = json.at("truncation");
  return config;
}

Batch BatchOf(const Json& json, const NetworkConfig& config) {
  const Json& shape = json.at("config");
  const Json& data = json.at("data");
  Batch batch;
  batch.time_steps = shape.at("time_steps");
  batch.rows = shape.at("rows");
  batch.lengths = shape.at("lengths").get<std::vector<int32_t>>();
  batch.restart.assign(static_cast<size_t>(batch.rows), 1);
  if (config.input == Input::kFeatures) {
    batch.features = config.features;
    batch.inputs = data.at("inputs").get<std::vector<double>>();
  } else {
    batch.tokens = data.at("tokens").get<std::vector<int32_t>>();
  }
  if (config.loss == Loss::kMeanSquared) {
    batch.outputs = config.outputs;
    batch.target_values = data.at("target_values").get<std::vector<double>>();
  } else {
    batch.target_classes = data.at("target_classes").get<std::vector<int32_t>>();
  }
  batch.weights = data.at("weights").get<std::vector<double>>();
  return batch;
}

Fixture Load(const std::string& name) {
  Fixture fixture;
  std::ifstream file(Folder() / (name + ".json"));
  fixture.json = Json::parse(file);
  fixture.config = ConfigOf(fixture.json.at("config"));
  fixture.batch = BatchOf(fixture.json, fixture.config);
  return fixture;
}

template <typename S>
void LoadWeights(const Fixture& fixture, Network<S>& network) {
  ASSERT_EQ(fixture.json.at("parameters").size(), network.parameters().size());
  for (const Parameter& parameter : network.parameters()) {
    const auto values =
        fixture.json.at("parameters").at(parameter.name).template get<std::vector<double>>();
    ASSERT_EQ(static_cast<int64_t>(values.size()), parameter.size) << parameter.name;
    for (size_t i = 0; i < values.size(); ++i) {
      network.weights()[static_cast<size_t>(parameter.offset) + i] = static_cast<S>(values[i]);
    }
  }
}

struct Tolerance {
  double output_relative;
  double output_absolute;
  double gradient_entry;  // Relative to the entry.
  double gradient_floor;  // Relative to the tensor's largest entry.
};

// Relative 1e-10 in double; absolute 1e-5 forward and relative 1e-4 gradients in float. An entry
// that is a difference of larger terms carries their rounding: hence the floors.
template <typename S>
constexpr Tolerance kTolerance = sizeof(S) == sizeof(double) ? Tolerance{1e-10, 1e-14, 1e-10, 1e-14}
                                                             : Tolerance{0.0, 1e-5, 1e-4, 1e-5};

template <typename S>
void ExpectOutputsAgree(const Fixture& fixture, const Network<S>& network) {
  const auto expected = fixture.json.at("outputs").get<std::vector<double>>();
  const Batch& batch = fixture.batch;
  const bool last = fixture.config.loss_at == LossAt::kLastStep;
  for (int64_t t = 0; t < (last ? 1 : batch.time_steps); ++t) {
    for (int64_t b = 0; b < (last ? batch.rows : batch.valid_rows(t)); ++b) {
      const absl::Span<const S> output = network.output(t, b);
      for (size_t o = 0; o < output.size(); ++o) {
        const double value = expected[static_cast<size_t>(t * batch.rows + b) * output.size() + o];
        EXPECT_NEAR(output[o], value,
                    kTolerance<S>.output_absolute + kTolerance<S>.output_relative * std::abs(value))
            << "t " << t << " row " << b << " output " << o;
      }
    }
  }
}

template <typename S>
void ExpectGradientsAgree(const Fixture& fixture, const Network<S>& network) {
  for (const Parameter& parameter : network.parameters()) {
    const auto expected =
        fixture.json.at("gradients").at(parameter.name).template get<std::vector<double>>();
    double largest = 0.0;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(network.gradients()[static_cast<size_t>(parameter.offset) + i], expected[i],
                  kTolerance<S>.gradient_floor * largest +
                      kTolerance<S>.gradient_entry * std::abs(expected[i]))
          << parameter.name << "[" << i << "]";
    }
  }
}

double GrowthFactor(const LayerTrace& trace) {
  double sum = 0.0;
  int count = 0;
  for (const double ratio : trace.carry_ratio) {
    if (std::isnan(ratio)) continue;
    sum += std::log(ratio);
    ++count;
  }
  return std::exp(sum / count);
}

class PyTorch : public testing::TestWithParam<std::string> {
 protected:
  template <typename S>
  void ExpectAgreement() {
    const Fixture fixture = Load(GetParam());
    Network<S> network(fixture.config, fixture.batch.rows, fixture.batch.time_steps);
    LoadWeights(fixture, network);
    if (HasFatalFailure()) return;

    const double loss = network.ForwardBackward(fixture.batch);

    const double expected = fixture.json.at("loss");
    EXPECT_NEAR(loss, expected, (sizeof(S) == sizeof(double) ? 1e-12 : 1e-5) * expected);
    if (!fixture.json.contains("gradients")) return;
    ExpectOutputsAgree(fixture, network);
    ExpectGradientsAgree(fixture, network);
  }
};

TEST_P(PyTorch, HasTheSameOutputsLossAndGradientsInDouble) { ExpectAgreement<double>(); }

TEST_P(PyTorch, HasTheSameOutputsLossAndGradientsInFloat) { ExpectAgreement<float>(); }

TEST_P(PyTorch, HasTheSameGradientThroughTime) {
  const Fixture fixture = Load(GetParam());
  Network<double> network(fixture.config, fixture.batch.rows, fixture.batch.time_steps);
  LoadWeights(fixture, network);

  network.ForwardBackward(fixture.batch, Detail::kFull);

  for (int layer = 0; layer < fixture.config.layers; ++layer) {
    const LayerTrace& trace = network.traces()[static_cast<size_t>(layer)];
    const Json& expected = fixture.json.at("traces").at(static_cast<size_t>(layer));
    const auto adjoint = expected.at("state_gradient_norm").get<std::vector<double>>();
    const auto hidden = expected.at("hidden_gradient_norm").get<std::vector<double>>();
    const Json& carry = expected.at("carry_norm");
    ASSERT_EQ(trace.state_gradient_norm.size(), adjoint.size());
    ASSERT_EQ(trace.carry_norm.size(), adjoint.size() - 1);
    for (size_t t = 0; t < adjoint.size(); ++t) {
      EXPECT_NEAR(trace.state_gradient_norm[t], adjoint[t], 1e-10 * adjoint[t]) << "t " << t;
      EXPECT_NEAR(trace.hidden_gradient_norm[t], hidden[t], 1e-10 * adjoint[t]) << "t " << t;
    }
    for (size_t t = 0; t + 1 < adjoint.size(); ++t) {
      if (carry[t].is_null()) {
        EXPECT_TRUE(std::isnan(trace.carry_norm[t])) << "t " << t;
        EXPECT_TRUE(std::isnan(trace.carry_ratio[t])) << "t " << t;
        continue;
      }
      const double ratio = carry[t].get<double>() / adjoint[t + 1];
      EXPECT_NEAR(trace.carry_norm[t], carry[t].get<double>(), 1e-10 * carry[t].get<double>());
      EXPECT_NEAR(trace.carry_ratio[t], ratio, 1e-6 * ratio) << "t " << t;
    }
    const double growth = expected.at("growth_factor");
    EXPECT_NEAR(GrowthFactor(trace), growth, 1e-6 * growth) << "layer " << layer;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PyTorch, testing::ValuesIn(FixtureNames()),
                         [](const auto& name) { return name.param; });

TEST(PyTorchFixtures, CoverEveryCellWithOneAndTwoLayers) {
  const std::vector<std::string> names = FixtureNames();
  for (const char* cell : {"rnn_tanh", "rnn_relu", "rnn_sigmoid", "gru", "lstm"}) {
    for (const char* layers : {"_1_", "_2_"}) {
      const std::string prefix = std::string(cell) + layers;
      EXPECT_THAT(names, testing::Contains(testing::StartsWith(prefix)));
    }
  }
}

}  // namespace
}  // namespace gradwatch::nn
