// Forecast over columns of a table.
#include <cmath>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/data/field_check.h"
#include "server/data/series_source.h"

namespace gradwatch::data {
namespace {

// Mean and deviation of the first `training` rows, running so that large values do not overflow.
TargetScale ScaleOf(const TableColumn& column, int64_t training) {
  double mean = 0.0, variance = 0.0;
  for (int64_t i = 0; i < training; ++i) {
    const double count = static_cast<double>(i + 1);
    const double difference = column.values[static_cast<size_t>(i)] - mean;
    mean += difference / count;
    variance += (difference * (column.values[static_cast<size_t>(i)] - mean) - variance) / count;
  }
  return {mean, std::sqrt(variance)};
}

// A column as batches show it.
struct ScaledColumn {
  const double* values;
  TargetScale scale;

  double at(int64_t row) const { return (values[row] - scale.mean) / scale.deviation; }
};

class TableSeries final : public Series {
 public:
  TableSeries(const v1::ForecastTask& task, const SeriesTask& read,
              std::shared_ptr<const DatasetContent> content)
      : content_(std::move(content)), horizon_(read.settings.horizon) {
    const auto column = [&](const std::string& name) {
      const TableColumn& found = *content_->FindColumn(name);
      TargetScale scale = ScaleOf(found, read.settings.training);
      // An input that never changes in the training part says nothing: it becomes 0.
      if (scale.deviation == 0.0) scale.deviation = 1.0;
      return ScaledColumn{found.values.data(), scale};
    };
    for (const std::string& name : InputColumnsOf(task)) inputs_.push_back(column(name));
    for (const std::string& name : task.target_columns()) {
      targets_.push_back(column(name));
      scales_.push_back(targets_.back().scale);
    }
  }

  static const google::protobuf::RepeatedPtrField<std::string>& InputColumnsOf(
      const v1::ForecastTask& task) {
    return task.input_columns().empty() ? task.target_columns() : task.input_columns();
  }

  void Write(int64_t start, int64_t row, Batch* batch) const override {
    for (int64_t t = 0; t < batch->time_steps; ++t) {
      const size_t at = static_cast<size_t>(t * batch->rows + row);
      double* input = &batch->inputs[at * inputs_.size()];
      for (const ScaledColumn& column : inputs_) *input++ = column.at(start + t);
      double* target = &batch->target_values[at * targets_.size()];
      for (const ScaledColumn& column : targets_) *target++ = column.at(start + t + horizon_);
    }
  }

  absl::Span<const TargetScale> target_scales() const override { return scales_; }

 private:
  const std::shared_ptr<const DatasetContent> content_;
  const int64_t horizon_;
  std::vector<ScaledColumn> inputs_, targets_;
  std::vector<TargetScale> scales_;
};

// Checks names in `field`: each a numeric column, none twice.
absl::Status CheckColumns(absl::string_view field,
                          const google::protobuf::RepeatedPtrField<std::string>& names,
                          const DatasetContent& content) {
  absl::flat_hash_set<std::string> seen;
  for (int i = 0; i < names.size(); ++i) {
    const std::string& name = names.Get(i);
    const std::string place = absl::StrCat(field, "[", i, "]: '", name, "' ");
    const TableColumn* column = content.FindColumn(name);
    if (column == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, "is no column of the table, which has ", ColumnList(content)));
    }
    if (!column->numeric()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, "is not numeric (", column->problem, ")"));
    }
    if (!seen.insert(name).second) return absl::InvalidArgumentError(place + "is named twice");
  }
  return absl::OkStatus();
}

absl::Status CheckScales(const v1::ForecastTask& task, int64_t training,
                         const DatasetContent& content) {
  const auto check = [&](absl::string_view field, const std::string& name, bool is_target) {
    const double deviation = ScaleOf(*content.FindColumn(name), training).deviation;
    const char* problem = nullptr;
    if (!std::isfinite(deviation)) problem = "has values too large to scale";
    if (is_target && deviation == 0.0) problem = "has one value only in the training part";
    return problem == nullptr
               ? absl::OkStatus()
               : absl::InvalidArgumentError(absl::StrCat(field, ": column '", name, "' ", problem));
  };
  for (const std::string& name : task.input_columns()) {
    RETURN_IF_ERROR(check("task.forecast.input_columns", name, false));
  }
  for (const std::string& name : task.target_columns()) {
    RETURN_IF_ERROR(check("task.forecast.target_columns", name, true));
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const v1::ForecastTask& task) {
  RETURN_IF_ERROR(CheckRange("task.forecast.time_steps", task.time_steps(), 1, 10000));
  RETURN_IF_ERROR(CheckRange("task.forecast.horizon", task.horizon(), 1, 10000));
  RETURN_IF_ERROR(CheckRange("task.forecast.held_out_share", task.held_out_share(), 0.01, 0.9));
  return CheckRange("task.forecast.warmup_time_steps", task.warmup_time_steps(), 0,
                    task.time_steps() - 1);
}

}  // namespace

absl::StatusOr<SeriesTask> ReadForecastTask(const v1::Job& job, const DatasetContent* content) {
  const v1::ForecastTask& task = job.task().forecast();
  RETURN_IF_ERROR(
      CheckDataset("task.forecast.dataset", task.dataset(), v1::Dataset::KIND_TABLE, content));
  RETURN_IF_ERROR(CheckNumbers(task));
  if (task.target_columns().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("task.forecast.target_columns: names no column, must name at least one of ",
                     ColumnList(*content)));
  }
  RETURN_IF_ERROR(CheckColumns("task.forecast.target_columns", task.target_columns(), *content));
  RETURN_IF_ERROR(CheckColumns("task.forecast.input_columns", task.input_columns(), *content));

  SeriesTask read;
  read.settings.positions = content->rows;
  read.settings.training = TrainingPart(content->rows, task.held_out_share());
  read.settings.horizon = task.horizon();
  read.settings.time_steps = task.time_steps();
  read.settings.warmup = task.warmup_time_steps();
  read.settings.batch_size = job.training().batch_size();
  read.settings.examples_max = job.evaluation().examples();
  read.settings.carry_state = task.carry_state();
  RETURN_IF_ERROR(CheckRoom(read.settings, "task.forecast.dataset", "rows"));
  RETURN_IF_ERROR(CheckScales(task, read.settings.training, *content));

  read.shape.time_steps = task.time_steps();
  read.shape.features = TableSeries::InputColumnsOf(task).size();
  read.shape.outputs = task.target_columns_size();
  read.shape.carries_state = task.carry_state();
  read.shape.target_names.assign(task.target_columns().begin(), task.target_columns().end());
  const auto& inputs = TableSeries::InputColumnsOf(task);
  read.shape.feature_names.assign(inputs.begin(), inputs.end());
  return read;
}

std::unique_ptr<Series> NewTableSeries(const v1::ForecastTask& task, const SeriesTask& read,
                                       std::shared_ptr<const DatasetContent> content) {
  return std::make_unique<TableSeries>(task, read, std::move(content));
}

}  // namespace gradwatch::data
