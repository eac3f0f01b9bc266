#ifndef GRADWATCH_CLIENT_CLI_DETAILS_H_
#define GRADWATCH_CLIENT_CLI_DETAILS_H_

#include <string>
#include <utility>
#include <vector>

#include "client/cli/chart.h"
#include "client/cli/run_facts.h"

namespace gradwatch::cli {

// What only some jobs measure, as a chart that a report draws or tells in numbers.
struct Detail {
  std::string title;
  LineChart chart;
  Interval span;                   // Of the lower axis.
  std::vector<std::string> names;  // Of the chart's curves, in their order.
  std::string caption;
  // CSS classes and meanings for the legend.
  std::vector<std::pair<std::string, std::string>> keys;
};

// The gates (gradient, openness, memory), the layers' states (slope of the activation, similarity),
// how steps compare (cosine, way gone), the recurrent matrices, the probe, the loss by length, the
// noise scale: those that the run recorded. Of layers, the first four.
std::vector<Detail> DetailsOf(const RunFacts& facts);

// Colour and dash of the `number`th of up to twelve curves, from 0.
std::string CurveHue(size_t number);

// "forget gate f": a gate of the cell in PyTorch's order; empty for a plain cell.
std::string GateName(v1::Model::Cell cell, size_t gate);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_DETAILS_H_
