#ifndef GRADWATCH_CLIENT_CLI_STEP_SERIES_H_
#define GRADWATCH_CLIENT_CLI_STEP_SERIES_H_

#include <cstdint>
#include <vector>

#include "client/cli/chart.h"

namespace gradwatch::cli {

// One quantity over the training steps, folded to a bounded number of columns: smallest, mean and
// largest finite value of each. Steps that did not measure it leave no trace.
class StepSeries {
 public:
  static constexpr int kColumnsMax = 200;

  // Of steps `first` to `last`, both in it; steps beyond are counted to the nearest column.
  StepSeries(int64_t first, int64_t last);

  // Values that are not finite are left out.
  void Add(int64_t step, double value);

  bool empty() const { return columns_.empty(); }
  // One for each column with a value, at the mean of its steps.
  std::vector<CurvePoint> Points() const;
  // The mean over the last tenth of the columns that have a value, at least one of them, and how
  // many values that are. NaN and 0 when there are none.
  struct End {
    double mean;
    int64_t count;
  };
  End AtEnd() const;

 private:
  struct Column {
    int64_t count = 0;
    double steps = 0;  // Sum.
    double sum = 0;
    double low = 0;
    double high = 0;
  };

  int64_t first_;
  int64_t steps_;
  std::vector<Column> columns_;  // Empty until the first value.
};

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_STEP_SERIES_H_
