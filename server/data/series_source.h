#ifndef GRADWATCH_SERVER_DATA_SERIES_SOURCE_H_
#define GRADWATCH_SERVER_DATA_SERIES_SOURCE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradwatch/v1/job.pb.h"
#include "server/data/series_plan.h"
#include "server/data/source.h"

namespace gradwatch::data {

// What stands at the positions of a series.
class Series {
 public:
  virtual ~Series() = default;

  // Writes inputs and targets of a full window into `row`.
  virtual void Write(int64_t start, int64_t row, Batch* batch) const = 0;

  // As Source::target_scales.
  virtual absl::Span<const TargetScale> target_scales() const = 0;
};

// What a task over a data set comes to.
struct SeriesTask {
  TaskShape shape;  // Without rows_max.
  SeriesSettings settings;
};

// The tasks over data sets, with INVALID_ARGUMENT as ShapeOf. The series keeps the content.
absl::StatusOr<SeriesTask> ReadLanguageTask(const v1::Job& job, const DatasetContent* content);
std::unique_ptr<Series> NewTextSeries(std::shared_ptr<const DatasetContent> content);

absl::StatusOr<SeriesTask> ReadForecastTask(const v1::Job& job, const DatasetContent* content);
std::unique_ptr<Series> NewTableSeries(const v1::ForecastTask& task, const SeriesTask& read,
                                       std::shared_ptr<const DatasetContent> content);

// Windows of a series: streams that carry the state, or places drawn from the random stream
// (seed, window number).
class SeriesSource final : public Source {
 public:
  SeriesSource(const TaskShape& shape, const SeriesSettings& settings,
               std::unique_ptr<Series> series, uint64_t seed)
      : shape_(shape), plan_(settings), series_(std::move(series)), seed_(seed) {}

  const TaskShape& shape() const override { return shape_; }
  void NextBatch(Batch* batch) override;
  void Seek(int64_t number) override { next_batch_ = number; }
  int64_t evaluation_batches() const override { return plan_.evaluation_batches(); }
  void EvaluationBatch(int64_t i, Batch* batch) override;
  absl::Span<const TargetScale> target_scales() const override { return series_->target_scales(); }
  std::string SaveState() const override;
  absl::Status LoadState(absl::string_view state) override;

 private:
  Window RandomWindow(int64_t number) const;
  void WriteRow(const Window& window, int64_t row, Batch* batch) const;

  const TaskShape shape_;
  const SeriesPlan plan_;
  const std::unique_ptr<Series> series_;
  const uint64_t seed_;
  int64_t next_batch_ = 0;
};

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_SERIES_SOURCE_H_
