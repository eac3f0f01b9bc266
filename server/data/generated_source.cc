#include "server/data/generated_source.h"

#include <algorithm>
#include <utility>

#include "server/base/status.h"
#include "server/data/batch_buffers.h"

namespace gradwatch::data {

GeneratedSource::GeneratedSource(const TaskShape& shape, std::unique_ptr<ExampleMaker> maker,
                                 uint64_t seed, int64_t evaluation_examples)
    : shape_(shape),
      maker_(std::move(maker)),
      seed_(seed),
      evaluation_examples_(evaluation_examples) {
  order_.reserve(static_cast<size_t>(shape_.rows_max));
}

RandomStream GeneratedSource::StreamFor(Purpose purpose, int64_t example) const {
  const uint32_t stream =
      StreamOf(purpose == Purpose::kTraining ? "data/training" : "data/evaluation");
  return RandomStream(seed_, stream, static_cast<uint64_t>(example));
}

void GeneratedSource::MakeBatch(Purpose purpose, int64_t first_example, int64_t rows,
                                Batch* batch) {
  order_.clear();
  for (int64_t example = first_example; example < first_example + rows; ++example) {
    RandomStream random = StreamFor(purpose, example);
    order_.push_back({maker_->DrawLength(&random), example});
  }
  std::sort(order_.begin(), order_.end(), [](const Place& a, const Place& b) {
    return a.length != b.length ? a.length > b.length : a.example < b.example;
  });

  ResizeBatch(shape_, order_.front().length, rows, batch);
  std::fill(batch->restart.begin(), batch->restart.end(), uint8_t{1});
  for (int64_t row = 0; row < rows; ++row) {
    const Place& place = order_[static_cast<size_t>(row)];
    batch->lengths[static_cast<size_t>(row)] = static_cast<int32_t>(place.length);
    batch->origins[static_cast<size_t>(row)] = place.example;
    RandomStream random = StreamFor(purpose, place.example);
    maker_->DrawLength(&random);
    maker_->Write(purpose, &random, row, batch);
  }
}

void GeneratedSource::NextBatch(Batch* batch) {
  MakeBatch(Purpose::kTraining, next_batch_ * shape_.rows_max, shape_.rows_max, batch);
  ++next_batch_;
}

int64_t GeneratedSource::evaluation_batches() const {
  return (evaluation_examples_ + shape_.rows_max - 1) / shape_.rows_max;
}

void GeneratedSource::EvaluationBatch(int64_t i, Batch* batch) {
  const int64_t first = i * shape_.rows_max;
  MakeBatch(Purpose::kEvaluation, first, std::min(shape_.rows_max, evaluation_examples_ - first),
            batch);
}

std::string GeneratedSource::SaveState() const { return PositionToState(next_batch_); }

absl::Status GeneratedSource::LoadState(absl::string_view state) {
  ASSIGN_OR_RETURN(next_batch_, PositionFromState(state));
  return absl::OkStatus();
}

}  // namespace gradwatch::data
