// Character language model over a text.
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/data/field_check.h"
#include "server/data/series_source.h"

namespace gradwatch::data {
namespace {

class TextSeries final : public Series {
 public:
  explicit TextSeries(std::shared_ptr<const DatasetContent> content)
      : content_(std::move(content)) {}

  void Write(int64_t start, int64_t row, Batch* batch) const override {
    const uint16_t* token = &content_->tokens[static_cast<size_t>(start)];
    for (int64_t t = 0; t < batch->time_steps; ++t) {
      const size_t at = static_cast<size_t>(t * batch->rows + row);
      batch->tokens[at] = token[t];
      batch->target_classes[at] = token[t + 1];
    }
  }

  absl::Span<const TargetScale> target_scales() const override { return {}; }

 private:
  const std::shared_ptr<const DatasetContent> content_;
};

}  // namespace

absl::StatusOr<SeriesTask> ReadLanguageTask(const v1::Job& job, const DatasetContent* content) {
  const v1::LanguageTask& task = job.task().language();
  RETURN_IF_ERROR(
      CheckDataset("task.language.dataset", task.dataset(), v1::Dataset::KIND_TEXT, content));
  RETURN_IF_ERROR(CheckRange("task.language.time_steps", task.time_steps(), 1, 10000));
  RETURN_IF_ERROR(CheckRange("task.language.held_out_share", task.held_out_share(), 0.0, 0.9));
  SeriesTask read;
  read.settings.positions = static_cast<int64_t>(content->tokens.size());
  read.settings.training = TrainingPart(read.settings.positions, task.held_out_share());
  read.settings.time_steps = task.time_steps();
  read.settings.batch_size = job.training().batch_size();
  read.settings.examples_max = job.evaluation().examples();
  RETURN_IF_ERROR(CheckRoom(read.settings, "task.language.dataset", "characters"));

  read.shape.time_steps = task.time_steps();
  read.shape.vocabulary = static_cast<int64_t>(content->vocabulary.size());
  read.shape.outputs = read.shape.vocabulary;
  read.shape.classification = true;
  read.shape.carries_state = true;
  return read;
}

std::unique_ptr<Series> NewTextSeries(std::shared_ptr<const DatasetContent> content) {
  return std::make_unique<TextSeries>(std::move(content));
}

}  // namespace gradwatch::data
