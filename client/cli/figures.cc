#include "client/cli/figures.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/chart.h"
#include "client/cli/describe.h"
#include "client/cli/details.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

using Buckets = google::protobuf::RepeatedPtrField<v1::FoldedStats>;
// A little more, so that a line at 0 or 100 is not cut.
constexpr Interval kPercent{-2, 102};

double MiddleOf(const v1::FoldedStats& bucket) {
  return (static_cast<double>(bucket.first_step()) + static_cast<double>(bucket.last_step())) / 2;
}

// Values at the evaluations; `value` gives NaN where there is none.
Curve EvaluationCurve(const RunFacts& facts,
                      const std::function<double(const v1::EvaluationResult&)>& value) {
  Curve curve;
  curve.style = "evaluated";
  curve.band = false;
  curve.dots = true;
  for (const v1::EvaluationResult& evaluation : facts.summary.history.evaluations()) {
    const double at = value(evaluation);
    const bool measured = std::isfinite(at);
    if (measured) {
      curve.points.push_back({static_cast<double>(evaluation.step()), at, at, at});
    }
  }
  return curve;
}

// The alerts, numbered as in the list below the charts.
std::vector<Mark> AlertMarks(const RunFacts& facts) {
  std::vector<Mark> marks;
  for (const v1::Alert& alert : facts.summary.alerts) {
    const bool critical = alert.severity() == v1::SEVERITY_CRIT;
    marks.push_back({static_cast<double>(alert.firing_step()), static_cast<int>(marks.size()) + 1,
                     critical ? "critical" : "warning"});
  }
  return marks;
}

Track TrackOf(const RunFacts& facts, const std::string& label, const std::string& style,
              int64_t (v1::FoldedStats::*steps)() const) {
  Track track{label, style, {}};
  for (const v1::FoldedStats& bucket : facts.summary.history.buckets()) {
    if (bucket.count() == 0) continue;
    track.parts.push_back(
        {static_cast<double>(bucket.first_step()), static_cast<double>(bucket.last_step()),
         static_cast<double>((bucket.*steps)()) / static_cast<double>(bucket.count())});
  }
  return track;
}

// Where edits and the ladder changed the run; empty when nothing did.
std::vector<Track> InterventionTracks(const RunFacts& facts) {
  Track track{"changed", "changed", {}};
  bool any = false;
  for (const v1::FoldedStats& bucket : facts.summary.history.buckets()) {
    any = any || bucket.interventions_size() > 0;
    track.parts.push_back({static_cast<double>(bucket.first_step()),
                           static_cast<double>(bucket.last_step()),
                           bucket.interventions_size() > 0 ? 1.0 : 0.0});
  }
  return any ? std::vector<Track>{std::move(track)} : std::vector<Track>{};
}

// What happened in the steps, as far as something did.
std::vector<Track> EventTracks(const RunFacts& facts) {
  std::vector<Track> tracks;
  const auto add = [&](const char* label, const char* style,
                       int64_t (v1::FoldedStats::*steps)() const) {
    Track track = TrackOf(facts, label, style, steps);
    const bool any = std::any_of(track.parts.begin(), track.parts.end(),
                                 [](const Track::Part& part) { return part.share > 0; });
    if (any) tracks.push_back(std::move(track));
  };
  add("clipped", "clipped", &v1::FoldedStats::clipped_steps);
  add("skipped", "skipped", &v1::FoldedStats::skipped_steps);
  add("not finite", "nonfinite", &v1::FoldedStats::nonfinite_steps);
  for (Track& track : InterventionTracks(facts)) tracks.push_back(std::move(track));
  return tracks;
}

void AddFigure(Figure figure, std::vector<Figure>* figures) {
  if (!figure.svg.empty()) figures->push_back(std::move(figure));
}

std::string AlertCaption(const RunFacts& facts) {
  return facts.summary.alerts.empty() ? "" : " Numbers at the top are the alerts listed below.";
}

Figure LossFigure(const RunFacts& facts) {
  LineChart chart;
  chart.label = "Loss over the training steps";
  chart.y_title = "loss (logarithmic)";
  chart.log = true;
  chart.curves = {
      CurveOf(facts, "loss", &v1::FoldedStats::loss),
      EvaluationCurve(facts, [](const v1::EvaluationResult& result) { return result.loss(); })};
  if (const auto chance = ChanceLoss(facts.summary.job.task())) {
    chart.limits.push_back({*chance, "guessing", "chance"});
  }
  chart.marks = AlertMarks(facts);
  chart.tracks = InterventionTracks(facts);
  Figure figure{"Loss", DrawLineChart(chart, RecordedSteps(facts)), {}, ""};
  figure.keys.push_back({"line loss", "training batch: mean, smallest to largest tinted"});
  if (!chart.curves[1].points.empty()) {
    figure.keys.push_back({"dot evaluated", "held-out examples"});
  }
  if (!chart.limits.empty()) figure.keys.push_back({"line limit chance", "what guessing gives"});
  figure.caption = AlertCaption(facts);
  if (!chart.tracks.empty()) {
    figure.caption += " The strip below the plot says where the run was changed.";
  }
  return figure;
}

Figure RightFigure(const RunFacts& facts) {
  LineChart chart;
  chart.label = "Share of right answers on held-out examples";
  chart.y_title = "share of right answers, %";
  chart.span = kPercent;
  chart.curves = {EvaluationCurve(facts, [](const v1::EvaluationResult& result) {
    if (result.has_accuracy()) return 100 * result.accuracy();
    return result.has_solved_share() ? 100 * result.solved_share() : kNaN;
  })};
  return {"Right answers",
          DrawLineChart(chart, RecordedSteps(facts)),
          {{"dot evaluated", "held-out examples"}},
          ""};
}

Figure NormFigure(const RunFacts& facts) {
  LineChart chart;
  chart.label = "Norm of the gradient before and after clipping";
  chart.y_title = "L2 norm of the gradient over all parameters (logarithmic)";
  chart.log = true;
  const bool clips = facts.summary.job.clip_rate() > 0;
  chart.curves = {CurveOf(facts, "before", &v1::FoldedStats::norm_before)};
  if (clips) chart.curves.push_back(CurveOf(facts, "after", &v1::FoldedStats::norm_after));
  for (const double threshold : ClipThresholds(facts.summary.job)) {
    chart.limits.push_back(
        {threshold, absl::StrCat("clip ", FormatNumber(threshold)), "threshold"});
  }
  chart.marks = AlertMarks(facts);
  chart.tracks = EventTracks(facts);
  Figure figure{"Gradient norm", DrawLineChart(chart, RecordedSteps(facts)), {}, ""};
  figure.keys.push_back({"line before", "before clipping: mean, smallest to largest tinted"});
  if (clips) figure.keys.push_back({"line after", "after clipping"});
  if (!chart.limits.empty()) {
    figure.keys.push_back({"line limit threshold", "clip threshold at the end of the run"});
  }
  if (!chart.tracks.empty()) {
    figure.caption =
        "The strips below the plot say in which steps it happened: the darker, the larger the "
        "share of steps.";
  }
  figure.caption += AlertCaption(facts);
  return figure;
}

std::vector<Figure> HeatFigures(const RunFacts& facts) {
  std::vector<Figure> figures;
  const std::vector<HeatGrid>& layers = facts.digest.layers();
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const std::string of =
        layers.size() > 1 ? absl::StrCat(", layer ", layer, " of ", layers.size()) : "";
    Figure figure;
    figure.title = absl::StrCat("Gradient at the state, by training step and lag", of);
    figure.svg = DrawHeatMap(layers[layer], figure.title);
    figure.caption =
        "Each cell is the largest norm of the loss's gradient at the hidden state, so many time "
        "steps before the end of the sequence. Dark upwards: it vanishes on its way back; bright "
        "upwards: it explodes. The colours span at most 30 decades.";
    if (facts.digest.loss_at_every_step()) {
      figure.caption +=
          " The loss is taken at every time step, so fresh gradient enters at every lag and hides "
          "how the old one fades; the growth factor below leaves it out.";
    }
    bool nonfinite = false;
    bool absent = false;
    for (int column = 0; column < layers[layer].columns(); ++column) {
      for (int row = 0; row < layers[layer].rows(); ++row) {
        nonfinite = nonfinite || layers[layer].at(column, row).nonfinite;
        absent = absent || !layers[layer].at(column, row).measured;
      }
    }
    if (nonfinite) figure.keys.push_back({"box nonfinite", "not finite"});
    if (absent) figure.keys.push_back({"box absent", "not measured"});
    AddFigure(std::move(figure), &figures);
  }
  return figures;
}

Figure GrowthFigure(const RunFacts& facts) {
  LineChart chart;
  chart.label = "Growth factor of the gradient through time";
  chart.y_title = "growth factor per time step back";
  chart.curves = {CurveOf(facts, "growth", &v1::FoldedStats::growth_factor)};
  chart.limits = {{1, "keeps size", "even"}};
  chart.marks = AlertMarks(facts);
  return {"Growth factor",
          DrawLineChart(chart, RecordedSteps(facts)),
          {{"line growth", "mean, smallest to largest tinted"},
           {"line limit even", "1: above it the gradient grows on its way back, below it fades"}},
          ""};
}

Figure HorizonFigure(const RunFacts& facts) {
  const int window = facts.digest.window();
  Curve curve = CurveOf(facts, "growth", &v1::FoldedStats::growth_factor);
  for (CurvePoint& point : curve.points) {
    point.low = HorizonOf(point.low, window);
    point.middle = HorizonOf(point.middle, window);
    point.high = HorizonOf(point.high, window);
  }
  LineChart chart;
  chart.label = "Horizon of the gradient";
  chart.y_title = "time steps until 1/e of the gradient is left (logarithmic)";
  chart.log = true;
  chart.curves = {std::move(curve)};
  chart.limits = {{static_cast<double>(window), absl::StrCat("≥ ", window), "even"}};
  return {"Horizon",
          DrawLineChart(chart, RecordedSteps(facts)),
          {{"line growth", "from the mean growth factor, smallest to largest tinted"},
           {"line limit even", "as long as the gradient goes back, or longer"}},
          ""};
}

// Shares of 1 in per cent.
Curve ShareCurve(const std::string& style, const std::vector<Track::Part>& parts) {
  Curve curve;
  curve.style = style;
  curve.band = false;
  for (const Track::Part& part : parts) {
    const double share = 100 * part.share;
    curve.points.push_back({(part.first + part.last) / 2, share, share, share});
  }
  return curve;
}

// The share of steps that a shadow clip would have clipped, bucket by bucket.
Curve ShadowCurve(const RunFacts& facts, int shadow) {
  std::vector<Track::Part> parts;
  for (const v1::FoldedStats& bucket : facts.summary.history.buckets()) {
    if (bucket.count() == 0 || shadow >= bucket.shadow_clipped_steps_size()) continue;
    parts.push_back({static_cast<double>(bucket.first_step()),
                     static_cast<double>(bucket.last_step()),
                     static_cast<double>(bucket.shadow_clipped_steps(shadow)) /
                         static_cast<double>(bucket.count())});
  }
  // The first colour is that of the job's own clipping.
  Curve curve = ShareCurve(CurveHue(static_cast<size_t>(shadow) + 1), parts);
  curve.label = absl::StrCat("shadow ", shadow + 1);
  return curve;
}

Figure ClipRateFigure(const RunFacts& facts) {
  LineChart chart;
  chart.label = "Share of clipped steps";
  chart.y_title = "clipped steps, %";
  chart.span = kPercent;
  chart.curves = {
      ShareCurve("after", TrackOf(facts, "", "", &v1::FoldedStats::clipped_steps).parts)};
  Figure figure{"Clip rate", "", {}, ""};
  figure.keys = {{"line after", "share of the steps in which clipping changed the gradient"}};
  const v1::Job& job = facts.summary.job;
  for (int i = 0; i < job.shadow_clips_size(); ++i) {
    chart.curves.push_back(ShadowCurve(facts, i));
    figure.keys.push_back(
        {absl::StrCat("line ", chart.curves.back().style),
         absl::StrCat("shadow ", i + 1, ": ", DescribePolicy(job.shadow_clips(i)))});
  }
  if (job.shadow_clips_size() > 0) {
    chart.curves.front().label = "the job";
    figure.caption = "Shadow clips are measured and change nothing.";
  }
  figure.svg = DrawLineChart(chart, RecordedSteps(facts));
  return figure;
}

// What the advice names, for the picture of the norms.
void AddAdviceLimits(const v1::ClipAdvice& advice, std::vector<LimitLine>* limits, Figure* figure) {
  const double advised = advice.recommended().max_norm();
  limits->push_back({advised, absl::StrCat("advised ", FormatNumber(advised)), "advised"});
  figure->keys.push_back({"line limit advised", "advised threshold"});
  if (!advice.has_alternative()) return;
  const double other = advice.alternative().max_norm();
  limits->push_back({other, absl::StrCat("or ", FormatNumber(other)), "alternative"});
  figure->keys.push_back({"line limit alternative", "the other one worth a try"});
}

Figure DistributionFigure(const RunFacts& facts) {
  std::vector<LimitLine> limits;
  for (const double threshold : ClipThresholds(facts.summary.job)) {
    limits.push_back({threshold, absl::StrCat("clip ", FormatNumber(threshold)), "threshold"});
  }
  Figure figure;
  figure.title = "Distribution of the norm before clipping";
  figure.keys = {{"box unclipped", "not clipped"}, {"box clipped", "clipped"}};
  if (!limits.empty()) {
    figure.keys.push_back({"line limit threshold", "clip threshold at the end of the run"});
  }
  if (facts.advice) AddAdviceLimits(*facts.advice, &limits, &figure);
  figure.svg = DrawHistogram(LogBars(facts.digest.norms()), limits, figure.title);
  const auto not_shown = std::count_if(facts.digest.norms().begin(), facts.digest.norms().end(),
                                       [](const NormSample& sample) { return !(sample.norm > 0); });
  if (facts.advice && facts.advice->has_window()) {
    const v1::NormDistribution& window = facts.advice->window();
    figure.caption = absl::StrCat("All recorded steps; the advice comes from steps ",
                                  window.first_step(), " to ", window.last_step(), ".");
  }
  if (not_shown > 0) {
    absl::StrAppend(&figure.caption, " ", not_shown, " steps with a norm of 0 are not shown.");
  }
  return figure;
}

}  // namespace

Interval RecordedSteps(const RunFacts& facts) {
  const Buckets& buckets = facts.summary.history.buckets();
  return {static_cast<double>(buckets.begin()->first_step()) - 0.5,
          static_cast<double>(buckets.rbegin()->last_step()) + 0.5};
}

Curve CurveOf(const RunFacts& facts, const std::string& style,
              const v1::Range& (v1::FoldedStats::*range)() const) {
  Curve curve;
  curve.style = style;
  for (const v1::FoldedStats& bucket : facts.summary.history.buckets()) {
    const v1::Range& values = (bucket.*range)();
    const double step = MiddleOf(bucket);
    if (values.count() > 0) {
      curve.points.push_back({step, values.minimum(), values.mean(), values.maximum()});
    } else if (bucket.nonfinite_steps() > 0 || bucket.skipped_steps() > 0) {
      curve.points.push_back({step, kNaN, kNaN, kNaN});
    }
  }
  return curve;
}

std::vector<Figure> CourseFigures(const RunFacts& facts) {
  std::vector<Figure> figures;
  if (facts.summary.history.buckets().empty()) return figures;
  AddFigure(LossFigure(facts), &figures);
  AddFigure(RightFigure(facts), &figures);
  AddFigure(NormFigure(facts), &figures);
  return figures;
}

std::vector<Figure> TimeFigures(const RunFacts& facts) {
  std::vector<Figure> figures;
  if (facts.summary.history.buckets().empty()) return figures;
  figures = HeatFigures(facts);
  AddFigure(GrowthFigure(facts), &figures);
  AddFigure(HorizonFigure(facts), &figures);
  return figures;
}

std::vector<Figure> ClippingFigures(const RunFacts& facts) {
  std::vector<Figure> figures;
  if (facts.summary.history.buckets().empty()) return figures;
  const v1::Job& job = facts.summary.job;
  const bool clips = job.clip_rate() > 0 || job.shadow_clips_size() > 0;
  if (clips) AddFigure(ClipRateFigure(facts), &figures);
  AddFigure(DistributionFigure(facts), &figures);
  return figures;
}

std::vector<Figure> CloserFigures(const RunFacts& facts) {
  std::vector<Figure> figures;
  for (const Detail& detail : DetailsOf(facts)) {
    Figure figure{detail.title, DrawLineChart(detail.chart, detail.span), {}, detail.caption};
    for (const auto& [style, text] : detail.keys) figure.keys.push_back({style, text});
    AddFigure(std::move(figure), &figures);
  }
  return figures;
}

}  // namespace gradwatch::cli
