#ifndef GRADWATCH_SERVER_DATA_BATCH_BUFFERS_H_
#define GRADWATCH_SERVER_DATA_BATCH_BUFFERS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "server/base/batch.h"
#include "server/data/source.h"

namespace gradwatch::data {

// Gives the batch its sizes and zeroes its buffers, for `rows` rows of at most `time_steps`. Room
// is made for the largest batch of the shape at once, so that later calls allocate nothing.
void ResizeBatch(const TaskShape& shape, int64_t time_steps, int64_t rows, Batch* batch);

// Makes `to` a batch of some of the rows of `from`: `rows`, rising, at least one. `shape` is that
// of `from`, but for a rows_max of its own.
void TakeRows(const TaskShape& shape, const Batch& from, absl::Span<const int64_t> rows, Batch* to);

// Bytes of the buffers of the largest batch.
int64_t BatchBytes(const TaskShape& shape);

// A source's place in the training data, as SaveState writes it.
std::string PositionToState(int64_t position);
absl::StatusOr<int64_t> PositionFromState(absl::string_view state);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_BATCH_BUFFERS_H_
