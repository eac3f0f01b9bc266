#include "client/cli/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/chart.h"
#include "client/cli/svg.h"

namespace gradwatch::cli {
namespace {

constexpr int kShades = 64;
constexpr double kDecadesMax = 30;
constexpr double kScaleWidth = 16;

// Cells of one shade as path data: one rectangle for each run down a column.
std::string ShadePath(const HeatGrid& grid, const std::vector<int>& shades, int shade) {
  const int rows = grid.rows();
  std::string path;
  for (int column = 0; column < grid.columns(); ++column) {
    for (int row = 0; row < rows;) {
      int end = row;
      while (end < rows && shades[static_cast<size_t>(column * rows + end)] == shade) ++end;
      if (end > row) {
        // Lag 0 is the lowest row of the picture.
        absl::StrAppend(&path, "M", column, " ", rows - end, "h1v", end - row, "h-1z");
      }
      row = std::max(end, row + 1);
    }
  }
  return path;
}

constexpr int kNotMeasured = -1;
constexpr int kNotFinite = -2;

int ShadeOf(const HeatGrid::Cell& cell, const Scale& colors) {
  if (!cell.measured) return kNotMeasured;
  if (cell.nonfinite) return kNotFinite;
  return std::clamp(static_cast<int>(colors.At(cell.largest)), 0, kShades - 1);
}

void DrawColorScale(Interval span, const ChartFrame& frame, Svg* svg) {
  const double left = frame.right + 22;
  const double height = frame.height / kShades;
  for (int shade = 0; shade < kShades; ++shade) {
    const double top = frame.bottom() - height * (shade + 1);
    svg->Cells({left, top}, kScaleWidth, height + 0.5, "M0 0h1v1h-1z",
               ViridisColor((shade + 0.5) / kShades));
  }
  const Scale axis = Scale::Log(span, frame.bottom(), frame.top);
  for (const Tick& tick : axis.Ticks(7)) {
    const double at = axis.At(tick.value);
    svg->Line({left + kScaleWidth, at}, {left + kScaleWidth + 4, at}, "axis");
    svg->Text({left + kScaleWidth + 8, at + 4}, Anchor::kStart, tick.label, "tick");
  }
  svg->Text({frame.right + 22, 12}, Anchor::kStart, "norm", "axis-title");
}

}  // namespace

HeatGrid::HeatGrid(int64_t first, int64_t last)
    : first_(first),
      steps_(std::max<int64_t>(last - first + 1, 1)),
      columns_(static_cast<int>(std::min<int64_t>(steps_, kColumnsMax))),
      cells_(static_cast<size_t>(columns_) * kRowsMax) {}

HeatGrid::Cell& HeatGrid::Slot(int column, int row) {
  return cells_[static_cast<size_t>(column) * kRowsMax + static_cast<size_t>(row)];
}

const HeatGrid::Cell& HeatGrid::at(int column, int row) const {
  return cells_[static_cast<size_t>(column) * kRowsMax + static_cast<size_t>(row)];
}

int64_t HeatGrid::FirstStep(int column) const {
  // The smallest step that Add counts to the column.
  return first_ + (column * steps_ + columns_ - 1) / columns_;
}

void HeatGrid::HalveRows() {
  for (int column = 0; column < columns_; ++column) {
    for (int row = 0; row < kRowsMax; ++row) {
      Cell joined;
      for (int part = 2 * row; part < std::min(2 * row + 2, kRowsMax); ++part) {
        const Cell& cell = Slot(column, part);
        joined.measured = joined.measured || cell.measured;
        joined.nonfinite = joined.nonfinite || cell.nonfinite;
        joined.largest = std::max(joined.largest, cell.largest);
      }
      Slot(column, row) = joined;
    }
  }
  lags_in_row_ *= 2;
  rows_ = (rows_ + 1) / 2;
}

void HeatGrid::Add(int64_t step, int lag, double norm) {
  if (lag < 0) return;
  while (lag / lags_in_row_ >= kRowsMax) HalveRows();
  const int64_t offset = std::clamp<int64_t>(step - first_, 0, steps_ - 1);
  const int row = lag / lags_in_row_;
  rows_ = std::max(rows_, row + 1);
  Cell& cell = Slot(static_cast<int>(offset * columns_ / steps_), row);
  cell.measured = true;
  if (std::isfinite(norm)) {
    cell.largest = std::max(cell.largest, norm);
  } else {
    cell.nonfinite = true;
  }
}

Interval HeatGrid::positive() const {
  Interval span{0, 0};
  for (const Cell& cell : cells_) {
    if (cell.largest <= 0) continue;
    span.low = span.low == 0 ? cell.largest : std::min(span.low, cell.largest);
    span.high = std::max(span.high, cell.largest);
  }
  return span;
}

std::string ViridisColor(double share) {
  static constexpr std::array<std::array<int, 3>, 10> kStops = {{{68, 1, 84},
                                                                 {72, 40, 120},
                                                                 {62, 73, 137},
                                                                 {49, 104, 142},
                                                                 {38, 130, 142},
                                                                 {31, 158, 137},
                                                                 {53, 183, 121},
                                                                 {110, 206, 88},
                                                                 {181, 222, 43},
                                                                 {253, 231, 37}}};
  const double at = std::clamp(share, 0.0, 1.0) * (kStops.size() - 1);
  const size_t below = std::min(static_cast<size_t>(at), kStops.size() - 2);
  const double part = at - static_cast<double>(below);
  std::array<int, 3> color{};
  for (size_t i = 0; i < color.size(); ++i) {
    color[i] = static_cast<int>(
        std::lround(kStops[below][i] + part * (kStops[below + 1][i] - kStops[below][i])));
  }
  return absl::StrFormat("#%02x%02x%02x", color[0], color[1], color[2]);
}

std::string DrawHeatMap(const HeatGrid& grid, const std::string& label) {
  if (grid.empty()) return "";
  ChartFrame frame;
  frame.top = 24;
  Interval span = grid.positive();
  if (span.high == 0) span = {0.1, 1};
  span.low = std::max(span.low, span.high * std::pow(10.0, -kDecadesMax));
  const Scale colors = Scale::Log(span, 0, kShades);
  const int rows = grid.rows();
  std::vector<int> shades(static_cast<size_t>(grid.columns() * rows));
  for (int column = 0; column < grid.columns(); ++column) {
    for (int row = 0; row < rows; ++row) {
      shades[static_cast<size_t>(column * rows + row)] = ShadeOf(grid.at(column, row), colors);
    }
  }
  Svg svg(frame.width, frame.bottom() + kAxisRoom, label);
  svg.Rect({frame.left, frame.top}, frame.right - frame.left, frame.height, "absent");
  const double width = (frame.right - frame.left) / grid.columns();
  for (int shade = kNotFinite; shade < kShades; ++shade) {
    if (shade == kNotMeasured) continue;
    const std::string path = ShadePath(grid, shades, shade);
    if (path.empty()) continue;
    svg.Cells({frame.left, frame.top}, width, frame.height / rows, path,
              shade == kNotFinite ? "#d55e00" : ViridisColor((shade + 0.5) / kShades));
  }
  const auto lags = static_cast<double>(rows * grid.lags_in_row());
  DrawLeftAxis(Scale::Linear({-0.5, lags - 0.5}, frame.bottom(), frame.top), frame,
               "lag (time steps back from the end of the sequence)", false, true, &svg);
  DrawColorScale(span, frame, &svg);
  const Interval steps{static_cast<double>(grid.FirstStep(0)) - 0.5,
                       static_cast<double>(grid.FirstStep(grid.columns())) - 0.5};
  DrawStepAxis(StepScale(steps, frame), frame, "step", frame.bottom(), &svg);
  return svg.ToString();
}

}  // namespace gradwatch::cli
