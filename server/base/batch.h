#ifndef GRADWATCH_SERVER_BASE_BATCH_H_
#define GRADWATCH_SERVER_BASE_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gradwatch {

// One mini-batch, time-major: what a data source fills and a network reads.
//
// Row b is valid at time steps t < lengths[b]. Rows are ordered by length, longest first, so the
// rows that are valid at one time step are the first valid_rows(t); what lies beyond a row's
// length is zero and is never read. Inputs are features or tokens, targets are values or classes:
// of each pair exactly one is filled, as the task says.
// A source reuses the buffers from batch to batch: sizes that do not grow allocate nothing.
struct Batch {
  int64_t time_steps = 0;  // T: the longest length.
  int64_t rows = 0;        // B.
  int64_t features = 0;    // F: width of one input vector; 0 with tokens.
  int64_t outputs = 0;     // O: width of one target vector; 0 with classes.

  std::vector<double> inputs;        // [T, B, F]
  std::vector<int32_t> tokens;       // [T, B], each in [0, vocabulary).
  std::vector<double> target_values;   // [T, B, O]; with a loss at the last step [B, O].
  std::vector<int32_t> target_classes;  // [T, B]; with a loss at the last step [B].

  std::vector<int32_t> lengths;  // [B], non-increasing, each in [1, T].
  // Weight of each position in the loss, >= 0: [T, B]; with a loss at the last step [B].
  // The loss is the weighted mean: sum of weight * loss over sum of weights.
  std::vector<double> weights;

  // True where the state of the previous batch does not carry over (a new sequence): such rows
  // start from zero. [B]. Sequence tasks set every row.
  std::vector<uint8_t> restart;

  // Where the rows came from, so that they can be looked at again: the example's number for
  // generated tasks, the first position for streams. [B]
  std::vector<int64_t> origins;

  int64_t valid_rows(int64_t t) const {
    int64_t n = rows;
    while (n > 0 && lengths[static_cast<size_t>(n - 1)] <= t) --n;
    return n;
  }
};

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_BATCH_H_
