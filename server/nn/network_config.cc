#include "server/nn/network_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/squares.h"
#include "server/nn/buffer.h"
#include "server/nn/plan.h"

namespace gradwatch::nn {
namespace {

void Append(std::vector<Parameter>& parameters, std::string name, std::vector<int64_t> shape,
            int layer, Role role) {
  int64_t offset = 0;
  if (!parameters.empty()) {
    offset = SaturatingAdd(parameters.back().offset, parameters.back().size);
  }
  int64_t size = 1;
  for (const int64_t extent : shape) size = SaturatingMultiply(size, extent);
  parameters.push_back({std::move(name), std::move(shape), offset, size, layer, role});
}

}  // namespace

int GatesOf(Cell cell) {
  switch (cell) {
    case Cell::kGru:
      return 3;
    case Cell::kLstm:
      return 4;
    case Cell::kRnnTanh:
    case Cell::kRnnRelu:
    case Cell::kRnnSigmoid:
      break;
  }
  return 1;
}

std::vector<Parameter> ParametersOf(const NetworkConfig& config) {
  std::vector<Parameter> parameters;
  if (config.input == Input::kEmbedding) {
    Append(parameters, "embedding.weight", {config.vocabulary, config.embedding_width}, -1,
           Role::kEmbedding);
  }
  const int64_t gate_rows = SaturatingMultiply(GatesOf(config.cell), config.hidden);
  for (int layer = 0; layer < config.layers; ++layer) {
    const int64_t width = layer == 0 ? InputWidthOf(config) : config.hidden;
    Append(parameters, absl::StrCat("rnn.weight_ih_l", layer), {gate_rows, width}, layer,
           Role::kInputWeight);
    Append(parameters, absl::StrCat("rnn.weight_hh_l", layer), {gate_rows, config.hidden}, layer,
           Role::kRecurrentWeight);
    Append(parameters, absl::StrCat("rnn.bias_ih_l", layer), {gate_rows}, layer, Role::kInputBias);
    Append(parameters, absl::StrCat("rnn.bias_hh_l", layer), {gate_rows}, layer,
           Role::kRecurrentBias);
  }
  Append(parameters, "readout.weight", {config.outputs, config.hidden}, -1, Role::kReadoutWeight);
  Append(parameters, "readout.bias", {config.outputs}, -1, Role::kReadoutBias);
  return parameters;
}

int64_t ParameterCountOf(const NetworkConfig& config) {
  const std::vector<Parameter> parameters = ParametersOf(config);
  return SaturatingAdd(parameters.back().offset, parameters.back().size);
}

int ThreadsUsefulOf(const NetworkConfig& config, int64_t rows, int64_t time_steps) {
  // Products of one batch that are worth another thread: some 50 us of them.
  constexpr int64_t kProductsPerThread = 2'000'000;
  // Products of one time step that are worth a barrier.
  constexpr int64_t kProductsPerBarrier = 100'000;
  const auto times = SaturatingMultiply;
  const int64_t weights = times(GatesOf(config.cell) * config.hidden, config.hidden);
  const int64_t per_time_step = times(weights, rows);
  const int64_t all = times(times(per_time_step, time_steps), 3 * config.layers);
  const int64_t by_rows = std::min(rows, all / kProductsPerThread);
  const int64_t by_units =
      std::min(config.hidden / kSquaresBlock, per_time_step / kProductsPerBarrier);
  constexpr int64_t kThreadsMax = 64;
  return static_cast<int>(std::clamp<int64_t>(std::max(by_rows, by_units), 1, kThreadsMax));
}

int64_t MemoryBytesOf(const NetworkConfig& config, int64_t rows, int64_t time_steps,
                      int64_t scalar_size, int threads) {
  return scalar_size == static_cast<int64_t>(sizeof(float))
             ? Plan::Of<float>(config, rows, time_steps, threads).Bytes(scalar_size)
             : Plan::Of<double>(config, rows, time_steps, threads).Bytes(scalar_size);
}

}  // namespace gradwatch::nn
