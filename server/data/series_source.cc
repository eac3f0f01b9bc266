#include "server/data/series_source.h"

#include <algorithm>

#include "server/base/philox.h"
#include "server/base/status.h"
#include "server/data/batch_buffers.h"

namespace gradwatch::data {

Window SeriesSource::RandomWindow(int64_t number) const {
  RandomStream random(seed_, StreamOf("data/training"), static_cast<uint64_t>(number));
  return {random.NextBelow(static_cast<uint32_t>(plan_.random_starts())), 0};
}

void SeriesSource::WriteRow(const Window& window, int64_t row, Batch* batch) const {
  const SeriesSettings& settings = plan_.settings();
  series_->Write(window.start, row, batch);
  batch->origins[static_cast<size_t>(row)] = window.start;
  for (int64_t t = settings.warmup; t < settings.time_steps; ++t) {
    if (window.start + t + settings.horizon < window.counted_from) continue;
    batch->weights[static_cast<size_t>(t * batch->rows + row)] = 1.0;
  }
}

void SeriesSource::NextBatch(Batch* batch) {
  const int64_t rows = shape_.rows_max;
  ResizeBatch(shape_, shape_.time_steps, rows, batch);
  const bool carry = shape_.carries_state;
  const int64_t in_pass = carry ? next_batch_ % plan_.batches_per_pass() : 0;
  for (int64_t row = 0; row < rows; ++row) {
    WriteRow(carry ? plan_.TrainingWindow(in_pass, row) : RandomWindow(next_batch_ * rows + row),
             row, batch);
  }
  if (in_pass == 0) std::fill(batch->restart.begin(), batch->restart.end(), uint8_t{1});
  ++next_batch_;
}

void SeriesSource::EvaluationBatch(int64_t i, Batch* batch) {
  const int64_t rows = plan_.evaluation_rows(i);
  ResizeBatch(shape_, shape_.time_steps, rows, batch);
  for (int64_t row = 0; row < rows; ++row) {
    WriteRow(plan_.EvaluationWindow(i, row), row, batch);
  }
  if (i == 0 || !shape_.carries_state) {
    std::fill(batch->restart.begin(), batch->restart.end(), uint8_t{1});
  }
}

std::string SeriesSource::SaveState() const { return PositionToState(next_batch_); }

absl::Status SeriesSource::LoadState(absl::string_view state) {
  ASSIGN_OR_RETURN(next_batch_, PositionFromState(state));
  return absl::OkStatus();
}

}  // namespace gradwatch::data
