#ifndef GRADWATCH_TESTS_BENCH_SHAPES_H_
#define GRADWATCH_TESTS_BENCH_SHAPES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::bench {

// The sizes of one benchmark.
struct Shape {
  std::string name;
  int64_t batch = 0;
  int64_t time = 0;
  int64_t input = 0;  // Width of the features, or of the embedding.
  int64_t hidden = 0;
  int64_t vocab = 0;  // 0: features and a regression at the last step; else tokens at every step.
};

// The named shapes, the same as in pytorch_step.py.
const std::vector<Shape>& Presets();

// The presets of a comma list, or all of them for "all". INVALID_ARGUMENT names unknown ones.
absl::StatusOr<std::vector<Shape>> PresetsNamed(absl::string_view names);

// rnn, gru, lstm. INVALID_ARGUMENT for another name.
absl::StatusOr<v1::Model::Cell> CellNamed(absl::string_view name);

// Blocks of hidden width in the cell's weights: 1, 3 or 4.
int64_t GatesOf(v1::Model::Cell cell);

// Floating-point operations of a step's matrix products.
struct StepFlop {
  // As the algorithm needs them and pytorch_step.py counts them.
  double needed = 0.0;
  // As the engine does them: the first layer's product once per token of the vocabulary.
  double done = 0.0;
};
StepFlop StepFlopOf(v1::Model::Cell cell, int64_t layers, const Shape& shape);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_SHAPES_H_
