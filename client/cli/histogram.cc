#include "client/cli/histogram.h"

#include <algorithm>
#include <cmath>

#include "client/cli/svg.h"

namespace gradwatch::cli {
namespace {

constexpr int64_t kPictureBarsMax = 60;

int64_t BarNumber(double norm, double bars_in_decade) {
  return static_cast<int64_t>(std::floor(std::log10(norm) * bars_in_decade));
}

// Where the label of a vertical line fits: at its right, or at its left near the right edge.
void DrawVerticalLimit(const LimitLine& limit, const Scale& x, double label_y,
                       const ChartFrame& frame, Svg* svg) {
  const double at = x.At(limit.value);
  svg->Line({at, label_y - 8}, {at, frame.bottom()}, "limit " + limit.style);
  const bool left = at > frame.right - 40;
  svg->Text({left ? at - 5 : at + 5, label_y}, left ? Anchor::kEnd : Anchor::kStart, limit.label,
            "limit-label " + limit.style);
}

}  // namespace

std::vector<NormBar> LogBars(const std::vector<NormSample>& samples) {
  double low = 0;
  double high = 0;
  for (const NormSample& sample : samples) {
    if (!(sample.norm > 0) || !std::isfinite(sample.norm)) continue;
    low = low == 0 ? sample.norm : std::min(low, sample.norm);
    high = std::max(high, sample.norm);
  }
  if (high == 0) return {};
  double density = 100;
  for (const double finer : {50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05}) {
    if (BarNumber(high, density) - BarNumber(low, density) < kPictureBarsMax) break;
    density = finer;
  }
  const int64_t first = BarNumber(low, density);
  std::vector<NormBar> bars(static_cast<size_t>(BarNumber(high, density) - first + 1));
  for (size_t i = 0; i < bars.size(); ++i) {
    const auto number = static_cast<double>(first + static_cast<int64_t>(i));
    bars[i].low = std::pow(10.0, number / density);
    bars[i].high = std::pow(10.0, (number + 1) / density);
  }
  for (const NormSample& sample : samples) {
    if (!(sample.norm > 0) || !std::isfinite(sample.norm)) continue;
    NormBar& bar = bars[static_cast<size_t>(BarNumber(sample.norm, density) - first)];
    ++bar.steps;
    if (sample.clipped) ++bar.clipped;
  }
  return bars;
}

std::string DrawHistogram(const std::vector<NormBar>& bars, const std::vector<LimitLine>& limits,
                          const std::string& label) {
  if (bars.empty()) return "";
  ChartFrame frame;
  constexpr double kLabelPitch = 15;
  frame.top = 28 + kLabelPitch * static_cast<double>(limits.size());
  Interval span{bars.front().low, bars.back().high};
  int64_t most = 0;
  for (const NormBar& bar : bars) most = std::max(most, bar.steps);
  for (const LimitLine& limit : limits) {
    if (!(limit.value > 0)) continue;
    span.low = std::min(span.low, limit.value / 1.1);
    span.high = std::max(span.high, limit.value * 1.1);
  }
  const Scale x = Scale::Log(span, frame.left, frame.right);
  const Scale y = Scale::Linear({0, 1.05 * static_cast<double>(most)}, frame.bottom(), frame.top);
  Svg svg(frame.width, frame.bottom() + 24, label);
  DrawLeftAxis(y, frame, "training steps", true, true, &svg);
  for (const NormBar& bar : bars) {
    const double left = x.At(bar.low) + 0.5;
    const double width = std::max(x.At(bar.high) - x.At(bar.low) - 1, 1.0);
    const double foot = y.At(static_cast<double>(bar.steps - bar.clipped));
    const double head = y.At(static_cast<double>(bar.steps));
    if (bar.clipped < bar.steps) {
      svg.Rect({left, foot}, width, frame.bottom() - foot, "bar unclipped");
    }
    if (bar.clipped > 0) svg.Rect({left, head}, width, foot - head, "bar clipped");
  }
  svg.Line({frame.left, frame.bottom()}, {frame.right, frame.bottom()}, "axis");
  for (const Tick& tick : x.Ticks(9)) {
    const double at = x.At(tick.value);
    svg.Line({at, frame.bottom()}, {at, frame.bottom() + 4}, "axis");
    svg.Text({at, frame.bottom() + 17}, Anchor::kMiddle, tick.label, "tick");
  }
  svg.Text({frame.width - 4, frame.bottom() + 17}, Anchor::kEnd, "L2 norm", "axis-title");
  for (size_t i = 0; i < limits.size(); ++i) {
    DrawVerticalLimit(limits[i], x, 30 + kLabelPitch * static_cast<double>(i), frame, &svg);
  }
  return svg.ToString();
}

}  // namespace gradwatch::cli
