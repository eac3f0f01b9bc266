#include "server/nn/network_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/squares.h"
#include "server/nn/buffer.h"
#include "server/nn/plan.h"

namespace gradwatch::nn {
namespace {

constexpr int64_t kVector = -1;  // In place of a number of columns.

// Calls emit(name, layer, role, rows, columns) for each parameter in order; `layer` is -1 where the
// name is whole without it.
template <typename Emit>
void ForParameters(const NetworkConfig& config, Emit emit) {
  if (config.input == Input::kEmbedding) {
    emit("embedding.weight", -1, Role::kEmbedding, config.vocabulary, config.embedding_width);
  }
  const int64_t gate_rows = SaturatingMultiply(GatesOf(config.cell), config.hidden);
  for (int layer = 0; layer < config.layers; ++layer) {
    const int64_t width = layer == 0 ? InputWidthOf(config) : config.hidden;
    emit("rnn.weight_ih_l", layer, Role::kInputWeight, gate_rows, width);
    emit("rnn.weight_hh_l", layer, Role::kRecurrentWeight, gate_rows, config.hidden);
    emit("rnn.bias_ih_l", layer, Role::kInputBias, gate_rows, kVector);
    emit("rnn.bias_hh_l", layer, Role::kRecurrentBias, gate_rows, kVector);
  }
  emit("readout.weight", -1, Role::kReadoutWeight, config.outputs, config.hidden);
  emit("readout.bias", -1, Role::kReadoutBias, config.outputs, kVector);
}

int64_t SizeOf(int64_t rows, int64_t columns) {
  return columns == kVector ? rows : SaturatingMultiply(rows, columns);
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
  int64_t offset = 0;
  ForParameters(config, [&](const char* name, int layer, Role role, int64_t rows, int64_t columns) {
    std::vector<int64_t> shape = {rows};
    if (columns != kVector) shape.push_back(columns);
    const int64_t size = SizeOf(rows, columns);
    parameters.push_back({layer < 0 ? name : absl::StrCat(name, layer), std::move(shape), offset,
                          size, layer, role});
    offset = SaturatingAdd(offset, size);
  });
  return parameters;
}

int64_t ParameterCountOf(const NetworkConfig& config) {
  int64_t count = 0;
  ForParameters(config, [&](const char*, int, Role, int64_t rows, int64_t columns) {
    count = SaturatingAdd(count, SizeOf(rows, columns));
  });
  return count;
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
