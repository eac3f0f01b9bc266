#ifndef GRADWATCH_CLIENT_CLI_FIGURES_H_
#define GRADWATCH_CLIENT_CLI_FIGURES_H_

#include <string>
#include <vector>

#include "client/cli/chart.h"
#include "client/cli/run_facts.h"

namespace gradwatch::cli {

// One picture of a report with what belongs to it. Plain text; only `svg` is markup.
struct Figure {
  struct Key {
    std::string style;  // CSS class of the swatch.
    std::string text;
  };
  std::string title;
  std::string svg;  // Never empty.
  std::vector<Key> keys;
  std::string caption;
};

// The axis of steps that all pictures of a run share; it needs a recorded step.
Interval RecordedSteps(const RunFacts& facts);
// A quantity over the steps as its buckets have it, interrupted where it was not finite.
Curve CurveOf(const RunFacts& facts, const std::string& style,
              const v1::Range& (v1::FoldedStats::*range)() const);

// Of a run's facts, in the order in which they are read; what was not measured is left out.
std::vector<Figure> CourseFigures(const RunFacts& facts);    // Loss, evaluations, norms.
std::vector<Figure> TimeFigures(const RunFacts& facts);      // Heat maps, growth, horizon.
std::vector<Figure> ClippingFigures(const RunFacts& facts);  // Clip rate, distribution.
std::vector<Figure> CloserFigures(const RunFacts& facts);    // One for each of DetailsOf.

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_FIGURES_H_
