#include "client/cli/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_split.h"

namespace gradwatch::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

size_t CountOf(const std::string& text, absl::string_view part) {
  return std::vector<std::string>(absl::StrSplit(text, part)).size() - 1;
}

LineChart ChartOf(const std::vector<double>& values) {
  LineChart chart;
  chart.log = true;
  Curve curve{"loss", {}, true, false};
  for (size_t i = 0; i < values.size(); ++i) {
    curve.points.push_back({static_cast<double>(i), values[i] / 2, values[i], values[i] * 2});
  }
  chart.curves.push_back(curve);
  return chart;
}

TEST(LineChartTest, BreaksTheCurveWhereNothingIsFinite) {
  const std::string text = DrawLineChart(ChartOf({1, 2, kNone, 3, 4, kNone, 5}), {-0.5, 6.5});

  EXPECT_EQ(CountOf(text, "<polyline class=\"curve loss\""), 2u);
  EXPECT_EQ(CountOf(text, "<circle class=\"curve loss point\""), 1u);
  EXPECT_EQ(CountOf(text, "<polygon class=\"band loss\""), 2u);
}

TEST(LineChartTest, IsEmptyWithoutAFiniteValue) {
  EXPECT_EQ(DrawLineChart(ChartOf({kNone, kNone}), {-0.5, 1.5}), "");
  EXPECT_EQ(DrawLineChart(ChartOf({}), {-0.5, 0.5}), "");
}

TEST(LineChartTest, HoldsNoNumberThatIsNotFinite) {
  const double largest = std::numeric_limits<double>::max();
  for (const auto& values :
       std::vector<std::vector<double>>{{0}, {-1, 0}, {largest, 1e-308}, {kNone, 1}, {1, 1, 1}}) {
    const std::string text = DrawLineChart(ChartOf(values), {-0.5, 2.5});

    EXPECT_THAT(text, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
  }
}

TEST(LineChartTest, JoinsNumbersOfMarksThatWouldTouch) {
  LineChart chart = ChartOf({1, 1});
  chart.marks = {
      {10, 1, "critical"}, {12, 2, "critical"}, {13, 3, "critical"}, {900, 4, "warning"}};

  const std::string text = DrawLineChart(chart, {-0.5, 999.5});

  EXPECT_THAT(text, HasSubstr(">1–3</text>"));
  EXPECT_THAT(text, HasSubstr(">4</text>"));
}

TEST(LineChartTest, MovesLabelsOfCloseLimitsApart) {
  LineChart chart = ChartOf({1, 1000});
  chart.limits = {{1, "low", "even"}, {1.01, "high", "even"}};

  const std::string text = DrawLineChart(chart, {-0.5, 1.5});

  const auto height_of = [&text](const std::string& label) {
    const std::string before = text.substr(0, text.find(label));
    const size_t y = before.rfind(" y=\"") + 4;
    return std::stod(before.substr(y));
  };
  EXPECT_GE(height_of(">low<") - height_of(">high<"), 14);
}

TEST(LineChartTest, LabelsCurvesWhereTheyEndApartFromLimits) {
  LineChart chart = ChartOf({1, 1000, kNone});
  chart.curves[0].label = "rising";
  chart.limits = {{1000, "limit", "even"}};
  chart.x_title = "lag";

  const std::string text = DrawLineChart(chart, {-0.5, 2.5});

  const auto height_of = [&text](const std::string& label) {
    const std::string before = text.substr(0, text.find(label));
    return std::stod(before.substr(before.rfind(" y=\"") + 4));
  };
  EXPECT_GE(std::abs(height_of(">rising<") - height_of(">limit<")), 14);
  EXPECT_EQ(CountOf(text, "<line class=\"curve loss\""), 1u);
  EXPECT_THAT(text, AllOf(HasSubstr(">lag</text>"), Not(HasSubstr(">step</text>"))));
}

TEST(LineChartTest, DrawsEqualNeighboursOfATrackAsOne) {
  LineChart chart = ChartOf({1, 2, 3, 4});
  chart.tracks = {{"clipped", "clipped", {{0, 0, 1}, {1, 1, 1}, {2, 2, 0.5}, {3, 3, 0.5}}}};

  const std::string text = DrawLineChart(chart, {-0.5, 3.5});

  EXPECT_EQ(CountOf(text, "<rect class=\"crisp clipped\""), 2u);
}

TEST(LineChartTest, ShowsASingleClippedStepAmongMany) {
  LineChart chart = ChartOf({1, 2});
  chart.tracks = {{"clipped", "clipped", {{0, 49999, 0}, {50000, 50000, 1}, {50001, 99999, 0}}}};

  const std::string text = DrawLineChart(chart, {-0.5, 99999.5});

  EXPECT_EQ(CountOf(text, "<rect class=\"crisp clipped\""), 1u);
  EXPECT_THAT(text, HasSubstr("width=\"2\" height=\"8\""));
}

}  // namespace
}  // namespace gradwatch::cli
