#ifndef GRADWATCH_CLIENT_CLI_HEAT_MAP_H_
#define GRADWATCH_CLIENT_CLI_HEAT_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cli/scale.h"

namespace gradwatch::cli {

// Norms over training step and lag, folded to a bounded number of cells. A cell keeps the largest
// finite value of what falls into it, and whether anything was not finite.
class HeatGrid {
 public:
  static constexpr int kColumnsMax = 240;
  static constexpr int kRowsMax = 128;

  struct Cell {
    bool measured = false;
    bool nonfinite = false;
    double largest = 0;  // Of the finite values.
  };

  // Steps `first` to `last`, both in it; steps beyond are counted to the nearest column.
  HeatGrid(int64_t first, int64_t last);

  // `lag` from 0.
  void Add(int64_t step, int lag, double norm);

  int columns() const { return columns_; }
  // Rows so far; row r holds `lags_in_row` lags from r * lags_in_row on.
  int rows() const { return rows_; }
  int lags_in_row() const { return lags_in_row_; }
  bool empty() const { return rows_ == 0; }
  const Cell& at(int column, int row) const;
  // The first step of a column; that of the column behind the last is one beyond the last step.
  int64_t FirstStep(int column) const;
  // Smallest and largest positive finite value; 0 and 0 when there is none.
  Interval positive() const;

 private:
  Cell& Slot(int column, int row);
  void HalveRows();

  int64_t first_;
  int64_t steps_;
  int columns_;
  int rows_ = 0;
  int lags_in_row_ = 1;
  std::vector<Cell> cells_;  // kRowsMax for each column.
};

// Viridis: rises in lightness from end to end, so it is read without hue and in grey print.
// "#rrggbb" for a share of 0 to 1.
std::string ViridisColor(double share);

// The picture with its colour scale, logarithmic. Empty for an empty grid.
// More than 30 decades below the largest value all is drawn as that.
std::string DrawHeatMap(const HeatGrid& grid, const std::string& label);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_HEAT_MAP_H_
