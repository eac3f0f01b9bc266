#ifndef GRADWATCH_CLIENT_CLI_FIGURES_H_
#define GRADWATCH_CLIENT_CLI_FIGURES_H_

#include <string>
#include <vector>

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

// Of a run's facts, in the order in which they are read; what was not measured is left out.
std::vector<Figure> CourseFigures(const RunFacts& facts);    // Loss, evaluations, norms.
std::vector<Figure> TimeFigures(const RunFacts& facts);      // Heat maps, growth, horizon.
std::vector<Figure> ClippingFigures(const RunFacts& facts);  // Clip rate, distribution.

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_FIGURES_H_
