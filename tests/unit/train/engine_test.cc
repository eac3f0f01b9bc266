// Whole jobs through what the shared engine shows to the rest of the program, against PyTorch's
// losses, norms and weights: the test that runs at each CPU level. The fixtures are the job_*.json
// of tests/golden/make_train_fixtures.py.

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/data/dataset_content.h"
#include "server/nn/engine_level.h"
#include "server/train/trainer.h"
#include "tests/unit/train/fixtures.h"

namespace gradwatch::train {
namespace {

using Json = nlohmann::ordered_json;

void SetOptimizer(const Json& settings, v1::Optimizer* optimizer) {
  optimizer->set_learning_rate(settings["lr"]);
  if (settings["kind"] == "sgd") {
    optimizer->mutable_sgd()->set_momentum(settings["momentum"]);
    optimizer->mutable_sgd()->set_nesterov(settings["nesterov"]);
  } else {
    optimizer->mutable_adam()->set_beta1(settings["beta1"]);
    optimizer->mutable_adam()->set_beta2(settings["beta2"]);
    optimizer->mutable_adam()->set_epsilon(settings["epsilon"]);
  }
}

v1::Job JobOf(const Json& fixture, v1::Training::Precision precision) {
  v1::Job job;
  job.set_name("jobs/test");
  job.set_seed(1);
  v1::ForecastTask* task = job.mutable_task()->mutable_forecast();
  task->set_dataset("datasets/table");
  task->add_target_columns("wave");
  task->add_input_columns("wave");
  task->add_input_columns("slope");
  task->set_time_steps(fixture["time_steps"]);
  task->set_held_out_share(fixture["held_out_share"]);
  const std::string cell = fixture["cell"];
  job.mutable_model()->set_cell(cell == "tanh"  ? v1::Model::CELL_RNN_TANH
                                : cell == "gru" ? v1::Model::CELL_GRU
                                                : v1::Model::CELL_LSTM);
  job.mutable_model()->set_layers(fixture["layers"]);
  job.mutable_model()->set_hidden_units(fixture["hidden"]);
  SetOptimizer(fixture["optimizer"], job.mutable_optimizer());
  job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(fixture["clip"]);
  job.mutable_training()->set_batch_size(fixture["rows"]);
  job.mutable_training()->set_precision(precision);
  job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  FillDefaults(&job);
  return job;
}

int64_t SizeOf(const v1::ParameterInfo& parameter) {
  int64_t size = 1;
  for (const int64_t extent : parameter.shape()) size *= extent;
  return size;
}

// The formula of make_train_fixtures.py, for the tensor that is `number`th in PyTorch's order.
template <typename S>
std::string InitialWeights(int64_t number, int64_t size, double hidden) {
  std::string bytes;
  int64_t state = number + 1;
  for (int64_t i = 0; i < size; ++i) {
    state = (state * 1103515245 + 12345) % (int64_t{1} << 31);
    const auto value =
        static_cast<S>((static_cast<double>(state) / (1 << 30) - 1.0) / std::sqrt(hidden));
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(S));
  }
  return bytes;
}

// A trainer of the fixture's job that starts from the fixture's weights, by way of a checkpoint.
template <typename S>
std::unique_ptr<Trainer> NewTrainer(const Json& fixture) {
  const v1::Job job = JobOf(
      fixture, sizeof(S) == 4 ? v1::Training::PRECISION_FLOAT32 : v1::Training::PRECISION_FLOAT64);
  const auto table = *data::ParseTable(fixture["csv"].get<std::string>());
  v1::Checkpoint start = (*Trainer::Create(job, table))->Save();
  std::map<std::string, int64_t> numbers;
  for (const auto& [name, norm] : fixture["weight_norms"].items()) {
    numbers.emplace(name, static_cast<int64_t>(numbers.size()));
  }
  start.clear_weights();
  for (const v1::ParameterInfo& parameter : start.parameters()) {
    start.mutable_weights()->append(
        InitialWeights<S>(numbers.at(parameter.name()), SizeOf(parameter), fixture["hidden"]));
  }
  return *Trainer::Restore(job, table, start);
}

void ExpectClose(double ours, double theirs, double tolerance, const std::string& what) {
  EXPECT_NEAR(ours, theirs, tolerance * std::abs(theirs)) << what;
}

template <typename S>
void CompareWeights(const v1::Checkpoint& end, const Json& norms, double tolerance) {
  const char* next = end.weights().data();
  for (const v1::ParameterInfo& parameter : end.parameters()) {
    double squares = 0.0;
    for (int64_t i = 0; i < SizeOf(parameter); ++i, next += sizeof(S)) {
      S value;
      std::memcpy(&value, next, sizeof(S));
      squares += static_cast<double>(value) * static_cast<double>(value);
    }
    ExpectClose(std::sqrt(squares), norms[parameter.name()], tolerance, parameter.name());
  }
}

template <typename S>
void FollowPyTorch(const std::string& name, double tolerance) {
  const Json fixture = Fixture<Json>(name);
  const std::unique_ptr<Trainer> trainer = NewTrainer<S>(fixture);

  v1::StepStats stats;
  for (size_t step = 0; step < fixture["losses"].size(); ++step) {
    trainer->Step(&stats);
    const std::string at = " of step " + std::to_string(step);
    ExpectClose(stats.loss(), fixture["losses"][step], tolerance, "loss" + at);
    ExpectClose(stats.norm_before(), fixture["norms"][step], tolerance, "norm" + at);
  }

  CompareWeights<S>(trainer->Save(), fixture["weight_norms"], tolerance);
}

TEST(EngineTest, IsOfTheLevelThatWasAskedFor) {
  const char* expected = std::getenv("GRADWATCH_EXPECTED_LEVEL");
  if (expected == nullptr) GTEST_SKIP() << "GRADWATCH_EXPECTED_LEVEL is not set";

  EXPECT_STREQ(nn::EngineLevel(), expected);
}

class EngineJobTest : public testing::TestWithParam<const char*> {};

// Fifty steps grow a rounding difference of 1e-16 by less than a factor of 1e6.
TEST_P(EngineJobTest, FollowsPyTorchInDouble) { FollowPyTorch<double>(GetParam(), 1e-8); }

TEST_P(EngineJobTest, FollowsPyTorchInFloat) { FollowPyTorch<float>(GetParam(), 1e-3); }

INSTANTIATE_TEST_SUITE_P(All, EngineJobTest, testing::Values("job_tanh", "job_gru", "job_lstm"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace gradwatch::train
