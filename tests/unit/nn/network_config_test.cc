#include "server/nn/network_config.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/nn/network.h"

namespace gradwatch::nn {
namespace {

TEST(ParametersOf, ListsPyTorchNamesAndShapesInOrderWithoutGaps) {
  NetworkConfig config;
  config.cell = Cell::kGru;
  config.layers = 2;
  config.hidden = 4;
  config.input = Input::kEmbedding;
  config.vocabulary = 10;
  config.embedding_width = 3;
  config.outputs = 5;

  const std::vector<Parameter> parameters = ParametersOf(config);

  const std::vector<std::pair<std::string, std::vector<int64_t>>> expected = {
      {"embedding.weight", {10, 3}}, {"rnn.weight_ih_l0", {12, 3}}, {"rnn.weight_hh_l0", {12, 4}},
      {"rnn.bias_ih_l0", {12}},      {"rnn.bias_hh_l0", {12}},      {"rnn.weight_ih_l1", {12, 4}},
      {"rnn.weight_hh_l1", {12, 4}}, {"rnn.bias_ih_l1", {12}},      {"rnn.bias_hh_l1", {12}},
      {"readout.weight", {5, 4}},    {"readout.bias", {5}}};
  ASSERT_EQ(parameters.size(), expected.size());
  int64_t offset = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(parameters[i].name, expected[i].first);
    EXPECT_EQ(parameters[i].shape, expected[i].second);
    EXPECT_EQ(parameters[i].offset, offset);
    offset += parameters[i].size;
  }
  EXPECT_EQ(ParameterCountOf(config), offset);
  EXPECT_EQ(parameters[5].layer, 1);
  EXPECT_EQ(parameters[6].role, Role::kRecurrentWeight);
  EXPECT_EQ(parameters[9].layer, -1);
}

TEST(ParametersOf, TakesTheFirstLayersWidthFromTheInput) {
  NetworkConfig config;
  config.cell = Cell::kLstm;
  config.hidden = 4;
  config.features = 2;
  EXPECT_EQ(ParametersOf(config)[0].shape, (std::vector<int64_t>{16, 2}));

  config.input = Input::kOneHot;
  config.vocabulary = 7;
  EXPECT_EQ(ParametersOf(config)[0].shape, (std::vector<int64_t>{16, 7}));
}

TEST(MemoryBytesOf, CountsWhatTheNetworkHolds) {
  NetworkConfig config;
  config.layers = 2;
  config.hidden = 8;
  config.features = 3;

  EXPECT_EQ(MemoryBytesOf(config, 4, 10, sizeof(float)),
            Network<float>(config, 4, 10).memory_bytes());
  EXPECT_EQ(MemoryBytesOf(config, 4, 10, sizeof(double)),
            Network<double>(config, 4, 10).memory_bytes());
}

TEST(MemoryBytesOf, SaturatesInsteadOfWrappingRound) {
  NetworkConfig config;
  config.layers = 8;
  config.hidden = 1'000'000'000;
  config.features = 1'000'000'000;
  config.outputs = 1'000'000'000;

  EXPECT_EQ(MemoryBytesOf(config, 1'000'000'000, 1'000'000'000, 8), INT64_MAX);
  config.input = Input::kEmbedding;
  config.vocabulary = INT64_MAX;
  config.embedding_width = INT64_MAX;
  EXPECT_EQ(MemoryBytesOf(config, INT64_MAX, INT64_MAX, 4), INT64_MAX);
}

TEST(MemoryBytesOf, GrowsWithEverySize) {
  NetworkConfig config;
  config.features = 4;
  const int64_t bytes = MemoryBytesOf(config, 32, 50, 4);

  EXPECT_GT(MemoryBytesOf(config, 33, 50, 4), bytes);
  EXPECT_GT(MemoryBytesOf(config, 32, 51, 4), bytes);
  EXPECT_GT(MemoryBytesOf(config, 32, 50, 8), bytes);
  config.layers = 2;
  EXPECT_GT(MemoryBytesOf(config, 32, 50, 4), bytes);
}

}  // namespace
}  // namespace gradwatch::nn
