// Fifty steps of network, clipping and optimizer together against PyTorch's weights. The fixtures
// come from tests/golden/make_train_fixtures.py.

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/base/batch.h"
#include "server/clip/policy.h"
#include "server/nn/network.h"
#include "server/stats/gradient_stats.h"
#include "server/train/optimizer.h"
#include "tests/unit/train/fixtures.h"

namespace gradwatch::train {
namespace {

using Json = nlohmann::json;

nn::NetworkConfig ConfigOf(const Json& fixture) {
  nn::NetworkConfig config;
  const std::string cell = fixture["cell"];
  config.cell = cell == "tanh"  ? nn::Cell::kRnnTanh
                : cell == "gru" ? nn::Cell::kGru
                                : nn::Cell::kLstm;
  config.hidden = fixture["hidden"];
  config.features = fixture["features"];
  config.outputs = fixture["outputs"];
  return config;
}

v1::Optimizer OptimizerOf(const Json& settings) {
  v1::Optimizer spec;
  if (settings["kind"] == "sgd") {
    spec.mutable_sgd()->set_momentum(settings["momentum"].get<double>());
    spec.mutable_sgd()->set_nesterov(settings["nesterov"].get<bool>());
  } else {
    spec.mutable_adam()->set_beta1(settings["beta1"].get<double>());
    spec.mutable_adam()->set_beta2(settings["beta2"].get<double>());
    spec.mutable_adam()->set_epsilon(settings["epsilon"].get<double>());
  }
  return spec;
}

Batch BatchOf(const Json& fixture, int step) {
  Batch batch;
  batch.time_steps = fixture["time_steps"];
  batch.rows = fixture["rows"];
  batch.features = fixture["features"];
  batch.outputs = fixture["outputs"];
  for (int64_t t = 0; t < batch.time_steps; ++t) {
    for (int64_t b = 0; b < batch.rows; ++b) {
      const double dt = static_cast<double>(t);
      const double db = static_cast<double>(b);
      for (int f = 0; f < batch.features; ++f) {
        batch.inputs.push_back(std::sin(0.7 * (step + 1) + 0.31 * dt + 1.3 * db + 0.9 * f));
      }
      for (int o = 0; o < batch.outputs; ++o) {
        batch.target_values.push_back(0.5 *
                                      std::cos(0.4 * (step + 1) + 0.23 * dt + 0.8 * db + 1.7 * o));
      }
    }
  }
  const auto rows = static_cast<size_t>(batch.rows);
  batch.lengths.assign(rows, static_cast<int32_t>(batch.time_steps));
  batch.weights.assign(rows * static_cast<size_t>(batch.time_steps), 1.0);
  batch.restart.assign(rows, 1);
  batch.origins.assign(rows, 0);
  return batch;
}

template <typename S>
class Loop {
 public:
  explicit Loop(const Json& fixture)
      : fixture_(fixture),
        network_(ConfigOf(fixture), fixture["rows"], fixture["time_steps"]),
        optimizer_(OptimizerOf(fixture["optimizer"]), network_.parameters()) {
    v1::Clipping clipping;
    clipping.add_policies()->mutable_global_norm()->set_max_norm(fixture["clip"].get<double>());
    chain_ = *clip::ClipChain::New(clipping);
    for (const nn::Parameter& parameter : network_.parameters()) {
      const auto values = fixture["initial"].at(parameter.name).template get<std::vector<double>>();
      std::copy(values.begin(), values.end(), network_.weights().begin() + parameter.offset);
      const auto offset = static_cast<size_t>(parameter.offset);
      const auto size = static_cast<size_t>(parameter.size);
      blocks_.push_back({parameter.name, network_.gradients().subspan(offset, size),
                         network_.weights().subspan(offset, size), parameter.shape});
    }
  }

  // Compares loss, norm and weights with the fixture's, each relative to its size.
  void Run(double tolerance) {
    std::vector<typename Optimizer<S>::Norms> norms(network_.parameters().size());
    const int steps = static_cast<int>(fixture_["losses"].size());
    for (int step = 0; step < steps; ++step) {
      const auto at = static_cast<size_t>(step);
      const double loss = network_.ForwardBackward(BatchOf(fixture_, step));
      const double norm = stats::Norm<S>(network_.gradients());
      chain_->Clip(clip::ClipContext<S>{blocks_, step});
      const typename Optimizer<S>::Update update = {network_.weights(), network_.gradients(), norm,
                                                    fixture_["optimizer"]["lr"], step + 1};
      ASSERT_EQ(optimizer_.FirstNonFinite(update), -1);
      optimizer_.Apply(update, absl::MakeSpan(norms));

      ExpectClose(loss, fixture_["losses"][at], tolerance, "loss", step);
      ExpectClose(norm, fixture_["norms"][at], tolerance, "norm", step);
      const std::string key = std::to_string(step + 1);
      if (fixture_["weights"].contains(key)) CompareWeights(fixture_["weights"][key], tolerance);
    }
  }

 private:
  static void ExpectClose(double ours, double theirs, double tolerance, const char* what,
                          int step) {
    EXPECT_NEAR(ours, theirs, tolerance * std::abs(theirs)) << what << " of step " << step;
  }

  void CompareWeights(const Json& expected, double tolerance) {
    for (const nn::Parameter& parameter : network_.parameters()) {
      const auto values = expected.at(parameter.name).template get<std::vector<double>>();
      double squares = 0.0;
      double error_squares = 0.0;
      for (size_t i = 0; i < values.size(); ++i) {
        const double ours = network_.weights()[static_cast<size_t>(parameter.offset) + i];
        squares += values[i] * values[i];
        error_squares += (ours - values[i]) * (ours - values[i]);
      }
      EXPECT_LE(std::sqrt(error_squares / squares), tolerance) << parameter.name;
    }
  }

  const Json& fixture_;
  nn::Network<S> network_;
  Optimizer<S> optimizer_;
  std::unique_ptr<clip::ClipChain> chain_;
  std::vector<clip::Block<S>> blocks_;
};

class TorchTrackingTest : public testing::TestWithParam<const char*> {};

// Fifty steps that contract grow a rounding difference of 1e-16 by less than a factor of 1e6.
TEST_P(TorchTrackingTest, FollowsPyTorchInDouble) {
  const Json fixture = Fixture<Json>(GetParam());
  Loop<double>(fixture).Run(1e-8);
}

TEST_P(TorchTrackingTest, FollowsPyTorchInFloat) {
  const Json fixture = Fixture<Json>(GetParam());
  Loop<float>(fixture).Run(1e-3);
}

INSTANTIATE_TEST_SUITE_P(All, TorchTrackingTest,
                         testing::Values("sgd_momentum_tanh", "sgd_nesterov_gru", "sgd_plain_lstm",
                                         "adam_tanh", "adam_lstm"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace gradwatch::train
