#include "client/cli/report.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

constexpr size_t kLabelColumns = 11;

void AddToRange(double minimum, double maximum, double mean, double last, int64_t count,
                v1::Range* range) {
  if (count == 0) return;
  if (range->count() == 0) {
    range->set_minimum(minimum);
    range->set_maximum(maximum);
  } else {
    range->set_minimum(std::min(range->minimum(), minimum));
    range->set_maximum(std::max(range->maximum(), maximum));
  }
  const int64_t total = range->count() + count;
  const double share = static_cast<double>(count) / static_cast<double>(total);
  range->set_mean(range->mean() + (mean - range->mean()) * share);
  range->set_last(last);
  range->set_count(total);
}

void AddValue(double value, v1::Range* range) {
  if (std::isfinite(value)) AddToRange(value, value, value, value, 1, range);
}

void AddRange(const v1::Range& later, v1::Range* range) {
  AddToRange(later.minimum(), later.maximum(), later.mean(), later.last(), later.count(), range);
}

void AddToShadow(int shadow, int64_t clipped, v1::FoldedStats* bucket) {
  while (bucket->shadow_clipped_steps_size() <= shadow) bucket->add_shadow_clipped_steps(0);
  bucket->set_shadow_clipped_steps(shadow, bucket->shadow_clipped_steps(shadow) + clipped);
}

// The share of the steps that each shadow clip would have clipped.
std::vector<double> ShadowRatesOf(const v1::FoldedStats& steps) {
  std::vector<double> rates;
  for (const int64_t clipped : steps.shadow_clipped_steps()) {
    rates.push_back(static_cast<double>(clipped) / static_cast<double>(steps.count()));
  }
  return rates;
}

// Absent ("-") when nothing was measured, "NaN" when something was and nothing of it is finite.
std::string Cell(const v1::Range& range, double value, const v1::FoldedStats& steps) {
  if (range.count() > 0) return FormatNumber(value);
  return steps.nonfinite_steps() > 0 ? "NaN" : "-";
}

std::vector<double> Series(const v1::QueryStatsResponse& history,
                           const v1::Range& (v1::FoldedStats::*range)() const, bool largest) {
  std::vector<double> series;
  for (const v1::FoldedStats& bucket : history.buckets()) {
    const v1::Range& values = (bucket.*range)();
    series.push_back(values.count() == 0 ? kNaN : largest ? values.maximum() : values.mean());
  }
  return series;
}

bool AnyFinite(const std::vector<double>& values) {
  return std::any_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

// A chart under its title, with the highest and the lowest value at its left; logarithmic when the
// values lie so far apart that the small ones would not be seen.
void AppendChart(absl::string_view title, const std::vector<double>& series, ChartStyle chart,
                 std::string* text) {
  if (!AnyFinite(series)) return;
  const Extremes extremes = FiniteExtremes(series);
  constexpr double kFarApart = 100;
  chart.log =
      chart.log || (extremes.minimum > 0 && extremes.maximum > kFarApart * extremes.minimum);
  const absl::string_view bar = chart.unicode ? "┤" : "|";
  const std::vector<std::string> rows = ChartRows(series, chart);
  absl::StrAppend(text, title, chart.log ? ", logarithmic" : "", "\n");
  for (size_t row = 0; row < rows.size(); ++row) {
    std::string label;
    if (row == 0) label = FormatNumber(extremes.maximum);
    if (row + 1 == rows.size() && extremes.minimum < extremes.maximum) {
      label = FormatNumber(extremes.minimum);
    }
    label.insert(0, kLabelColumns - std::min(kLabelColumns, label.size()), ' ');
    std::string line = absl::StrCat(label, " ", bar, rows[row]);
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(text, line, "\n");
  }
}

// For each bucket the newest accuracy until its end; empty for a task that has none.
std::vector<double> Accuracies(const v1::QueryStatsResponse& history) {
  std::vector<double> series;
  bool any = false;
  for (const Report& report : ReportsOf(history)) {
    const bool has = report.evaluation && report.evaluation->has_accuracy();
    series.push_back(has ? report.evaluation->accuracy() : kNaN);
    any = any || has;
  }
  return any ? series : std::vector<double>();
}

std::string EvaluationCell(const std::optional<v1::EvaluationResult>& evaluation) {
  if (!evaluation.has_value()) return "-";
  if (evaluation->has_accuracy()) return FormatShare(evaluation->accuracy());
  if (evaluation->has_solved_share()) return FormatShare(evaluation->solved_share());
  return FormatNumber(evaluation->loss());
}

// Pads by what a terminal shows, which absl::StrFormat does not know of UTF-8.
std::string Right(absl::string_view text, size_t width) {
  const size_t shown = DisplayWidth(text);
  return absl::StrCat(std::string(width > shown ? width - shown : 0, ' '), text);
}

struct Cells {
  std::string step, loss, before, after, clipped, growth, evaluated, rate;
};

std::string Row(const Cells& cells, bool unicode, bool is_header) {
  const absl::string_view arrow = unicode ? " → " : " -> ";
  std::string after = cells.after;
  if (!is_header) after.resize(std::max<size_t>(after.size(), 9), ' ');
  return absl::StrCat(Right(cells.step, 9), Right(cells.loss, 12), Right(cells.before, 13), arrow,
                      after, Right(cells.clipped, 9), Right(cells.growth, 9),
                      Right(cells.evaluated, 11), Right(cells.rate, 9));
}

}  // namespace

void AddStep(const v1::StepStats& step, v1::FoldedStats* bucket) {
  if (bucket->count() == 0) bucket->set_first_step(step.step());
  bucket->set_last_step(step.step());
  bucket->set_count(bucket->count() + 1);
  AddValue(step.loss(), bucket->mutable_loss());
  AddValue(step.norm_before(), bucket->mutable_norm_before());
  if (step.has_norm_after()) AddValue(step.norm_after(), bucket->mutable_norm_after());
  if (step.has_growth()) {
    AddValue(step.growth().growth_factor(), bucket->mutable_growth_factor());
  }
  if (step.has_update_ratio()) AddValue(step.update_ratio(), bucket->mutable_update_ratio());
  if (step.has_gradient_cosine()) {
    AddValue(step.gradient_cosine(), bucket->mutable_gradient_cosine());
  }
  if (step.has_distance_ratio()) AddValue(step.distance_ratio(), bucket->mutable_distance_ratio());
  if (step.clipped()) bucket->set_clipped_steps(bucket->clipped_steps() + 1);
  if (step.skipped()) bucket->set_skipped_steps(bucket->skipped_steps() + 1);
  for (int i = 0; i < step.shadow_reports_size(); ++i) {
    AddToShadow(i, step.shadow_reports(i).clipped() ? 1 : 0, bucket);
  }
  const bool finite = std::isfinite(step.loss()) && std::isfinite(step.norm_before()) &&
                      step.nonfinite_count() == 0 && !step.has_nonfinite_origin();
  if (!finite) bucket->set_nonfinite_steps(bucket->nonfinite_steps() + 1);
}

void AddBucket(const v1::FoldedStats& later, v1::FoldedStats* bucket) {
  if (later.count() == 0) return;
  if (bucket->count() == 0) bucket->set_first_step(later.first_step());
  bucket->set_last_step(later.last_step());
  bucket->set_count(bucket->count() + later.count());
  AddRange(later.loss(), bucket->mutable_loss());
  AddRange(later.norm_before(), bucket->mutable_norm_before());
  AddRange(later.norm_after(), bucket->mutable_norm_after());
  AddRange(later.growth_factor(), bucket->mutable_growth_factor());
  AddRange(later.update_ratio(), bucket->mutable_update_ratio());
  AddRange(later.gradient_cosine(), bucket->mutable_gradient_cosine());
  AddRange(later.distance_ratio(), bucket->mutable_distance_ratio());
  bucket->set_clipped_steps(bucket->clipped_steps() + later.clipped_steps());
  bucket->set_skipped_steps(bucket->skipped_steps() + later.skipped_steps());
  bucket->set_nonfinite_steps(bucket->nonfinite_steps() + later.nonfinite_steps());
  for (int i = 0; i < later.shadow_clipped_steps_size(); ++i) {
    AddToShadow(i, later.shadow_clipped_steps(i), bucket);
  }
}

std::optional<Report> ReportMaker::Add(const v1::StreamStatsResponse& message) {
  Report report;
  AddBucket(message.folded(), &report.steps);
  for (const v1::StepStats& step : message.steps()) {
    AddStep(step, &report.steps);
    if (step.has_evaluation()) evaluation_ = step.evaluation();
  }
  if (report.steps.count() == 0) return std::nullopt;
  report.evaluation = evaluation_;
  if (message.steps_size() > 0) {
    const v1::StepStats& newest = *message.steps().rbegin();
    const absl::Time time = FromProto(newest.time());
    const double seconds = absl::ToDoubleSeconds(time - last_time_);
    if (last_step_ >= 0 && seconds > 0) {
      report.steps_per_second = static_cast<double>(newest.step() - last_step_) / seconds;
    }
    last_step_ = newest.step();
    last_time_ = time;
  }
  return report;
}

std::vector<Report> ReportsOf(const v1::QueryStatsResponse& history) {
  std::vector<Report> reports;
  auto evaluation = history.evaluations().begin();
  std::optional<v1::EvaluationResult> newest;
  for (const v1::FoldedStats& bucket : history.buckets()) {
    while (evaluation != history.evaluations().end() && evaluation->step() <= bucket.last_step()) {
      newest = *evaluation++;
    }
    reports.push_back({bucket, newest, std::nullopt});
  }
  return reports;
}

std::string ReportHeader(bool unicode) {
  return Row(
      {"step", "loss", "norm before", "after    ", "clipped", "growth", "evaluated", "steps/s"},
      unicode, true);
}

std::string ReportLine(const Report& report, bool unicode) {
  const v1::FoldedStats& steps = report.steps;
  const double clipped = steps.count() == 0 ? 0
                                            : static_cast<double>(steps.clipped_steps()) /
                                                  static_cast<double>(steps.count());
  std::string line =
      Row({absl::StrCat(steps.last_step()), Cell(steps.loss(), steps.loss().mean(), steps),
           Cell(steps.norm_before(), steps.norm_before().maximum(), steps),
           Cell(steps.norm_after(), steps.norm_after().maximum(), steps), FormatShare(clipped),
           Cell(steps.growth_factor(), steps.growth_factor().mean(), steps),
           EvaluationCell(report.evaluation),
           report.steps_per_second ? absl::StrFormat("%.0f", *report.steps_per_second) : "-"},
          unicode, false);
  if (steps.nonfinite_steps() > 0) {
    absl::StrAppend(&line, "  ", steps.nonfinite_steps(), " not finite");
  }
  if (steps.skipped_steps() > 0) absl::StrAppend(&line, ", ", steps.skipped_steps(), " skipped");
  return line;
}

std::string Timeline(const v1::QueryStatsResponse& history, const TimelineStyle& style) {
  if (history.buckets().empty()) return "";
  ChartStyle chart;
  chart.unicode = style.unicode;
  chart.width = std::clamp<size_t>(style.columns, 40, 110) - kLabelColumns - 4;
  chart.width = std::min(chart.width, static_cast<size_t>(history.buckets_size()));
  chart.height = 4;
  chart.keep_max = false;
  std::string text;
  AppendChart("loss (mean)", Series(history, &v1::FoldedStats::loss, false), chart, &text);
  chart.keep_max = true;
  chart.log = true;
  AppendChart("gradient norm before clipping (largest)",
              Series(history, &v1::FoldedStats::norm_before, true), chart, &text);
  chart.keep_max = false;
  chart.log = false;
  AppendChart("growth factor through time (mean; above 1 the gradient grows, below 1 it fades)",
              Series(history, &v1::FoldedStats::growth_factor, false), chart, &text);
  chart.height = 2;
  AppendChart("cosine of successive gradients (mean; below -0.3 the step is too large)",
              Series(history, &v1::FoldedStats::gradient_cosine, false), chart, &text);
  AppendChart("distance of the weights from the first / their norm (mean)",
              Series(history, &v1::FoldedStats::distance_ratio, false), chart, &text);
  AppendChart("accuracy of the evaluations", Accuracies(history), chart, &text);
  const std::string first = absl::StrCat("step ", history.buckets(0).first_step());
  const std::string last = absl::StrCat(history.buckets().rbegin()->last_step());
  const size_t room =
      chart.width > first.size() + last.size() ? chart.width - first.size() - last.size() : 1;
  absl::StrAppend(&text, std::string(kLabelColumns + 2, ' '), first, std::string(room, ' '), last,
                  "\n");
  return text;
}

std::vector<std::string> LiveView(const v1::Job& job, const std::vector<Report>& reports,
                                  const TimelineStyle& style) {
  std::vector<std::string> lines;
  if (reports.empty()) {
    return {absl::StrCat(job.name(), " ", StateName(job.state()))};
  }
  const Report& newest = reports.back();
  const v1::FoldedStats& steps = newest.steps;
  std::string head =
      absl::StrCat(job.name(), "  ", DescribeModel(job.model()), "  clip ", DescribeClipping(job),
                   "  step ", steps.last_step(), " of ", job.training().step_limit());
  if (newest.steps_per_second && *newest.steps_per_second > 0) {
    const double left = static_cast<double>(job.training().step_limit() - steps.last_step());
    absl::StrAppend(&head, "  ", absl::StrFormat("%.0f", *newest.steps_per_second), " steps/s, ",
                    FormatElapsed(absl::Seconds(left / *newest.steps_per_second)), " left");
  }
  lines.push_back(head);
  ChartStyle chart;
  chart.unicode = style.unicode;
  constexpr size_t kBeside = 36;
  chart.width = std::clamp<size_t>(style.columns > kBeside ? style.columns - kBeside : 10, 10, 100);
  const auto series = [&reports](const v1::Range& (v1::FoldedStats::*range)() const, bool largest) {
    std::vector<double> values;
    for (const Report& report : reports) {
      const v1::Range& all = (report.steps.*range)();
      values.push_back(all.count() == 0 ? kNaN : largest ? all.maximum() : all.mean());
    }
    return values;
  };
  const auto add = [&](absl::string_view label, const std::string& value,
                       const std::vector<double>& values, bool log) {
    chart.log = log;
    chart.keep_max = log;
    lines.push_back(absl::StrFormat("%-9s", label) + Right(value, 22) + "  " +
                    Sparkline(values, chart));
  };
  const absl::string_view arrow = style.unicode ? " → " : " -> ";
  add("loss", Cell(steps.loss(), steps.loss().mean(), steps), series(&v1::FoldedStats::loss, false),
      false);
  add("norm",
      absl::StrCat(Cell(steps.norm_before(), steps.norm_before().maximum(), steps), arrow,
                   Cell(steps.norm_after(), steps.norm_after().maximum(), steps)),
      series(&v1::FoldedStats::norm_before, true), true);
  add("growth", Cell(steps.growth_factor(), steps.growth_factor().mean(), steps),
      series(&v1::FoldedStats::growth_factor, false), false);
  const double clipped =
      static_cast<double>(steps.clipped_steps()) / static_cast<double>(steps.count());
  std::string rest = absl::StrCat("clipped  ", Right(FormatShare(clipped), 22));
  if (newest.evaluation) {
    absl::StrAppend(&rest, "  ",
                    newest.evaluation->has_accuracy()       ? "accuracy "
                    : newest.evaluation->has_solved_share() ? "solved "
                                                            : "evaluated loss ",
                    EvaluationCell(newest.evaluation));
  }
  if (steps.nonfinite_steps() > 0) {
    absl::StrAppend(&rest, "  ", steps.nonfinite_steps(), " steps not finite");
  }
  lines.push_back(rest);
  if (const auto rates = ShadowRatesOf(steps); !rates.empty()) {
    lines.push_back(absl::StrCat("shadow clips would have clipped ", DescribeShadows(job, rates)));
  }
  return lines;
}

std::string OutcomeLine(const v1::Job& job) {
  std::string text = absl::StrCat(job.name(), " ", StateName(job.state()), " ",
                                  IsFinal(job.state()) ? "after " : "at step ", job.step(),
                                  IsFinal(job.state()) ? " steps" : "");
  if (job.has_start_time() && job.has_end_time()) {
    absl::StrAppend(&text, " in ",
                    FormatElapsed(FromProto(job.end_time()) - FromProto(job.start_time())));
  }
  if (job.has_latest_stats()) {
    absl::StrAppend(&text, ": loss ", FormatNumber(job.latest_stats().loss()), ", clipped ",
                    FormatShare(job.clip_rate()));
  }
  if (job.nonfinite_steps() > 0) {
    absl::StrAppend(&text, ", ", job.nonfinite_steps(), " steps not finite");
  }
  if (job.has_latest_evaluation()) {
    absl::StrAppend(&text, ", evaluated: loss ", FormatNumber(job.latest_evaluation().loss()));
    if (job.latest_evaluation().has_accuracy()) {
      absl::StrAppend(&text, ", accuracy ", FormatShare(job.latest_evaluation().accuracy()));
    }
  }
  if (job.alerts_firing() > 0) {
    absl::StrAppend(&text, ", ", job.alerts_firing(),
                    job.alerts_firing() == 1 ? " alert firing" : " alerts firing");
  }
  if (job.shadow_summaries_size() > 0) {
    absl::StrAppend(&text, "\n  shadow clips would have clipped ",
                    DescribeShadows(job, ShadowRates(job)));
  }
  if (job.has_failure()) absl::StrAppend(&text, "\n  ", DescribeFailure(job.failure()));
  return text;
}

}  // namespace gradwatch::cli
