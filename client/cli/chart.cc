#include "client/cli/chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

constexpr double kTrackHeight = 8;
constexpr double kTrackPitch = 15;
// From the plot to the first track: half a label of the left axis fits between them.
constexpr double kTrackGap = 12;
constexpr double kLabelPitch = 15;
constexpr double kPillHeight = 16;

// Every finite value that the picture has to show.
std::vector<double> ShownValues(const LineChart& chart) {
  std::vector<double> values;
  for (const Curve& curve : chart.curves) {
    for (const CurvePoint& point : curve.points) {
      values.push_back(point.middle);
      if (!curve.band) continue;
      values.push_back(point.low);
      values.push_back(point.high);
    }
  }
  return values;
}

// Runs of points that have a value.
std::vector<std::vector<CurvePoint>> UnbrokenRuns(const std::vector<CurvePoint>& points) {
  std::vector<std::vector<CurvePoint>> runs(1);
  for (const CurvePoint& point : points) {
    if (std::isfinite(point.middle)) {
      runs.back().push_back(point);
    } else if (!runs.back().empty()) {
      runs.emplace_back();
    }
  }
  if (runs.back().empty()) runs.pop_back();
  return runs;
}

void DrawCurve(const Curve& curve, const Scale& x, const Scale& y, Svg* svg) {
  for (const std::vector<CurvePoint>& run : UnbrokenRuns(curve.points)) {
    std::vector<Point> line;
    std::vector<Point> outline;
    for (const CurvePoint& point : run) {
      line.push_back({x.At(point.step), y.At(point.middle)});
      outline.push_back({x.At(point.step), y.At(point.high)});
    }
    for (auto point = run.rbegin(); point != run.rend(); ++point) {
      outline.push_back({x.At(point->step), y.At(point->low)});
    }
    if (curve.band && run.size() > 1) svg->Polygon(outline, absl::StrCat("band ", curve.style));
    svg->Polyline(line, absl::StrCat("curve ", curve.style));
    if (!curve.dots) continue;
    for (const Point& point : line) svg->Dot(point, 2.5, absl::StrCat(curve.style, " point"));
  }
}

// What stands at the right end of a line or a curve.
struct EndLabel {
  double at = 0;  // Pixel of the line.
  std::string text;
  std::string curve;  // CSS class of the curve that it belongs to; empty for a line.
  std::string style;
};

void DrawLimitLines(const std::vector<LimitLine>& limits, const Scale& y, const ChartFrame& frame,
                    Svg* svg) {
  for (const LimitLine& limit : limits) {
    const double at = y.At(limit.value);
    svg->Line({frame.left, at}, {frame.right, at}, absl::StrCat("limit ", limit.style));
  }
}

std::vector<EndLabel> EndLabelsOf(const LineChart& chart, const Scale& y) {
  std::vector<EndLabel> labels;
  for (const LimitLine& limit : chart.limits) {
    labels.push_back(
        {y.At(limit.value), limit.label, "", absl::StrCat("limit-label ", limit.style)});
  }
  for (const Curve& curve : chart.curves) {
    if (curve.label.empty()) continue;
    const auto last =
        std::find_if(curve.points.rbegin(), curve.points.rend(),
                     [](const CurvePoint& point) { return std::isfinite(point.middle); });
    if (last == curve.points.rend()) continue;
    labels.push_back({y.At(last->middle), curve.label, curve.style, "limit-label"});
  }
  std::stable_sort(labels.begin(), labels.end(),
                   [](const EndLabel& a, const EndLabel& b) { return a.at < b.at; });
  return labels;
}

// Moved apart where they would touch; those of curves have a piece of their curve before them.
void DrawEndLabels(const std::vector<EndLabel>& labels, const ChartFrame& frame, Svg* svg) {
  constexpr double kPiece = 22;
  double free = frame.top + 4;
  for (size_t i = 0; i < labels.size(); ++i) {
    const EndLabel& label = labels[i];
    const double below = static_cast<double>(labels.size() - 1 - i) * kLabelPitch;
    const double at = std::max(free, std::min(label.at + 4, frame.bottom() - below));
    double left = frame.right + 6;
    if (!label.curve.empty()) {
      svg->Line({left, at - 4}, {left + kPiece, at - 4}, absl::StrCat("curve ", label.curve));
      left += kPiece + 5;
    }
    svg->Text({left, at}, Anchor::kStart, label.text, label.style);
    free = at + kLabelPitch;
  }
}

// Marks that share one number.
struct MarkGroup {
  double from = 0;
  double to = 0;
  int first = 0;
  int last = 0;
  std::string style;

  std::string label() const {
    return first == last ? absl::StrCat(first) : absl::StrCat(first, "–", last);
  }
  double width() const { return 10 + 7.0 * static_cast<double>(DisplayWidth(label())); }
  double middle(const ChartFrame& frame) const {
    return std::clamp((from + to) / 2, frame.left + width() / 2, frame.right - width() / 2);
  }
};

bool Touch(const MarkGroup& a, const MarkGroup& b, const ChartFrame& frame) {
  constexpr double kGap = 3;
  return b.middle(frame) - b.width() / 2 < a.middle(frame) + a.width() / 2 + kGap;
}

std::vector<MarkGroup> GroupMarks(const std::vector<Mark>& marks, const Scale& x,
                                  const ChartFrame& frame) {
  std::vector<MarkGroup> groups;
  for (const Mark& mark : marks) {
    const double at = x.At(mark.step);
    groups.push_back({at, at, mark.number, mark.number, mark.style});
    // A joined number is wider, so it may touch the one before.
    while (groups.size() > 1 && Touch(groups[groups.size() - 2], groups.back(), frame)) {
      MarkGroup& before = groups[groups.size() - 2];
      before.to = groups.back().to;
      before.last = groups.back().last;
      groups.pop_back();
    }
  }
  return groups;
}

void DrawMarks(const std::vector<Mark>& marks, const Scale& x, const ChartFrame& frame, Svg* svg) {
  double drawn = -1;
  for (const Mark& mark : marks) {
    const double at = x.At(mark.step);
    if (at - drawn < 1) continue;
    svg->Line({at, frame.top - 4}, {at, frame.bottom()}, absl::StrCat("mark ", mark.style));
    drawn = at;
  }
  for (const MarkGroup& group : GroupMarks(marks, x, frame)) {
    const double width = group.width();
    const double middle = group.middle(frame);
    const double top = frame.top - 4 - kPillHeight;
    svg->Pill({middle - width / 2, top}, width, kPillHeight, absl::StrCat("pill ", group.style));
    svg->Text({middle, top + 12}, Anchor::kMiddle, group.label(), "pill-label");
  }
}

// Neighbours with the same share as one part: fewer seams, a smaller file.
std::vector<Track::Part> JoinedParts(const std::vector<Track::Part>& parts) {
  std::vector<Track::Part> joined;
  for (const Track::Part& part : parts) {
    const bool joins = !joined.empty() && joined.back().share == part.share &&
                       joined.back().last + 1 >= part.first;
    if (joins) {
      joined.back().last = part.last;
    } else {
      joined.push_back(part);
    }
  }
  return joined;
}

void DrawTrack(const Track& track, const Scale& x, const ChartFrame& frame, double top, Svg* svg) {
  svg->Text({frame.left - 8, top + kTrackHeight}, Anchor::kEnd, track.label, "tick");
  svg->Rect({frame.left, top}, frame.right - frame.left, kTrackHeight, "track");
  for (const Track::Part& part : JoinedParts(track.parts)) {
    if (part.share <= 0) continue;
    const double from = x.At(part.first - 0.5);
    // A single step of many stays visible.
    const double width = std::max(x.At(part.last + 0.5) - from, 2.0);
    svg->Rect({std::min(from, frame.right - width), top}, width, kTrackHeight,
              absl::StrCat("crisp ", track.style), 0.25 + 0.75 * std::min(part.share, 1.0));
  }
}

}  // namespace

Scale StepScale(Interval steps, const ChartFrame& frame) {
  return Scale::Linear(steps, frame.left, frame.right);
}

void DrawStepAxis(const Scale& scale, const ChartFrame& frame, const std::string& title,
                  double below, Svg* svg) {
  svg->Line({frame.left, frame.bottom()}, {frame.right, frame.bottom()}, "axis");
  for (const Tick& tick : scale.Ticks(8, true)) {
    const double at = scale.At(tick.value);
    svg->Line({at, below}, {at, below + 4}, "axis");
    svg->Text({at, below + 17}, Anchor::kMiddle, tick.label, "tick");
  }
  // Lower than the numbers: beside a heat map the labels of the colours stand above it.
  svg->Text({frame.width - 4, below + 23}, Anchor::kEnd, title, "axis-title");
}

void DrawLeftAxis(const Scale& scale, const ChartFrame& frame, const std::string& title, bool grid,
                  bool whole, Svg* svg) {
  const int most = std::max(2, static_cast<int>(frame.height / 26));
  for (const Tick& tick : scale.Ticks(most, whole)) {
    const double at = scale.At(tick.value);
    if (grid) svg->Line({frame.left, at}, {frame.right, at}, "grid");
    svg->Line({frame.left - 4, at}, {frame.left, at}, "axis");
    svg->Text({frame.left - 8, at + 4}, Anchor::kEnd, tick.label, "tick");
  }
  svg->Line({frame.left, frame.top}, {frame.left, frame.bottom()}, "axis");
  svg->Text({4, 12}, Anchor::kStart, title, "axis-title");
}

std::string DrawLineChart(const LineChart& chart, Interval steps) {
  const std::vector<double> shown = ShownValues(chart);
  const bool any =
      std::any_of(shown.begin(), shown.end(), [](double value) { return std::isfinite(value); });
  if (!any) return "";
  std::vector<double> spanned = shown;
  for (const LimitLine& limit : chart.limits) spanned.push_back(limit.value);
  ChartFrame frame;
  frame.height = chart.height;
  // The title of the left axis, then the numbers of the marks.
  frame.top = chart.marks.empty() ? 24 : 42;
  const double tracks = static_cast<double>(chart.tracks.size()) * kTrackPitch;
  const double below = frame.bottom() + (chart.tracks.empty() ? 0 : kTrackGap + tracks);
  const Interval span = chart.span ? *chart.span : SpanOf(spanned, chart.log);
  const Scale x = StepScale(steps, frame);
  const Scale y = chart.log ? Scale::Log(span, frame.bottom(), frame.top)
                            : Scale::Linear(span, frame.bottom(), frame.top);
  Svg svg(frame.width, below + kAxisRoom, chart.label);
  DrawLeftAxis(y, frame, chart.y_title, true, false, &svg);
  for (const Curve& curve : chart.curves) DrawCurve(curve, x, y, &svg);
  DrawLimitLines(chart.limits, y, frame, &svg);
  DrawEndLabels(EndLabelsOf(chart, y), frame, &svg);
  DrawMarks(chart.marks, x, frame, &svg);
  for (size_t i = 0; i < chart.tracks.size(); ++i) {
    DrawTrack(chart.tracks[i], x, frame,
              frame.bottom() + kTrackGap + static_cast<double>(i) * kTrackPitch, &svg);
  }
  DrawStepAxis(x, frame, chart.x_title, below, &svg);
  return svg.ToString();
}

}  // namespace gradwatch::cli
