#include "server/data/batch_buffers.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gradwatch::data {
namespace {

template <typename T>
void Refill(int64_t size, int64_t size_max, T value, std::vector<T>* buffer) {
  buffer->reserve(static_cast<size_t>(size_max));
  buffer->assign(static_cast<size_t>(size), value);
}

// From [time steps, rows of a batch, width] to [time steps, some of those rows, width]; `to` has
// its size.
template <typename T>
void CopyRows(const std::vector<T>& from, int64_t from_rows, absl::Span<const int64_t> rows,
              int64_t width, std::vector<T>* to) {
  auto at = to->begin();
  for (int64_t first = 0; at != to->end(); first += from_rows) {
    for (const int64_t row : rows) {
      at = std::copy_n(from.begin() + (first + row) * width, width, at);
    }
  }
}

constexpr absl::string_view kStatePrefix = "batch ";
// More batches than any job has steps, and times the largest batch still an int64.
constexpr int64_t kPositionMax = int64_t{1} << 46;

}  // namespace

void ResizeBatch(const TaskShape& shape, int64_t time_steps, int64_t rows, Batch* batch) {
  const bool tokens = shape.vocabulary > 0;
  batch->time_steps = time_steps;
  batch->rows = rows;
  batch->features = shape.features;
  batch->outputs = shape.classification ? 0 : shape.outputs;

  const int64_t cells = time_steps * rows;
  const int64_t cells_max = shape.time_steps * shape.rows_max;
  const int64_t targets = shape.loss_at_last ? rows : cells;
  const int64_t targets_max = shape.loss_at_last ? shape.rows_max : cells_max;
  Refill(cells * shape.features, cells_max * shape.features, 0.0, &batch->inputs);
  Refill(tokens ? cells : 0, tokens ? cells_max : 0, 0, &batch->tokens);
  Refill(targets * batch->outputs, targets_max * batch->outputs, 0.0, &batch->target_values);
  const bool classes = shape.classification;
  Refill(classes ? targets : 0, classes ? targets_max : 0, 0, &batch->target_classes);
  Refill(targets, targets_max, 0.0, &batch->weights);
  Refill(rows, shape.rows_max, static_cast<int32_t>(time_steps), &batch->lengths);
  Refill(rows, shape.rows_max, uint8_t{0}, &batch->restart);
  Refill(rows, shape.rows_max, int64_t{0}, &batch->origins);
}

void TakeRows(const TaskShape& shape, const Batch& from, absl::Span<const int64_t> rows,
              Batch* to) {
  const int64_t longest = from.lengths[static_cast<size_t>(rows.front())];
  ResizeBatch(shape, longest, static_cast<int64_t>(rows.size()), to);
  CopyRows(from.inputs, from.rows, rows, from.features, &to->inputs);
  CopyRows(from.tokens, from.rows, rows, 1, &to->tokens);
  CopyRows(from.target_values, from.rows, rows, from.outputs, &to->target_values);
  CopyRows(from.target_classes, from.rows, rows, 1, &to->target_classes);
  CopyRows(from.weights, from.rows, rows, 1, &to->weights);
  CopyRows(from.lengths, from.rows, rows, 1, &to->lengths);
  CopyRows(from.restart, from.rows, rows, 1, &to->restart);
  CopyRows(from.origins, from.rows, rows, 1, &to->origins);
}

int64_t BatchBytes(const TaskShape& shape) {
  const int64_t cells = shape.time_steps * shape.rows_max;
  const int64_t targets = shape.loss_at_last ? shape.rows_max : cells;
  const int64_t input_bytes = shape.vocabulary > 0 ? 4 : 8 * shape.features;
  const int64_t target_bytes = shape.classification ? 4 : 8 * shape.outputs;
  return cells * input_bytes + targets * (target_bytes + 8) + shape.rows_max * 13;
}

std::string PositionToState(int64_t position) { return absl::StrCat(kStatePrefix, position); }

absl::StatusOr<int64_t> PositionFromState(absl::string_view state) {
  absl::string_view rest = state;
  int64_t position = -1;
  if (absl::ConsumePrefix(&rest, kStatePrefix) && absl::SimpleAtoi(rest, &position) &&
      position >= 0 && position <= kPositionMax) {
    return position;
  }
  return absl::InvalidArgumentError(absl::StrCat("'", absl::CHexEscape(state.substr(0, 64)),
                                                 "' is no position of a data source"));
}

}  // namespace gradwatch::data
