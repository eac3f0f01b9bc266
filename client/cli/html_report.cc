#include "client/cli/html_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/advise.h"
#include "client/cli/command.h"
#include "client/cli/describe.h"
#include "client/cli/figures.h"
#include "client/cli/svg.h"
#include "client/cli/verdict.h"

namespace gradwatch::cli {
namespace {

// Colours are those of Okabe and Ito, which the colour-blind can tell apart; where two meet in one
// picture, dashes, dots or lightness tell them apart too.
constexpr absl::string_view kStyle = R"css(
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 15px/1.5 system-ui, "Segoe UI", Roboto,
       "DejaVu Sans", "Liberation Sans", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 28px 30px 48px; }
h1, h2, h3, p, figure, dl { margin: 0; }
h1 { font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin-top: 40px; padding-bottom: 4px; border-bottom: 1px solid #ccc; }
h3 { font-size: 15px; }
h3.part { margin-top: 26px; break-after: avoid; }
.kicker { color: #555; font-size: 13px; letter-spacing: .04em; text-transform: uppercase; }
.task { color: #444; overflow-wrap: anywhere; }
.verdict { margin-top: 18px; padding: 14px 18px; border-left: 6px solid #0072b2;
           background: #f3f7fa; overflow-wrap: anywhere; }
.verdict.bad { border-color: #d55e00; background: #fcf4ee; }
.verdict.good { border-color: #009e73; background: #eff8f5; }
.verdict strong { display: block; font-size: 18px; line-height: 1.35; margin-bottom: 6px; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 10px;
           margin-top: 18px; }
.figures div { border: 1px solid #ddd; border-radius: 4px; padding: 7px 11px; }
.figures dt { color: #555; font-size: 12.5px; }
.figures dd { margin: 0; font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums;
              overflow-wrap: anywhere; }
figure { margin-top: 24px; break-inside: avoid; }
figcaption p { color: #444; font-size: 13.5px; margin-top: 2px; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 20px; list-style: none; margin: 4px 0 0;
        padding: 0; font-size: 13.5px; color: #333; }
.keys li { display: flex; align-items: center; gap: 7px; }
.keys svg { width: 26px; height: 12px; margin: 0; flex: none; }
table { border-collapse: collapse; margin-top: 14px; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0;
         border-bottom: 1px solid #e4e4e4; overflow-wrap: anywhere; }
th { font-weight: 600; width: 190px; color: #333; }
.quantiles th, .quantiles td { width: auto; text-align: right; font-variant-numeric: tabular-nums; }
.rows th, .rows td { width: auto; }
.rows th:nth-child(n + 2), .rows td:nth-child(n + 2) { text-align: right; }
.rows.named th:nth-child(2), .rows.named td:nth-child(2) { text-align: left; }
.alert { margin-top: 16px; break-inside: avoid; }
.alert table { margin-top: 4px; }
.alert th { width: 90px; font-weight: 400; color: #555; }
.number { display: inline-block; min-width: 22px; padding: 0 6px; margin-right: 8px; color: #fff;
          background: #6b4a00; border-radius: 11px; text-align: center; font-size: 13px; }
.number.critical { background: #a33c00; }
pre { margin: 14px 0 0; padding: 12px; background: #f6f6f6; font-size: 12.5px; line-height: 1.4;
      white-space: pre-wrap; overflow-wrap: anywhere; }
.note { margin-top: 14px; }
footer { margin-top: 36px; color: #555; font-size: 13px; }

svg text { font-size: 13px; fill: #333; }
svg .axis-title { fill: #1a1a1a; font-weight: 600; }
svg .axis { stroke: #555; stroke-width: 1; }
svg .grid { stroke: #e6e6e6; stroke-width: 1; }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .band { stroke: none; opacity: .22; }
svg .limit { stroke-width: 1.4; }
svg .limit.threshold { stroke: #000; stroke-dasharray: 7 4; }
svg .limit.chance { stroke: #555; stroke-dasharray: 2 4; }
svg .limit.even { stroke: #555; stroke-dasharray: 7 4; }
svg .limit.advised { stroke: #00724f; stroke-width: 2.4; }
svg .limit.alternative { stroke: #00724f; stroke-width: 2; stroke-dasharray: 2 4; }
svg .limit-label { fill: #1a1a1a; }
svg .loss { stroke: #0072b2; } svg .band.loss, svg .loss.point { fill: #0072b2; }
svg .before { stroke: #d55e00; } svg .band.before, svg .before.point { fill: #d55e00; }
svg .after { stroke: #0072b2; }
svg .band.after, svg .after.point { fill: #0072b2; }
svg .growth { stroke: #9a3f7b; } svg .band.growth, svg .growth.point { fill: #cc79a7; }
svg .curve.evaluated { stroke: #009e73; stroke-width: 1; }
svg .evaluated.point { fill: #009e73; stroke: none; }
svg .hue0 { stroke: #0072b2; } svg .band.hue0, svg .hue0.point { fill: #0072b2; }
svg .hue1 { stroke: #d55e00; } svg .hue1.point { fill: #d55e00; }
svg .hue2 { stroke: #009e73; } svg .hue2.point { fill: #009e73; }
svg .hue3 { stroke: #9a3f7b; } svg .hue3.point { fill: #9a3f7b; }
svg .curve.dashed { stroke-dasharray: 6 3; } svg .curve.dotted { stroke-dasharray: 2 3; }
svg .mark { stroke: #6b4a00; stroke-width: 1; stroke-dasharray: 3 3; }
svg .mark.critical { stroke: #a33c00; }
svg .pill { fill: #6b4a00; } svg .pill.critical { fill: #a33c00; }
svg .pill-label { fill: #fff; font-size: 12px; font-weight: 600; }
svg .track { fill: #f2f2f2; }
svg .crisp { shape-rendering: crispEdges; }
svg .clipped { fill: #0072b2; } svg .unclipped { fill: #e69f00; }
svg .changed { fill: #cc79a7; } svg .skipped { fill: #000; } svg .nonfinite { fill: #d55e00; }
svg .absent { fill: #e8e8e8; }

@page { size: A4; margin: 14mm; }
@media print {
  body { font-size: 11.5px; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  .figures { grid-template-columns: repeat(5, 1fr); }
  .figures dd { font-size: 13px; }
  figure { margin-top: 14px; }
  table, figcaption p, .keys { font-size: 10.5px; }
  th, td { padding: 2px 12px 2px 0; }
  tr { break-inside: avoid; }
  pre { columns: 2; font-size: 9.5px; }
}
)css";

std::string Swatch(const std::string& style) {
  const size_t blank = style.find(' ');
  const std::string kind = style.substr(0, blank);
  const std::string rest = style.substr(blank + 1);
  constexpr absl::string_view kOpen = "<svg viewBox=\"0 0 26 12\" aria-hidden=\"true\">";
  if (kind == "line") {
    return absl::StrCat(kOpen, "<line class=\"curve ", rest,
                        "\" x1=\"0\" y1=\"6\" x2=\"26\" y2=\"6\"/></svg>");
  }
  if (kind == "dot") {
    return absl::StrCat(kOpen, "<line class=\"curve ", rest,
                        "\" x1=\"0\" y1=\"6\" x2=\"26\" y2=\"6\"/><circle class=\"point ", rest,
                        "\" cx=\"13\" cy=\"6\" r=\"3\"/></svg>");
  }
  return absl::StrCat(kOpen, "<rect class=\"", rest,
                      "\" x=\"4\" y=\"0\" width=\"18\" height=\"12\"/></svg>");
}

std::string FigureHtml(const Figure& figure) {
  std::string html =
      absl::StrCat("<figure>\n<figcaption>\n<h3>", EscapeMarkup(figure.title), "</h3>\n");
  if (!figure.caption.empty()) {
    absl::StrAppend(&html, "<p>", EscapeMarkup(figure.caption), "</p>\n");
  }
  if (!figure.keys.empty()) {
    html += "<ul class=\"keys\">\n";
    for (const Figure::Key& key : figure.keys) {
      absl::StrAppend(&html, "<li>", Swatch(key.style), EscapeMarkup(key.text), "</li>\n");
    }
    html += "</ul>\n";
  }
  return absl::StrCat(html, "</figcaption>\n", figure.svg, "</figure>\n");
}

std::string FiguresHtml(const std::vector<Figure>& figures) {
  std::string html;
  for (const Figure& figure : figures) html += FigureHtml(figure);
  return html;
}

std::string FactTable(const std::vector<Fact>& facts) {
  std::string html = "<table>\n";
  for (const Fact& fact : facts) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">", EscapeMarkup(fact.name), "</th><td>",
                    EscapeMarkup(fact.value), "</td></tr>\n");
  }
  return absl::StrCat(html, "</table>\n");
}

std::string QuantileTable(const std::vector<Fact>& quantiles) {
  if (quantiles.empty()) return "";
  std::string names;
  std::string values;
  for (const Fact& fact : quantiles) {
    absl::StrAppend(&names, "<th scope=\"col\">", EscapeMarkup(fact.name), "</th>");
    absl::StrAppend(&values, "<td>", EscapeMarkup(fact.value), "</td>");
  }
  return absl::StrCat("<table class=\"quantiles\">\n<tr>", names, "</tr>\n<tr>", values,
                      "</tr>\n</table>\n");
}

// `style` is "rows", or "rows named" where the second column is words, too.
std::string RowTable(absl::string_view style, const std::vector<std::string>& titles,
                     const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  std::string html = absl::StrCat("<table class=\"", style, "\">\n<tr>");
  for (const std::string& title : titles) {
    absl::StrAppend(&html, "<th scope=\"col\">", EscapeMarkup(title), "</th>");
  }
  html += "</tr>\n";
  for (const std::vector<std::string>& row : rows) {
    html += "<tr>";
    for (const std::string& cell : row) absl::StrAppend(&html, "<td>", EscapeMarkup(cell), "</td>");
    html += "</tr>\n";
  }
  return absl::StrCat(html, "</table>\n");
}

std::string Heading(absl::string_view title) {
  return absl::StrCat("<h2>", EscapeMarkup(title), "</h2>\n");
}

std::string Note(absl::string_view text) {
  return text.empty() ? "" : absl::StrCat("<p class=\"note\">", EscapeMarkup(text), "</p>\n");
}

std::string VerdictHtml(const RunVerdict& verdict) {
  const absl::string_view tone = verdict.tone == RunVerdict::Tone::kGood  ? " good"
                                 : verdict.tone == RunVerdict::Tone::kBad ? " bad"
                                                                          : "";
  std::string html = absl::StrCat("<div class=\"verdict", tone, "\"><strong>",
                                  EscapeMarkup(verdict.headline), "</strong>\n<p>");
  for (const std::string& sentence : verdict.sentences) {
    absl::StrAppend(&html, EscapeMarkup(sentence), "\n");
  }
  return absl::StrCat(html, "</p></div>\n");
}

std::string KeyFigureHtml(const std::vector<Fact>& figures) {
  std::string html = "<dl class=\"figures\">\n";
  for (const Fact& figure : figures) {
    absl::StrAppend(&html, "<div><dt>", EscapeMarkup(figure.name), "</dt><dd>",
                    EscapeMarkup(figure.value), "</dd></div>\n");
  }
  return absl::StrCat(html, "</dl>\n");
}

std::string AlertsHtml(const RunFacts& facts) {
  std::string html;
  int number = 0;
  for (const v1::Alert& alert : facts.summary.alerts) {
    const bool critical = alert.severity() == v1::SEVERITY_CRIT;
    absl::StrAppend(&html, "<div class=\"alert\"><h3><span class=\"number",
                    critical ? " critical" : "", "\">", ++number, "</span>",
                    EscapeMarkup(alert.rule_name()), ", ",
                    EscapeMarkup(SeverityName(alert.severity())), ", ",
                    EscapeMarkup(AlertStateName(alert.state())), "</h3>\n",
                    FactTable(AlertFacts(alert)), "</div>\n");
  }
  if (number == 0) html = Note("No rule raised an alert.");
  return html;
}

std::string Subheading(absl::string_view title) {
  return absl::StrCat("<h3 class=\"part\">", EscapeMarkup(title), "</h3>\n");
}

std::string AdviceHtml(const RunFacts& facts) {
  if (!facts.advice) return "";
  return absl::StrCat(Subheading(kAdviceTitle), FactTable(AdviceFacts(facts)),
                      RowTable("rows named", ThresholdTitles(), ThresholdRows(*facts.advice)));
}

std::string ShadowsHtml(const RunFacts& facts) {
  const std::vector<std::vector<std::string>> rows = ShadowRows(facts);
  return rows.empty() ? "" : Subheading(kShadowTitle) + RowTable("rows", ShadowTitles(), rows);
}

std::string CloserHtml(const RunFacts& facts) {
  const std::string figures = FiguresHtml(CloserFigures(facts));
  return figures.empty() ? "" : Heading(kCloserTitle) + figures;
}

std::string InterventionsHtml(const RunFacts& facts) {
  const std::vector<Fact> rows = InterventionFacts(facts);
  return rows.empty() ? Note("Nothing changed the run.") : FactTable(rows);
}

std::string TitleOf(const v1::Job& job) {
  return job.display_name().empty() ? IdOf(job.name()) : job.display_name();
}

}  // namespace

std::string HtmlReport(const RunFacts& facts) {
  const v1::Job& job = facts.summary.job;
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      // The page asks for nothing, and nothing in it may ask.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
      "style-src 'unsafe-inline'\">\n<title>",
      EscapeMarkup(TitleOf(job)), " – gradwatch report</title>\n<style>", kStyle,
      "</style>\n</head>\n<body>\n<main>\n");
  absl::StrAppend(&html, "<p class=\"kicker\">gradwatch report</p>\n<h1>",
                  EscapeMarkup(TitleOf(job)), "</h1>\n<p class=\"task\">",
                  EscapeMarkup(absl::StrCat(
                      job.name(), ": ", DescribeTask(job.task()), ", ", DescribeModel(job.model()),
                      ", ", DescribeOptimizer(job.optimizer()), ", clip ", DescribeClipping(job))),
                  "</p>\n", VerdictHtml(JudgeRun(facts)), KeyFigureHtml(KeyFigures(facts)));
  absl::StrAppend(&html, Heading("Course of the run"), FiguresHtml(CourseFigures(facts)));
  absl::StrAppend(&html, Heading("The gradient through time"), Note(HeatMapAbsence(facts)),
                  FiguresHtml(TimeFigures(facts)));
  absl::StrAppend(&html, Heading("Clipping"), FiguresHtml(ClippingFigures(facts)),
                  QuantileTable(NormFacts(facts)), AdviceHtml(facts), ShadowsHtml(facts));
  html += CloserHtml(facts);
  absl::StrAppend(&html, Heading("Alerts"), AlertsHtml(facts));
  absl::StrAppend(&html, Heading("Interventions"), InterventionsHtml(facts));
  absl::StrAppend(&html, Heading("Result"), FactTable(ResultFacts(facts)));
  absl::StrAppend(&html, Heading("What ran"), FactTable(SettingFacts(facts)));
  absl::StrAppend(&html, Heading("Parameters"), FactTable(ParameterFacts(facts)));
  absl::StrAppend(&html, Heading("Where it comes from"), FactTable(SourceFacts(facts)));
  absl::StrAppend(&html, Heading("Job file"),
                  Note("gradwatch submit --file takes it and runs the same job again."), "<pre>",
                  EscapeMarkup(JobFileOf(job)), "</pre>\n</main>\n</body>\n</html>\n");
  return html;
}

}  // namespace gradwatch::cli
