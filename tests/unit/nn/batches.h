#ifndef GRADWATCH_TESTS_UNIT_NN_BATCHES_H_
#define GRADWATCH_TESTS_UNIT_NN_BATCHES_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "server/base/batch.h"
#include "server/base/philox.h"
#include "server/nn/network_config.h"

namespace gradwatch::nn {

inline const Cell kAllCells[] = {Cell::kRnnTanh, Cell::kRnnRelu, Cell::kRnnSigmoid, Cell::kGru,
                                 Cell::kLstm};

inline std::string NameOf(Cell cell) {
  switch (cell) {
    case Cell::kRnnTanh:
      return "RnnTanh";
    case Cell::kRnnRelu:
      return "RnnRelu";
    case Cell::kRnnSigmoid:
      return "RnnSigmoid";
    case Cell::kGru:
      return "Gru";
    case Cell::kLstm:
      break;
  }
  return "Lstm";
}

struct BatchShape {
  int64_t rows = 3;
  int64_t time_steps = 7;
  bool ragged = false;
  bool restart = true;
  bool weighted = false;  // Random weights, some of them zero; otherwise ones.
  uint64_t seed = 1;
};

// A batch of random inputs and targets that fits `config`.
inline Batch MakeBatch(const NetworkConfig& config, const BatchShape& shape) {
  RandomStream random(shape.seed, StreamOf("test batch"), 0);
  Batch batch;
  batch.time_steps = shape.time_steps;
  batch.rows = shape.rows;
  for (int64_t b = 0; b < shape.rows; ++b) {
    const auto length = shape.time_steps - (shape.ragged ? b * shape.time_steps / shape.rows : 0);
    batch.lengths.push_back(static_cast<int32_t>(std::max<int64_t>(length, 1)));
    batch.restart.push_back(shape.restart ? 1 : 0);
    batch.origins.push_back(b);
  }
  const int64_t positions = shape.rows * shape.time_steps;
  if (config.input == Input::kFeatures) {
    batch.features = config.features;
    for (int64_t i = 0; i < positions * config.features; ++i) {
      batch.inputs.push_back(random.NextNormal());
    }
  } else {
    for (int64_t i = 0; i < positions; ++i) {
      batch.tokens.push_back(
          static_cast<int32_t>(random.NextBelow(static_cast<uint32_t>(config.vocabulary))));
    }
  }
  const int64_t targets = config.loss_at == LossAt::kLastStep ? shape.rows : positions;
  if (config.loss == Loss::kMeanSquared) batch.outputs = config.outputs;
  for (int64_t i = 0; i < targets; ++i) {
    for (int64_t o = 0; o < batch.outputs; ++o) batch.target_values.push_back(random.NextNormal());
    if (config.loss == Loss::kCrossEntropy) {
      batch.target_classes.push_back(
          static_cast<int32_t>(random.NextBelow(static_cast<uint32_t>(config.outputs))));
    }
    const double weight = i % 4 == 1 ? 0.0 : random.NextUniform();
    batch.weights.push_back(shape.weighted ? weight : 1.0);
  }
  return batch;
}

}  // namespace gradwatch::nn

#endif  // GRADWATCH_TESTS_UNIT_NN_BATCHES_H_
