#ifndef GRADWATCH_SERVER_NN_BATCH_LAYOUT_H_
#define GRADWATCH_SERVER_NN_BATCH_LAYOUT_H_

#include <cstdint>

#include "absl/types/span.h"
#include "server/base/batch.h"
#include "server/nn/buffer.h"

namespace gradwatch::nn {

// Where a batch's valid positions lie in the network's buffers.
//
// Valid positions are stored without gaps: first those of time step 0, then of 1, and so on, each
// time step with its valid rows in order. Buffers of states have `rows` more in front, the states
// before time step 0. Allocates only in the constructor.
class BatchLayout {
 public:
  // `vocabulary` is 0 for batches of features.
  BatchLayout(int64_t rows_max, int64_t time_steps_max, int64_t vocabulary);

  // Requires a batch as base/batch.h describes it, within the maxima.
  void Read(const Batch& batch);

  int64_t rows() const { return rows_; }
  int64_t time_steps() const { return time_steps_; }
  int64_t positions() const { return first_[time_steps_]; }
  int64_t first(int64_t t) const { return first_[t]; }
  // Rows valid at time step t, which may be one past the last.
  int64_t valid(int64_t t) const { return t < time_steps_ ? first_[t + 1] - first_[t] : 0; }
  // Row of a buffer of states that holds the state before time step t of row 0.
  int64_t before(int64_t t) const { return t == 0 ? 0 : rows_ + first_[t - 1]; }

  // Positions [position, position + count) have their previous states in rows [before, before +
  // count) of a buffer of states. One run when all rows are equally long.
  struct Run {
    int64_t position;
    int64_t before;
    int64_t count;
  };
  absl::Span<const Run> runs() const { return {runs_.data(), static_cast<size_t>(run_count_)}; }

  // The different tokens of the batch, in order of first appearance.
  absl::Span<const int32_t> tokens() const {
    return {tokens_.data(), static_cast<size_t>(token_count_)};
  }
  // Which of them stands at a position, and at those after it.
  const int32_t* token_slots(int64_t position) const { return slot_of_position_.data() + position; }

 private:
  void ReadLengths(const Batch& batch);
  void ReadTokens(const Batch& batch);

  const int64_t rows_max_;
  const int64_t time_steps_max_;
  const int64_t vocabulary_;
  int64_t rows_ = 0;
  int64_t time_steps_ = 0;
  int64_t run_count_ = 0;
  int64_t token_count_ = 0;
  Buffer<int64_t> first_;             // [T + 1]
  Buffer<Run> runs_;                  // At most one for each time step.
  Buffer<int32_t> tokens_;            // [slots]
  Buffer<int32_t> slot_of_token_;     // [V], -1 for tokens that are not there.
  Buffer<int32_t> slot_of_position_;  // [N]
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_BATCH_LAYOUT_H_
