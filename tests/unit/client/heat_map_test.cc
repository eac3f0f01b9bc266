#include "client/cli/heat_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(HeatGridTest, HasACellForEachStepAndLagWhileThereAreFew) {
  HeatGrid grid(5, 7);
  for (int64_t step = 5; step <= 7; ++step) {
    for (int lag = 0; lag < 4; ++lag) grid.Add(step, lag, static_cast<double>(10 * step + lag));
  }

  EXPECT_EQ(grid.columns(), 3);
  EXPECT_EQ(grid.rows(), 4);
  EXPECT_EQ(grid.lags_in_row(), 1);
  EXPECT_DOUBLE_EQ(grid.at(2, 3).largest, 73);
}

TEST(HeatGridTest, KeepsTheExtremeOfEachCellWhenFolding) {
  constexpr int64_t kSteps = 100'000;
  HeatGrid grid(0, kSteps - 1);
  for (int64_t step = 0; step < kSteps; ++step) {
    grid.Add(step, static_cast<int>(step % 1000), step == 61'803 ? 1e9 : 1.0);
  }

  EXPECT_EQ(grid.columns(), HeatGrid::kColumnsMax);
  EXPECT_EQ(grid.lags_in_row(), 8);
  EXPECT_EQ(grid.rows(), 125);
  int extremes = 0;
  for (int column = 0; column < grid.columns(); ++column) {
    for (int row = 0; row < grid.rows(); ++row) {
      if (grid.at(column, row).largest != 1e9) continue;
      ++extremes;
      EXPECT_LE(grid.FirstStep(column), 61'803);
      EXPECT_GT(grid.FirstStep(column + 1), 61'803);
      EXPECT_EQ(row, 803 / 8);
    }
  }
  EXPECT_EQ(extremes, 1);
}

TEST(HeatGridTest, PutsEveryStepIntoTheColumnThatSaysSo) {
  for (const int64_t steps : {1, 2, 239, 240, 241, 999, 2500}) {
    HeatGrid grid(3, 3 + steps - 1);
    for (int64_t step = 3; step < 3 + steps; ++step) {
      grid.Add(step, 0, static_cast<double>(step));
    }

    for (int column = 0; column < grid.columns(); ++column) {
      EXPECT_DOUBLE_EQ(grid.at(column, 0).largest,
                       static_cast<double>(grid.FirstStep(column + 1) - 1));
    }
    EXPECT_EQ(grid.FirstStep(grid.columns()), 3 + steps);
  }
}

TEST(HeatGridTest, RemembersWhatWasNotFinite) {
  HeatGrid grid(0, 0);
  grid.Add(0, 0, 2.0);
  grid.Add(0, 0, std::numeric_limits<double>::quiet_NaN());
  grid.Add(0, 200, std::numeric_limits<double>::infinity());

  EXPECT_TRUE(grid.at(0, 0).nonfinite);
  EXPECT_DOUBLE_EQ(grid.at(0, 0).largest, 2.0);
  EXPECT_TRUE(grid.at(0, 100).nonfinite);
  EXPECT_FALSE(grid.at(0, 50).measured);
}

TEST(ViridisTest, RisesInLightness) {
  double before = -1;
  for (int i = 0; i <= 100; ++i) {
    const std::string color = ViridisColor(i / 100.0);
    ASSERT_EQ(color.size(), 7u);
    const auto channel = [&color](size_t at) {
      return std::pow(std::stoi(color.substr(at, 2), nullptr, 16) / 255.0, 2.2);
    };
    const double luminance = 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
    EXPECT_GT(luminance, before) << i;
    before = luminance;
  }
  EXPECT_EQ(ViridisColor(0), "#440154");
  EXPECT_EQ(ViridisColor(1), "#fde725");
}

TEST(HeatMapTest, DrawsEveryCellOnce) {
  HeatGrid grid(0, 1);
  grid.Add(0, 0, 1.0);
  grid.Add(0, 1, 1.0);
  grid.Add(1, 0, 1000.0);

  const std::string text = DrawHeatMap(grid, "map");

  // Both equal cells of the first step are one rectangle; the second step's upper one is absent.
  EXPECT_THAT(text, HasSubstr("d=\"M0 0h1v2h-1z\""));
  EXPECT_THAT(text, HasSubstr("d=\"M1 1h1v1h-1z\""));
  EXPECT_THAT(text, Not(HasSubstr("M1 0h1")));
}

TEST(HeatMapTest, DrawsValuesOfAnySize) {
  HeatGrid grid(0, 3);
  grid.Add(0, 0, 0.0);
  grid.Add(1, 0, 1e-45);
  grid.Add(2, 0, 3e38);
  grid.Add(3, 0, std::numeric_limits<double>::quiet_NaN());

  const std::string text = DrawHeatMap(grid, "map");

  EXPECT_THAT(text, Not(HasSubstr("nan")));
  EXPECT_THAT(text, HasSubstr("fill=\"#d55e00\""));
  EXPECT_EQ(DrawHeatMap(HeatGrid(0, 0), "map"), "");
}

}  // namespace
}  // namespace gradwatch::cli
