#ifndef GRADWATCH_CLIENT_CLI_HISTOGRAM_H_
#define GRADWATCH_CLIENT_CLI_HISTOGRAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cli/chart.h"

namespace gradwatch::cli {

// The finite norm of one step before clipping, and whether the step was clipped.
struct NormSample {
  double norm = 0;
  bool clipped = false;
};

// Steps whose norm is in [low, high).
struct NormBar {
  double low = 0;
  double high = 0;
  int64_t steps = 0;
  int64_t clipped = 0;  // Of these.
};

// Samples above 0 in bars that are equally wide on a logarithmic axis, without gaps, at most 60 of
// them and as narrow as that allows.
std::vector<NormBar> LogBars(const std::vector<NormSample>& samples);

// The picture: clipped steps stand on those that were not. `limits` are vertical lines; what lies
// beyond the bars widens the axis. Empty without bars.
std::string DrawHistogram(const std::vector<NormBar>& bars, const std::vector<LimitLine>& limits,
                          const std::string& label);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_HISTOGRAM_H_
