#include "server/data/source.h"

#include <utility>

#include "server/base/status.h"
#include "server/data/batch_buffers.h"
#include "server/data/example_maker.h"
#include "server/data/faulty_source.h"
#include "server/data/field_check.h"
#include "server/data/generated_source.h"
#include "server/data/mackey_glass.h"
#include "server/data/series_source.h"

namespace gradwatch::data {
namespace {

absl::Status NoKind() {
  return absl::InvalidArgumentError(
      "task: is missing, must be one of adding, temporal_order, copy_memory, language, forecast, "
      "mackey_glass");
}

absl::StatusOr<TaskShape> TaskShapeOf(const v1::Job& job, const DatasetContent* content) {
  const v1::Task& task = job.task();
  switch (task.kind_case()) {
    case v1::Task::kAdding:
      return AddingShape(task.adding());
    case v1::Task::kTemporalOrder:
      return TemporalOrderShape(task.temporal_order());
    case v1::Task::kCopyMemory:
      return CopyMemoryShape(task.copy_memory());
    case v1::Task::kMackeyGlass:
      return MackeyGlassShape(task.mackey_glass());
    case v1::Task::kLanguage: {
      ASSIGN_OR_RETURN(SeriesTask read, ReadLanguageTask(job, content));
      return read.shape;
    }
    case v1::Task::kForecast: {
      ASSIGN_OR_RETURN(SeriesTask read, ReadForecastTask(job, content));
      return read.shape;
    }
    case v1::Task::KIND_NOT_SET:
      break;
  }
  return NoKind();
}

// Null for the tasks over data sets.
std::unique_ptr<ExampleMaker> NewMaker(const v1::Task& task) {
  switch (task.kind_case()) {
    case v1::Task::kAdding:
      return NewAddingMaker(task.adding());
    case v1::Task::kTemporalOrder:
      return NewTemporalOrderMaker(task.temporal_order());
    case v1::Task::kCopyMemory:
      return NewCopyMemoryMaker(task.copy_memory());
    case v1::Task::kMackeyGlass:
      return NewMackeyGlassMaker(task.mackey_glass());
    default:
      return nullptr;
  }
}

}  // namespace

absl::string_view DatasetNameOf(const v1::Task& task) {
  if (task.has_language()) return task.language().dataset();
  if (task.has_forecast()) return task.forecast().dataset();
  return absl::string_view();
}

absl::StatusOr<TaskShape> ShapeOf(const v1::Job& job, const DatasetContent* content) {
  RETURN_IF_ERROR(CheckRange("training.batch_size", job.training().batch_size(), 1, 65536));
  RETURN_IF_ERROR(CheckRange("evaluation.examples", job.evaluation().examples(), 1, 1000000));
  ASSIGN_OR_RETURN(TaskShape shape, TaskShapeOf(job, content));
  shape.rows_max = job.training().batch_size();
  return shape;
}

int64_t SourceMemoryBytes(const v1::Job& job, const TaskShape& shape) {
  const int64_t series =
      job.task().has_mackey_glass() ? MackeyGlassBytes(job.task().mackey_glass()) : 0;
  return 2 * BatchBytes(shape) + shape.rows_max * GeneratedSource::kBytesPerRow + series;
}

namespace {

absl::StatusOr<std::unique_ptr<Source>> NewSoundSource(
    const v1::Job& job, std::shared_ptr<const DatasetContent> content) {
  ASSIGN_OR_RETURN(TaskShape shape, ShapeOf(job, content.get()));
  if (!job.has_seed()) return absl::InvalidArgumentError("seed: is missing");
  if (job.task().has_language()) {
    ASSIGN_OR_RETURN(const SeriesTask read, ReadLanguageTask(job, content.get()));
    return std::make_unique<SeriesSource>(shape, read.settings, NewTextSeries(std::move(content)),
                                          job.seed());
  }
  if (job.task().has_forecast()) {
    ASSIGN_OR_RETURN(const SeriesTask read, ReadForecastTask(job, content.get()));
    return std::make_unique<SeriesSource>(
        shape, read.settings, NewTableSeries(job.task().forecast(), read, std::move(content)),
        job.seed());
  }
  return std::make_unique<GeneratedSource>(shape, NewMaker(job.task()), job.seed(),
                                           job.evaluation().examples());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Source>> NewSource(const v1::Job& job,
                                                  std::shared_ptr<const DatasetContent> content) {
  ASSIGN_OR_RETURN(std::unique_ptr<Source> source, NewSoundSource(job, std::move(content)));
  if (!job.has_fault_injection()) return source;
  return NewFaultySource(job.fault_injection(), std::move(source));
}

}  // namespace gradwatch::data
