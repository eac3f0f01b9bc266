#include "server/nn/batch_layout.h"

#include <algorithm>

#include "server/base/check.h"

namespace gradwatch::nn {

BatchLayout::BatchLayout(int64_t rows_max, int64_t time_steps_max, int64_t vocabulary)
    : rows_max_(rows_max),
      time_steps_max_(time_steps_max),
      vocabulary_(vocabulary),
      first_(time_steps_max + 1),
      runs_(time_steps_max + 1),
      tokens_(std::min(vocabulary, rows_max * time_steps_max)),
      slot_of_token_(vocabulary),
      slot_of_position_(vocabulary > 0 ? rows_max * time_steps_max : 0) {
  std::fill_n(slot_of_token_.data(), vocabulary, -1);
}

void BatchLayout::Read(const Batch& batch) {
  GRADWATCH_CHECK(batch.rows >= 1 && batch.rows <= rows_max_);
  GRADWATCH_CHECK(batch.time_steps >= 1 && batch.time_steps <= time_steps_max_);
  GRADWATCH_CHECK(static_cast<int64_t>(batch.lengths.size()) == batch.rows);
  GRADWATCH_CHECK(static_cast<int64_t>(batch.restart.size()) == batch.rows);
  GRADWATCH_CHECK(batch.lengths.front() == batch.time_steps && batch.lengths.back() >= 1);
  rows_ = batch.rows;
  time_steps_ = batch.time_steps;
  ReadLengths(batch);
  if (vocabulary_ > 0) ReadTokens(batch);
}

void BatchLayout::ReadLengths(const Batch& batch) {
  first_[0] = 0;
  run_count_ = 0;
  int64_t valid_rows = rows_;
  for (int64_t t = 0; t < time_steps_; ++t) {
    while (batch.lengths[static_cast<size_t>(valid_rows - 1)] <= t) --valid_rows;
    first_[t + 1] = first_[t] + valid_rows;
    Run* last = run_count_ == 0 ? nullptr : &runs_[run_count_ - 1];
    if (last != nullptr && last->before + last->count == before(t)) {
      last->count += valid_rows;
    } else {
      runs_[run_count_++] = {first_[t], before(t), valid_rows};
    }
  }
}

void BatchLayout::ReadTokens(const Batch& batch) {
  for (const int32_t token : tokens()) slot_of_token_[token] = -1;
  token_count_ = 0;
  for (int64_t t = 0; t < time_steps_; ++t) {
    for (int64_t b = 0; b < valid(t); ++b) {
      const int32_t token = batch.tokens[static_cast<size_t>(t * rows_ + b)];
      GRADWATCH_CHECK(token >= 0 && token < vocabulary_);
      int32_t& slot = slot_of_token_[token];
      if (slot < 0) {
        slot = static_cast<int32_t>(token_count_);
        tokens_[token_count_++] = token;
      }
      slot_of_position_[first_[t] + b] = slot;
    }
  }
}

}  // namespace gradwatch::nn
