#include "client/cli/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace gradwatch::cli {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(FormatTest, Numbers) {
  EXPECT_EQ(FormatNumber(0), "0");
  EXPECT_EQ(FormatNumber(0.193412), "0.1934");
  EXPECT_EQ(FormatNumber(1.2e9), "1.2e+09");
  EXPECT_EQ(FormatNumber(kNaN), "NaN");
  EXPECT_EQ(FormatNumber(-kNaN), "NaN");
  EXPECT_EQ(FormatNumber(-kInfinity), "-inf");
}

TEST(FormatTest, SharesAreNeverRoundedOntoTheEnds) {
  EXPECT_EQ(FormatShare(0), "0 %");
  EXPECT_EQ(FormatShare(1), "100 %");
  EXPECT_EQ(FormatShare(0.125), "12.5 %");
  EXPECT_EQ(FormatShare(1e-6), "<0.1 %");
  EXPECT_EQ(FormatShare(0.99999), ">99.9 %");
  EXPECT_EQ(FormatShare(kNaN), "NaN");
}

TEST(FormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(512), "512 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(64 << 20), "64 MiB");
}

TEST(FormatTest, Durations) {
  EXPECT_EQ(FormatElapsed(absl::Milliseconds(840)), "0.8 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(41)), "41 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(185)), "3 min 5 s");
  EXPECT_EQ(FormatElapsed(absl::Minutes(130)), "2 h 10 min");
  EXPECT_EQ(FormatElapsed(absl::Hours(76)), "3 d 4 h");
}

TEST(TextTest, WidthCountsColumnsNotBytesOrColours) {
  EXPECT_EQ(DisplayWidth("é→"), 2u);
  EXPECT_EQ(DisplayWidth("\033[31mred\033[0m"), 3u);
}

TEST(TextTest, ShortensWithAnEllipsis) {
  EXPECT_EQ(Shorten("abcdef", 6, true), "abcdef");
  EXPECT_EQ(Shorten("abcdef", 4, true), "abc…");
  EXPECT_EQ(Shorten("äöüß", 3, false), "äö~");
}

TEST(TextTest, WrapsAtBlanks) { EXPECT_EQ(Wrap("one two three", 8, 2), "one two\n  three"); }

TEST(TableTest, AlignsColumnsWithoutTrailingBlanks) {
  Table table({{"NAME"}, {"N", Align::kRight}, {"WHAT"}});
  table.AddRow({"a→b", "1", "x"});
  table.AddRow({"c", "100", ""});

  EXPECT_EQ(table.ToString(),
            "NAME    N  WHAT\n"
            "a→b     1  x\n"
            "c     100\n");
}

TEST(SparklineTest, GoesFromLowestToHighest) {
  EXPECT_EQ(Sparkline({0, 1, 2, 3, 4, 5, 6, 7}, {}), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(Sparkline({}, {}), "");
}

TEST(SparklineTest, IsLogarithmicWhenAsked) {
  EXPECT_EQ(Sparkline({1, 10, 100}, {.log = true}), Sparkline({0, 1, 2}, {}));
}

TEST(SparklineTest, MarksWhatIsNotFinite) {
  EXPECT_EQ(Sparkline({0, kNaN, 1}, {}), "▁×█");
  EXPECT_EQ(Sparkline({0, kInfinity, 1}, {.unicode = false}), ".x#");
}

TEST(SparklineTest, FoldsALongSeriesAndKeepsItsPeak) {
  std::vector<double> values(1000, 1.0);
  values[500] = 100;

  const std::string line = Sparkline(values, {.width = 10, .unicode = false});

  EXPECT_EQ(line, ".....#....");
}

TEST(ChartTest, FillsRowsFromTheBottom) {
  const auto rows = ChartRows({0, 1}, {.height = 2});

  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0], " █");
  EXPECT_EQ(rows[1], "▁█");
}

TEST(ExtremesTest, IgnoreWhatIsNotFinite) {
  const Extremes some = FiniteExtremes({kNaN, 3, kInfinity, -1});
  const Extremes none = FiniteExtremes({kNaN});

  EXPECT_EQ(some.minimum, -1);
  EXPECT_EQ(some.maximum, 3);
  EXPECT_TRUE(std::isnan(none.minimum));
}

}  // namespace
}  // namespace gradwatch::cli
