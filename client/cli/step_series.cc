#include "client/cli/step_series.h"

#include <algorithm>
#include <cmath>

#include "client/cli/text.h"

namespace gradwatch::cli {

StepSeries::StepSeries(int64_t first, int64_t last)
    : first_(first), steps_(std::max<int64_t>(last - first + 1, 1)) {}

void StepSeries::Add(int64_t step, double value) {
  if (!std::isfinite(value)) return;
  const int64_t columns = std::min<int64_t>(steps_, kColumnsMax);
  if (columns_.empty()) columns_.resize(static_cast<size_t>(columns));
  const int64_t offset = std::clamp<int64_t>(step - first_, 0, steps_ - 1);
  Column& column = columns_[static_cast<size_t>(offset * columns / steps_)];
  column.low = column.count == 0 ? value : std::min(column.low, value);
  column.high = column.count == 0 ? value : std::max(column.high, value);
  ++column.count;
  column.steps += static_cast<double>(step);
  column.sum += value;
}

std::vector<CurvePoint> StepSeries::Points() const {
  std::vector<CurvePoint> points;
  for (const Column& column : columns_) {
    if (column.count == 0) continue;
    const auto count = static_cast<double>(column.count);
    points.push_back({column.steps / count, column.low, column.sum / count, column.high});
  }
  return points;
}

StepSeries::End StepSeries::AtEnd() const {
  std::vector<Column> measured;
  for (const Column& column : columns_) {
    if (column.count > 0) measured.push_back(column);
  }
  if (measured.empty()) return {kNaN, 0};
  double sum = 0;
  int64_t count = 0;
  for (size_t i = measured.size() - std::max<size_t>(measured.size() / 10, 1); i < measured.size();
       ++i) {
    sum += measured[i].sum;
    count += measured[i].count;
  }
  return {sum / static_cast<double>(count), count};
}

}  // namespace gradwatch::cli
