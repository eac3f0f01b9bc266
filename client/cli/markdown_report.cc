#include "client/cli/markdown_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/advise.h"
#include "client/cli/command.h"
#include "client/cli/describe.h"
#include "client/cli/details.h"
#include "client/cli/report.h"
#include "client/cli/text.h"
#include "client/cli/verdict.h"

namespace gradwatch::cli {
namespace {

constexpr int kCourseRows = 20;
constexpr int kMapColumns = 10;
constexpr int kMapRows = 12;

std::string MarkdownRow(const std::vector<std::string>& cells) {
  return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n");
}

std::string MarkdownTable(const std::vector<std::string>& titles,
                          const std::vector<std::vector<std::string>>& rows) {
  std::string text = MarkdownRow(titles);
  text += MarkdownRow(std::vector<std::string>(titles.size(), "---"));
  for (const std::vector<std::string>& row : rows) text += MarkdownRow(row);
  return text + "\n";
}

std::string FactsMarkdown(const std::vector<Fact>& facts) {
  if (facts.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const Fact& fact : facts) {
    rows.push_back({EscapeMarkdown(fact.name), EscapeMarkdown(fact.value)});
  }
  return MarkdownTable({"what", "value"}, rows);
}

// Buckets joined to at most `most` of them.
std::vector<v1::FoldedStats> JoinedBuckets(const v1::QueryStatsResponse& history, int most) {
  const int count = history.buckets_size();
  const int rows = std::min(count, most);
  std::vector<v1::FoldedStats> joined(static_cast<size_t>(rows));
  for (int i = 0; i < count; ++i) {
    AddBucket(history.buckets(i), &joined[static_cast<size_t>(i * rows / count)]);
  }
  return joined;
}

std::string RangeText(const v1::Range& range, double value) {
  return range.count() == 0 ? "–" : FormatNumber(value);
}

std::string CourseMarkdown(const RunFacts& facts) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::FoldedStats& part : JoinedBuckets(facts.summary.history, kCourseRows)) {
    const double growth = part.growth_factor().mean();
    rows.push_back({absl::StrCat(part.first_step(), "–", part.last_step()),
                    RangeText(part.loss(), part.loss().mean()),
                    RangeText(part.norm_before(), part.norm_before().mean()),
                    RangeText(part.norm_before(), part.norm_before().maximum()),
                    RangeText(part.norm_after(), part.norm_after().maximum()),
                    FormatShare(static_cast<double>(part.clipped_steps()) /
                                static_cast<double>(std::max<int64_t>(part.count(), 1))),
                    RangeText(part.growth_factor(), growth),
                    RangeText(part.growth_factor(), HorizonOf(growth, facts.digest.window())),
                    absl::StrCat(part.skipped_steps()), absl::StrCat(part.nonfinite_steps())});
  }
  return MarkdownTable(
      {"steps", "loss, mean", "norm before clipping, mean", "largest", "after clipping, largest",
       "clipped", "growth, mean", "horizon, time steps", "skipped", "not finite"},
      rows);
}

std::string SparklinesMarkdown(const RunFacts& facts) {
  ChartStyle style;
  style.width = 60;
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const char* what, const v1::Range& (v1::FoldedStats::*range)() const,
                       bool largest, bool log) {
    std::vector<double> values;
    for (const v1::FoldedStats& bucket : facts.summary.history.buckets()) {
      const v1::Range& all = (bucket.*range)();
      values.push_back(all.count() == 0 ? kNaN : largest ? all.maximum() : all.mean());
    }
    const Extremes extremes = FiniteExtremes(values);
    if (std::isnan(extremes.minimum)) return;
    style.log = log;
    style.keep_max = largest;
    rows.push_back({what, absl::StrCat("`", Sparkline(values, style), "`"),
                    FormatNumber(extremes.minimum), FormatNumber(extremes.maximum)});
  };
  add("loss (mean, logarithmic)", &v1::FoldedStats::loss, false, true);
  add("norm before clipping (largest, logarithmic)", &v1::FoldedStats::norm_before, true, true);
  add("norm after clipping (largest, logarithmic)", &v1::FoldedStats::norm_after, true, true);
  add("growth factor (mean)", &v1::FoldedStats::growth_factor, false, false);
  return rows.empty() ? "" : MarkdownTable({"", "first step to last", "lowest", "highest"}, rows);
}

std::string EvaluationsMarkdown(const v1::QueryStatsResponse& history) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::EvaluationResult& evaluation : history.evaluations()) {
    rows.push_back({absl::StrCat(evaluation.step()), FormatNumber(evaluation.loss()),
                    evaluation.has_accuracy()       ? FormatShare(evaluation.accuracy())
                    : evaluation.has_solved_share() ? FormatShare(evaluation.solved_share())
                                                    : "–"});
  }
  // Enough to see the course; the last one is always there.
  const size_t stride = rows.size() / 20 + 1;
  std::vector<std::vector<std::string>> shown;
  for (size_t i = 0; i < rows.size(); ++i) {
    if ((rows.size() - 1 - i) % stride == 0) shown.push_back(rows[i]);
  }
  return shown.empty() ? "" : MarkdownTable({"step", "held-out loss", "right"}, shown);
}

// The largest norm of each block of the grid.
std::string HeatMarkdown(const HeatGrid& grid) {
  const int columns = std::min(grid.columns(), kMapColumns);
  const int rows = std::min(grid.rows(), kMapRows);
  std::vector<std::string> titles = {"lag"};
  for (int c = 0; c < columns; ++c) {
    titles.push_back(absl::StrCat("steps ", grid.FirstStep(c * grid.columns() / columns), "–",
                                  grid.FirstStep((c + 1) * grid.columns() / columns) - 1));
  }
  std::vector<std::vector<std::string>> cells;
  for (int r = 0; r < rows; ++r) {
    const int row_begin = r * grid.rows() / rows;
    const int row_end = (r + 1) * grid.rows() / rows;
    std::vector<std::string> line = {
        absl::StrCat(row_begin * grid.lags_in_row(), "–", row_end * grid.lags_in_row() - 1)};
    for (int c = 0; c < columns; ++c) {
      double largest = kNaN;
      bool nonfinite = false;
      for (int column = c * grid.columns() / columns; column < (c + 1) * grid.columns() / columns;
           ++column) {
        for (int row = row_begin; row < row_end; ++row) {
          const HeatGrid::Cell& cell = grid.at(column, row);
          nonfinite = nonfinite || cell.nonfinite;
          if (cell.measured && !(largest >= cell.largest)) largest = cell.largest;
        }
      }
      line.push_back(nonfinite ? "not finite" : std::isnan(largest) ? "–" : FormatNumber(largest));
    }
    cells.push_back(std::move(line));
  }
  return MarkdownTable(titles, cells);
}

std::string TimeMarkdown(const RunFacts& facts) {
  std::string text;
  const std::vector<HeatGrid>& layers = facts.digest.layers();
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer].empty()) continue;
    absl::StrAppend(
        &text, "Largest norm of the gradient at the state",
        layers.size() > 1 ? absl::StrCat(" of layer ", layer) : "",
        ", by training step and lag (time steps back from the end of the sequence):\n\n",
        HeatMarkdown(layers[layer]));
  }
  if (const std::string absence = HeatMapAbsence(facts); !absence.empty()) {
    absl::StrAppend(&text, EscapeMarkdown(absence), "\n\n");
  }
  return text;
}

std::string DistributionMarkdown(const RunFacts& facts) {
  std::vector<NormBar> bars = LogBars(facts.digest.norms());
  if (bars.empty()) return "";
  // Neighbours are joined: a page of text has less room than a picture.
  constexpr size_t kRows = 16;
  const size_t joined = (bars.size() + kRows - 1) / kRows;
  std::vector<std::vector<std::string>> rows;
  int64_t most = 1;
  std::vector<NormBar> wide;
  for (size_t i = 0; i < bars.size(); ++i) {
    if (i % joined == 0) wide.push_back({bars[i].low, bars[i].high, 0, 0});
    wide.back().high = bars[i].high;
    wide.back().steps += bars[i].steps;
    wide.back().clipped += bars[i].clipped;
    most = std::max(most, wide.back().steps);
  }
  for (const NormBar& bar : wide) {
    const auto length = static_cast<size_t>((30 * bar.steps + most - 1) / most);
    std::string line;
    for (size_t i = 0; i < length; ++i) line += "█";
    rows.push_back({absl::StrCat(FormatNumber(bar.low), " to ", FormatNumber(bar.high)),
                    absl::StrCat(bar.steps), absl::StrCat(bar.clipped), line});
  }
  return MarkdownTable({"norm before clipping", "steps", "clipped", ""}, rows);
}

std::string RowsMarkdown(const std::vector<std::string>& titles,
                         std::vector<std::vector<std::string>> rows) {
  if (rows.empty()) return "";
  for (std::vector<std::string>& row : rows) {
    for (std::string& cell : row) cell = EscapeMarkdown(cell);
  }
  return MarkdownTable(titles, rows);
}

std::string ClippingMarkdown(const RunFacts& facts) {
  std::string text = absl::StrCat(FactsMarkdown(NormFacts(facts)), DistributionMarkdown(facts));
  if (facts.advice) {
    absl::StrAppend(&text, "### ", kAdviceTitle, "\n\n", FactsMarkdown(AdviceFacts(facts)),
                    RowsMarkdown(ThresholdTitles(), ThresholdRows(*facts.advice)));
  }
  if (const auto shadows = ShadowRows(facts); !shadows.empty()) {
    absl::StrAppend(&text, "### ", kShadowTitle, "\n\n", RowsMarkdown(ShadowTitles(), shadows));
  }
  return text;
}

// A curve in numbers: where it begins and ends, how far it goes, and its course.
std::vector<std::string> CurveMarkdown(const std::string& name, const Curve& curve, bool log) {
  ChartStyle style;
  style.width = 40;
  style.log = log;
  style.keep_max = false;
  std::vector<double> values;
  for (const CurvePoint& point : curve.points) values.push_back(point.middle);
  const Extremes extremes = FiniteExtremes(values);
  return {EscapeMarkdown(name),           FormatNumber(values.front()),
          FormatNumber(values.back()),    FormatNumber(extremes.minimum),
          FormatNumber(extremes.maximum), absl::StrCat("`", Sparkline(values, style), "`")};
}

std::string DetailMarkdown(const Detail& detail) {
  std::string text = absl::StrCat("### ", EscapeMarkdown(detail.title), "\n\n");
  absl::StrAppend(&text, EscapeMarkdown(detail.chart.y_title), ", by ",
                  EscapeMarkdown(detail.chart.x_title), ".");
  for (const LimitLine& limit : detail.chart.limits) {
    absl::StrAppend(&text, " ", EscapeMarkdown(limit.label), ": ", FormatNumber(limit.value), ".");
  }
  std::string caption = detail.caption;
  if (!caption.empty()) caption.insert(0, " ");
  absl::StrAppend(&text, EscapeMarkdown(caption), "\n\n");
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < detail.chart.curves.size(); ++i) {
    rows.push_back(CurveMarkdown(detail.names[i], detail.chart.curves[i], detail.chart.log));
  }
  return text + MarkdownTable({"", "first", "last", "lowest", "highest", "course"}, rows);
}

std::string CloserMarkdown(const RunFacts& facts) {
  std::string text;
  for (const Detail& detail : DetailsOf(facts)) text += DetailMarkdown(detail);
  return text.empty() ? "" : absl::StrCat("## ", kCloserTitle, "\n\n", text);
}

std::string AlertsMarkdown(const RunFacts& facts) {
  std::string text;
  int number = 0;
  for (const v1::Alert& alert : facts.summary.alerts) {
    absl::StrAppend(&text, "### ", ++number, ". ", EscapeMarkdown(alert.rule_name()), ", ",
                    SeverityName(alert.severity()), ", ", AlertStateName(alert.state()), "\n\n",
                    FactsMarkdown(AlertFacts(alert)));
  }
  return text.empty() ? "No rule raised an alert.\n\n" : text;
}

// A code block that ends where it should whatever is in it.
std::string CodeBlock(const std::string& text) {
  std::string fence = "```";
  while (text.find(fence) != std::string::npos) fence += "`";
  return absl::StrCat(fence, "json\n", absl::StripAsciiWhitespace(text), "\n", fence, "\n");
}

}  // namespace

std::string EscapeMarkdown(absl::string_view text) {
  std::string escaped;
  for (const char character : text) {
    if (character == '\n' || character == '\r' || character == '\t') {
      escaped += ' ';
      continue;
    }
    if (absl::string_view("\\`*_{}[]<>#|~&!").find(character) != absl::string_view::npos) {
      escaped += '\\';
    }
    const bool is_control = absl::ascii_iscntrl(static_cast<unsigned char>(character));
    if (is_control) {
      escaped += "\uFFFD";
    } else {
      escaped += character;
    }
  }
  return escaped;
}

std::string MarkdownReport(const RunFacts& facts) {
  const v1::Job& job = facts.summary.job;
  const RunVerdict verdict = JudgeRun(facts);
  const std::string title = job.display_name().empty() ? IdOf(job.name()) : job.display_name();
  std::string text = absl::StrCat("# ", EscapeMarkdown(title), "\n\n**",
                                  EscapeMarkdown(verdict.headline), "**\n\n");
  for (const std::string& sentence : verdict.sentences) {
    absl::StrAppend(&text, EscapeMarkdown(sentence), "\n");
  }
  absl::StrAppend(&text, "\n", FactsMarkdown(KeyFigures(facts)));
  if (!facts.summary.history.buckets().empty()) {
    absl::StrAppend(&text, "## Course of the run\n\n", SparklinesMarkdown(facts),
                    CourseMarkdown(facts), EvaluationsMarkdown(facts.summary.history));
    absl::StrAppend(&text, "## The gradient through time\n\n", TimeMarkdown(facts));
  }
  if (const std::string clipping = ClippingMarkdown(facts); !clipping.empty()) {
    absl::StrAppend(&text, "## Clipping\n\n", clipping);
  }
  text += CloserMarkdown(facts);
  absl::StrAppend(&text, "## Alerts\n\n", AlertsMarkdown(facts));
  const std::vector<Fact> interventions = InterventionFacts(facts);
  absl::StrAppend(
      &text, "## Interventions\n\n",
      interventions.empty() ? "Nothing changed the run.\n\n" : FactsMarkdown(interventions));
  absl::StrAppend(&text, "## Result\n\n", FactsMarkdown(ResultFacts(facts)));
  absl::StrAppend(&text, "## What ran\n\n", FactsMarkdown(SettingFacts(facts)));
  absl::StrAppend(&text, "## Parameters\n\n", FactsMarkdown(ParameterFacts(facts)));
  absl::StrAppend(&text, "## Where it comes from\n\n", FactsMarkdown(SourceFacts(facts)));
  absl::StrAppend(&text, "## Job file\n\n", CodeBlock(JobFileOf(job)));
  return text;
}

}  // namespace gradwatch::cli
