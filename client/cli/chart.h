#ifndef GRADWATCH_CLIENT_CLI_CHART_H_
#define GRADWATCH_CLIENT_CLI_CHART_H_

#include <optional>
#include <string>
#include <vector>

#include "client/cli/scale.h"
#include "client/cli/svg.h"

// Curves over the training steps, and what all pictures of a report share. Pure functions and
// values; the class names of their parts are those of the page's style sheet (html_report.cc).
namespace gradwatch::cli {

// Where the plot stands in a picture; the same for all, so that steps stand above each other.
struct ChartFrame {
  double width = 920;
  double left = 84;     // Room for the labels of the axis.
  double right = 812;   // What is right of it is for labels of lines and for colour scales.
  double top = 30;      // Room for marks.
  double height = 190;  // Of the plot alone.
  double bottom() const { return top + height; }
};

// One step, or a bucket of steps folded together. NaN where nothing finite was measured.
struct CurvePoint {
  double step = 0;
  double low = 0;
  double middle = 0;
  double high = 0;
};

// A line through the middles; with `band` what lies between low and high is tinted.
struct Curve {
  std::string style;  // CSS class.
  std::vector<CurvePoint> points;
  bool band = true;
  bool dots = false;  // Few measurements: each gets a dot.
  std::string label;  // At its right end: a word, or nothing.
};

// A horizontal line with its meaning at its right end: a few words.
struct LimitLine {
  double value = 0;
  std::string label;
  std::string style;
};

// A vertical line at a step, numbered at the top. Marks too close to each other share a number:
// "2–4".
struct Mark {
  double step = 0;
  int number = 0;  // Rising with the step.
  std::string style;
};

// A strip below the plot that says in which steps something happened.
struct Track {
  std::string label;  // One word.
  std::string style;
  struct Part {
    double first = 0;
    double last = 0;
    double share = 0;  // Of the steps in it, 0 to 1: how dark it is.
  };
  std::vector<Part> parts;
};

struct LineChart {
  std::string label;    // What it shows, for those who cannot see it.
  std::string y_title;  // Quantity and unit.
  std::string x_title = "step";
  double height = 190;  // Of the plot.
  bool log = false;
  std::optional<Interval> span;  // Of the left axis; default: what the values need.
  std::vector<Curve> curves;
  std::vector<LimitLine> limits;
  std::vector<Mark> marks;
  std::vector<Track> tracks;
};

// The picture; curves are interrupted where there is no finite value. Empty when there is no value
// at all. On a logarithmic axis 0 and below are drawn at the bottom. `steps` is what the lower axis
// spans.
std::string DrawLineChart(const LineChart& chart, Interval steps);

// Height of the step axis with its numbers and title.
inline constexpr double kAxisRoom = 30;

// The axis of steps for `steps` in this frame.
Scale StepScale(Interval steps, const ChartFrame& frame);

// Ticks, numbers and title of an axis at the lower or left edge; the title of the left one stands
// above it.
void DrawStepAxis(const Scale& scale, const ChartFrame& frame, const std::string& title,
                  double below, Svg* svg);
void DrawLeftAxis(const Scale& scale, const ChartFrame& frame, const std::string& title, bool grid,
                  bool whole, Svg* svg);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_CHART_H_
