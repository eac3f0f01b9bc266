#include "client/cli/markdown_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_split.h"
#include "tests/unit/client/example_run.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The tables of a report have as many cells in each row as titles.
void ExpectEvenTables(const std::string& text) {
  size_t columns = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.empty() || line[0] != '|') {
      columns = 0;
      continue;
    }
    size_t bars = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '|' && (i == 0 || line[i - 1] != '\\')) ++bars;
    }
    if (columns == 0) columns = bars;
    EXPECT_EQ(bars, columns) << line;
  }
}

TEST(MarkdownReportTest, TellsTheSameFacts) {
  std::vector<ExampleStep> steps(200);
  for (ExampleStep& step : steps) step.lags = 30;
  steps[20].clipped = true;
  RunFacts run = ExampleRun(steps);
  run.summary.alerts = {ExampleAlert(12, "the norm passed 1000")};

  const std::string text = MarkdownReport(run);

  for (const char* part :
       {"# x", "keeps its size", "## Course of the run", "## The gradient through time",
        "## Clipping", "## Alerts", "EXPLODING\\_ABS", "the norm passed 1000", "clip at 1",
        "## What ran", "9.9.9", "lag", "p99", "norm before clipping", "\"seed\": \"42\""}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  ExpectEvenTables(text);
}

TEST(MarkdownReportTest, TellsTheAdviceTheShadowClipsAndTheDetails) {
  RunFacts run = MeasuredRun();
  run.advice = ExampleAdvice();

  const std::string text = MarkdownReport(run);

  for (const char* part :
       {"### Advice on the threshold", "clip the global L2 norm at 0.2 (or 2)",
        "| norm 0.2 | advised | 87.5 % | 0.4 |", "### Shadow clips",
        "| 1: norm 0.25 | 100 % | 0.25 |", "## Closer look", "### Gradient by gate",
        "| forget gate f, recurrence | 6 | 6 | 6 | 6 | `", "| forget gate f, input | 2 |",
        "### Memory of the units", "| longest | 12 |", "by lag.", "| probe of step 199 | 1 |",
        "### Loss by length of the sequences", "### Noise scale"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  ExpectEvenTables(text);
  EXPECT_THAT(MarkdownReport(ExampleRun({{}, {}})), Not(HasSubstr("Closer look")));
}

TEST(MarkdownReportTest, TellsTheAdviceOfAJobWithoutSteps) {
  RunFacts run = ExampleRun({});
  run.advice.emplace();
  run.advice->set_basis(v1::ClipAdvice::BASIS_NO_DATA);

  EXPECT_THAT(MarkdownReport(run), HasSubstr("too little data"));
}

TEST(MarkdownReportTest, ShowsHostileTextAsText) {
  RunFacts run = ExampleRun(std::vector<ExampleStep>(5));
  run.summary.job.set_display_name("a | b\n# <script> ```");
  run.summary.alerts = {ExampleAlert(2, "x | y\n| z")};

  const std::string text = MarkdownReport(run);

  EXPECT_THAT(text, HasSubstr("# a \\| b \\# \\<script\\> \\`\\`\\`"));
  EXPECT_THAT(text, HasSubstr("x \\| y \\| z"));
  EXPECT_THAT(text, HasSubstr("\n````json\n"));
  ExpectEvenTables(text);
}

TEST(MarkdownReportTest, ManagesRunsWithoutSteps) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string none = MarkdownReport(ExampleRun({}));
  const std::string lost = MarkdownReport(ExampleRun({{nan, nan, nan, false, 3}}));

  EXPECT_THAT(none, HasSubstr("has no steps yet"));
  EXPECT_THAT(none, Not(HasSubstr("## Course")));
  EXPECT_THAT(lost, HasSubstr("not finite"));
  ExpectEvenTables(none);
  ExpectEvenTables(lost);
}

}  // namespace
}  // namespace gradwatch::cli
