#include "tests/bench/shapes.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace gradwatch::bench {

const std::vector<Shape>& Presets() {
  static const auto& presets = *new std::vector<Shape>{
      {"s128", 32, 64, 64, 128, 0},    {"m256", 64, 50, 128, 256, 0},
      {"l512", 32, 128, 128, 512, 0},  {"xl1024", 16, 35, 256, 1024, 0},
      {"charlm", 64, 64, 64, 256, 65}, {"tiny", 1, 100, 2, 32, 0},
      {"adding", 20, 400, 2, 128, 0},
  };
  return presets;
}

absl::StatusOr<std::vector<Shape>> PresetsNamed(absl::string_view names) {
  if (names == "all") return Presets();
  std::vector<Shape> found;
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    const auto preset = std::find_if(Presets().begin(), Presets().end(),
                                     [&](const Shape& shape) { return shape.name == name; });
    if (preset == Presets().end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--preset: '", name, "' is unknown; known are ",
          absl::StrJoin(Presets(), ", ",
                        [](std::string* out, const Shape& shape) { out->append(shape.name); }),
          " and all"));
    }
    found.push_back(*preset);
  }
  return found;
}

absl::StatusOr<v1::Model::Cell> CellNamed(absl::string_view name) {
  if (name == "rnn") return v1::Model::CELL_RNN_TANH;
  if (name == "gru") return v1::Model::CELL_GRU;
  if (name == "lstm") return v1::Model::CELL_LSTM;
  return absl::InvalidArgumentError(
      absl::StrCat("--cell: '", name, "' is unknown; known are rnn, gru and lstm"));
}

int64_t GatesOf(v1::Model::Cell cell) {
  switch (cell) {
    case v1::Model::CELL_LSTM:
      return 4;
    case v1::Model::CELL_GRU:
      return 3;
    default:
      return 1;
  }
}

// Three products each (forward, gradient of the input, gradient of the weights); features need no
// gradient.
StepFlop StepFlopOf(v1::Model::Cell cell, int64_t layers, const Shape& shape) {
  const double rows = static_cast<double>(shape.batch * shape.time);
  const double hidden = static_cast<double>(shape.hidden);
  const double gates = static_cast<double>(GatesOf(cell) * shape.hidden);
  const double input = static_cast<double>(shape.input);
  const double vocab = static_cast<double>(shape.vocab);
  const double upper = static_cast<double>(layers - 1);

  const double head =
      3 * 2 * hidden * (shape.vocab > 0 ? rows * vocab : static_cast<double>(shape.batch));
  const double recurrent = static_cast<double>(layers) * 3 * 2 * rows * hidden * gates;
  const double between = upper * 3 * 2 * rows * hidden * gates;
  const double rest = head + recurrent + between;
  StepFlop flop;
  flop.needed = rest + (shape.vocab > 0 ? 3 : 2) * 2 * rows * input * gates;
  flop.done = shape.vocab > 0 ? rest + 3 * 2 * std::min(rows, vocab) * input * gates : flop.needed;
  return flop;
}

}  // namespace gradwatch::bench
