#include "client/cli/details.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/cli/figures.h"
#include "client/cli/scale.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

constexpr size_t kLayersShown = 4;
constexpr double kDetailHeight = 150;
// A little more than 0 to 1, so that a line at the end is not cut.
constexpr Interval kShareSpan{-0.02, 1.02};
constexpr Interval kCosineSpan{-1.04, 1.04};
// Points up to which each measurement gets a dot.
constexpr size_t kDotsMax = 30;

constexpr absl::string_view kDashed = " dashed";

struct GateWords {
  absl::string_view letter;
  absl::string_view name;
};

// In PyTorch's order; empty for a plain cell.
std::vector<GateWords> GatesOf(v1::Model::Cell cell) {
  switch (cell) {
    case v1::Model::CELL_GRU:
      return {{"r", "reset gate r"}, {"z", "update gate z"}, {"n", "candidate n"}};
    case v1::Model::CELL_LSTM:
    case v1::Model::CELL_UNSPECIFIED:
      return {{"i", "input gate i"},
              {"f", "forget gate f"},
              {"g", "candidate g"},
              {"o", "output gate o"}};
    default:
      return {};
  }
}

std::string GateLetter(v1::Model::Cell cell, size_t gate) {
  const std::vector<GateWords> words = GatesOf(cell);
  return gate < words.size() ? std::string(words[gate].letter) : "";
}

Detail NewDetail(const RunFacts& facts, const std::string& title, const std::string& y_title) {
  Detail detail;
  detail.title = title;
  detail.chart.label = title;
  detail.chart.y_title = y_title;
  detail.chart.height = kDetailHeight;
  detail.span = RecordedSteps(facts);
  return detail;
}

void AddCurve(const std::string& style, const std::string& label, const std::string& name,
              std::vector<CurvePoint> points, Detail* detail) {
  if (points.empty()) return;
  Curve curve;
  curve.style = style;
  curve.band = false;
  curve.dots = points.size() <= kDotsMax && !absl::StrContains(style, kDashed);
  curve.label = label;
  curve.points = std::move(points);
  detail->chart.curves.push_back(std::move(curve));
  detail->names.push_back(name);
}

void AddLimit(double value, const std::string& label, const std::string& meaning, Detail* detail) {
  detail->chart.limits.push_back({value, label, "even"});
  detail->keys.emplace_back("line limit even", meaning);
}

void KeepIfAny(Detail detail, std::vector<Detail>* details) {
  if (!detail.chart.curves.empty()) details->push_back(std::move(detail));
}

// "layer 1, " where there are several.
std::string LayerPrefix(size_t layers, size_t layer) {
  return layers > 1 ? absl::StrCat("layer ", layer, ", ") : "";
}

// The layers of which something is shown, and what to say of the others.
size_t ShownLayers(size_t layers, std::string* caption) {
  if (layers > kLayersShown) {
    absl::StrAppend(caption, " Layers ", kLayersShown, " and up are not shown.");
  }
  return std::min(layers, kLayersShown);
}

void AddGateKeys(v1::Model::Cell cell, size_t gates, Detail* detail) {
  if (gates < 2) return;
  for (size_t gate = 0; gate < gates; ++gate) {
    detail->keys.emplace_back(absl::StrCat("line ", CurveHue(gate)), GateName(cell, gate));
  }
}

Detail GateGradients(const RunFacts& facts) {
  const v1::Model::Cell cell = facts.summary.job.model().cell();
  const std::vector<CloserLook::Gate>& gates = facts.digest.closer().gates();
  Detail detail =
      NewDetail(facts, "Gradient by gate", "L2 norm of the gradient before clipping (logarithmic)");
  detail.chart.log = true;
  for (size_t gate = 0; gate < gates.size(); ++gate) {
    const std::string letter = GateLetter(cell, gate);
    AddCurve(CurveHue(gate), letter, absl::StrCat(GateName(cell, gate), ", recurrence"),
             gates[gate].recurrent_norm.Points(), &detail);
    AddCurve(absl::StrCat(CurveHue(gate), kDashed), absl::StrCat(letter, " input"),
             absl::StrCat(GateName(cell, gate), ", input"), gates[gate].input_norm.Points(),
             &detail);
  }
  AddGateKeys(cell, gates.size(), &detail);
  detail.caption =
      "Solid: the weights and biases of the recurrence (weight_hh, bias_hh); dashed: those of the "
      "input (weight_ih, bias_ih). All layers together.";
  return detail;
}

Detail GateOpenness(const RunFacts& facts) {
  const v1::Model::Cell cell = facts.summary.job.model().cell();
  const std::vector<CloserLook::Gate>& gates = facts.digest.closer().gates();
  Detail detail = NewDetail(facts, "How open the gates are", "mean of the gate, 0 shut to 1 open");
  detail.chart.span = kShareSpan;
  for (size_t gate = 0; gate < gates.size(); ++gate) {
    AddCurve(CurveHue(gate), GateLetter(cell, gate), GateName(cell, gate),
             gates[gate].mean.Points(), &detail);
  }
  AddGateKeys(cell, gates.size(), &detail);
  detail.caption = "Over units, rows, time steps and layers; of the candidate the mean magnitude.";
  return detail;
}

Detail Memory(const RunFacts& facts) {
  const std::vector<CloserLook::Layer>& layers = facts.digest.closer().layers();
  Detail detail = NewDetail(facts, "Memory of the units",
                            "time steps until 1/e of a unit's state is left (logarithmic)");
  detail.chart.log = true;
  detail.caption =
      "From the gate that keeps the state; solid: the median over the units, dashed: "
      "the unit that keeps it longest.";
  const size_t shown = ShownLayers(layers.size(), &detail.caption);
  for (size_t layer = 0; layer < shown; ++layer) {
    const std::string prefix = LayerPrefix(layers.size(), layer);
    const std::string label = layers.size() > 1 ? absl::StrCat(layer, " ") : "";
    AddCurve(CurveHue(layer), absl::StrCat(label, "median"), absl::StrCat(prefix, "median"),
             layers[layer].keep_time.Points(), &detail);
    AddCurve(absl::StrCat(CurveHue(layer), kDashed), absl::StrCat(label, "longest"),
             absl::StrCat(prefix, "longest"), layers[layer].keep_time_max.Points(), &detail);
  }
  if (const int window = facts.digest.window(); window > 0) {
    AddLimit(window, absl::StrCat("window ", window),
             "as many time steps as the gradient goes back", &detail);
  }
  return detail;
}

// One curve for each layer.
Detail ByLayer(const RunFacts& facts, StepSeries CloserLook::Layer::*series, Detail detail) {
  const std::vector<CloserLook::Layer>& layers = facts.digest.closer().layers();
  const size_t shown = ShownLayers(layers.size(), &detail.caption);
  for (size_t layer = 0; layer < shown; ++layer) {
    AddCurve(CurveHue(layer), layers.size() > 1 ? absl::StrCat("layer ", layer) : "",
             absl::StrCat("layer ", layer), (layers[layer].*series).Points(), &detail);
  }
  return detail;
}

Detail Slope(const RunFacts& facts) {
  Detail detail = NewDetail(facts, "Slope of the activation",
                            "mean slope of what makes the state, of its largest");
  detail.chart.span = kShareSpan;
  detail.caption =
      "1: the units work where their function is steepest; 0: they are saturated, and "
      "no gradient gets through. For ReLU the share of states above 0.";
  AddLimit(kSaturatedSlope, "saturated", "below it a layer counts as saturated", &detail);
  return ByLayer(facts, &CloserLook::Layer::slope, std::move(detail));
}

Detail Similarity(const RunFacts& facts) {
  Detail detail = NewDetail(facts, "Similarity of the states",
                            "mean cosine between the last states of a batch's rows");
  detail.caption = "Near 1 the state is the same whatever the sequence was.";
  AddLimit(kSameState, "same state", "above it the state ignores its input", &detail);
  detail = ByLayer(facts, &CloserLook::Layer::similarity, std::move(detail));
  bool negative = false;
  for (const Curve& curve : detail.chart.curves) {
    for (const CurvePoint& point : curve.points) negative = negative || point.middle < 0;
  }
  detail.chart.span = negative ? kCosineSpan : kShareSpan;
  return detail;
}

// A curve with its band from the buckets.
Detail FromBuckets(const RunFacts& facts, const v1::Range& (v1::FoldedStats::*range)() const,
                   Detail detail) {
  Curve curve = CurveOf(facts, CurveHue(0), range);
  const bool any = std::any_of(curve.points.begin(), curve.points.end(),
                               [](const CurvePoint& point) { return std::isfinite(point.middle); });
  if (!any) return detail;
  detail.names.emplace_back("mean");
  detail.keys.emplace(detail.keys.begin(), absl::StrCat("line ", curve.style),
                      "mean, smallest to largest tinted");
  detail.chart.curves.push_back(std::move(curve));
  return detail;
}

Detail Direction(const RunFacts& facts) {
  Detail detail = NewDetail(facts, "Direction of successive gradients",
                            "cosine between a step's gradient and the one before");
  detail.chart.span = kCosineSpan;
  detail.caption =
      "Near 0 the gradient is mostly noise; near 1 with a loss that falls slowly the "
      "learning rate could be larger.";
  AddLimit(kOpposedCosine, "too large", "lasting below it, the learning rate is too large",
           &detail);
  return FromBuckets(facts, &v1::FoldedStats::gradient_cosine, std::move(detail));
}

Detail Distance(const RunFacts& facts) {
  return FromBuckets(facts, &v1::FoldedStats::distance_ratio,
                     NewDetail(facts, "Way gone by the weights",
                               "distance from the first weights / norm of these"));
}

Detail RecurrentMatrices(const RunFacts& facts) {
  const v1::Model& model = facts.summary.job.model();
  const std::vector<CloserLook::Gate>& gates = facts.digest.closer().gates();
  Detail detail = NewDetail(facts, "Recurrent matrices", "singular value or radius (logarithmic)");
  detail.chart.log = true;
  detail.caption =
      "Solid: the largest singular value of weight_hh, dashed: its spectral radius; of "
      "several layers the largest. They only bound what the gradient does; the growth "
      "factor says what it did.";
  for (size_t gate = 0; gate < gates.size(); ++gate) {
    const std::string letter = GateLetter(model.cell(), gate);
    const std::string name = letter.empty() ? "" : absl::StrCat(GateName(model.cell(), gate), ", ");
    AddCurve(CurveHue(gate), letter.empty() ? "singular" : letter,
             absl::StrCat(name, "largest singular value"), gates[gate].sigma_max.Points(), &detail);
    AddCurve(absl::StrCat(CurveHue(gate), kDashed),
             letter.empty() ? "radius" : absl::StrCat(letter, " radius"),
             absl::StrCat(name, "spectral radius"), gates[gate].spectral_radius.Points(), &detail);
  }
  AddGateKeys(model.cell(), gates.size(), &detail);
  if (GatesOf(model.cell()).empty()) {
    const double limit = model.cell() == v1::Model::CELL_RNN_SIGMOID ? 4 : 1;
    AddLimit(limit, absl::StrCat("fades < ", limit),
             "with the largest singular value below it, the gradient fades", &detail);
  }
  return detail;
}

std::vector<CurvePoint> LagPoints(const std::vector<double>& profile) {
  std::vector<CurvePoint> points;
  for (size_t lag = 0; lag < profile.size(); ++lag) {
    // What underflowed is not drawn: a logarithmic axis has no place for it.
    const double value = profile[lag] > 0 && std::isfinite(profile[lag]) ? profile[lag] : kNaN;
    points.push_back({static_cast<double>(lag), value, value, value});
  }
  return points;
}

std::string ProbeText(const CloserLook::Probe& probe, const std::string& layer) {
  std::string text;
  if (probe.decay_factor) {
    absl::StrAppend(
        &text, " In step ", GroupedNumber(static_cast<double>(probe.step), 0), layer,
        ", each time step back multiplies it by ", FormatNumber(*probe.decay_factor),
        probe.horizon ? absl::StrCat("; a thousandth is left up to lag ", *probe.horizon) : "",
        ".");
  }
  return text;
}

Detail LastStepProbe(const RunFacts& facts) {
  const std::vector<CloserLook::LayerProbes>& layers = facts.digest.closer().probes();
  Detail detail = NewDetail(facts, "Gradient from the last time step alone, by lag",
                            "norm of the gradient at h, relative to lag 0 (logarithmic)");
  detail.chart.log = true;
  detail.chart.x_title = "lag";
  detail.caption =
      "What a gradient that enters at the last time step leaves at earlier ones (the "
      "probe)";
  std::string decay;
  std::string more;
  size_t lags = 1;
  bool states = false;
  const size_t shown = ShownLayers(layers.size(), &more);
  for (size_t layer = 0; layer < shown; ++layer) {
    if (!layers[layer].newest) continue;
    const CloserLook::Probe& newest = *layers[layer].newest;
    const std::string prefix = LayerPrefix(layers.size(), layer);
    const std::string label = layers.size() > 1 ? absl::StrCat(layer, " ") : "";
    const std::string at =
        absl::StrCat("step ", GroupedNumber(static_cast<double>(newest.step), 0));
    AddCurve(CurveHue(layer), absl::StrCat(label, "probe"), absl::StrCat(prefix, "probe of ", at),
             LagPoints(newest.profile), &detail);
    AddCurve(absl::StrCat(CurveHue(layer), kDashed), absl::StrCat(label, "state"),
             absl::StrCat(prefix, "gradient at the state in ", at), LagPoints(newest.state_profile),
             &detail);
    const CloserLook::Probe& first = *layers[layer].first;
    if (layers.size() == 1 && first.step < newest.step) {
      AddCurve(CurveHue(1), "first",
               absl::StrCat("probe of step ", GroupedNumber(static_cast<double>(first.step), 0)),
               LagPoints(first.profile), &detail);
    }
    decay += ProbeText(newest, layers.size() > 1 ? absl::StrCat(", layer ", layer) : "");
    states = states || !newest.state_profile.empty();
    lags = std::max({lags, newest.profile.size(), newest.state_profile.size()});
  }
  detail.caption += states ? ", and dashed the gradient of the whole loss at the state, to which "
                             "every time step with a loss adds."
                           : ".";
  detail.caption += decay + more;
  for (size_t i = 0; i < detail.chart.curves.size(); ++i) {
    detail.chart.curves[i].dots = false;
    detail.keys.emplace_back(absl::StrCat("line ", detail.chart.curves[i].style), detail.names[i]);
  }
  detail.span = {-0.5, static_cast<double>(lags) - 0.5};
  return detail;
}

// Means around at most this many lengths.
constexpr int kLengthsShown = 24;

std::vector<CurvePoint> LengthPoints(const CloserLook::LossByLength& lengths, Interval span) {
  std::array<CloserLook::LengthLoss, kLengthsShown> folded{};
  std::array<double, kLengthsShown> sums{};
  for (const auto& [length, loss] : lengths) {
    const double share = (length - span.low) / (span.high - span.low);
    const auto at =
        static_cast<size_t>(std::clamp(share * kLengthsShown, 0.0, kLengthsShown - 1.0));
    folded[at].rows += loss.rows;
    folded[at].sum += loss.sum;
    sums[at] += loss.rows * length;
  }
  std::vector<CurvePoint> points;
  for (size_t i = 0; i < folded.size(); ++i) {
    if (folded[i].rows <= 0) continue;
    const double mean = folded[i].sum / folded[i].rows;
    points.push_back({sums[i] / folded[i].rows, mean, mean, mean});
  }
  return points;
}

Detail LossByLengths(const RunFacts& facts) {
  const CloserLook& closer = facts.digest.closer();
  Detail detail =
      NewDetail(facts, "Loss by length of the sequences", "mean loss of the batches (logarithmic)");
  detail.chart.log = true;
  detail.chart.x_title = "time steps";
  const CloserLook::LossByLength* const both[] = {&closer.early_lengths(), &closer.late_lengths()};
  Interval span{1e9, 0};
  for (const CloserLook::LossByLength* lengths : both) {
    if (lengths->empty()) continue;
    span.low = std::min(span.low, lengths->begin()->first - 0.5);
    span.high = std::max(span.high, lengths->rbegin()->first + 0.5);
  }
  // A single length says nothing that the loss does not.
  if (span.high - span.low < 1.5) return detail;
  detail.span = span;
  AddCurve(CurveHue(1), "start", "first tenth of the recorded steps",
           LengthPoints(closer.early_lengths(), span), &detail);
  AddCurve(CurveHue(0), "end", "last tenth of the recorded steps",
           LengthPoints(closer.late_lengths(), span), &detail);
  for (size_t i = 0; i < detail.names.size(); ++i) {
    detail.keys.emplace_back(absl::StrCat("dot ", detail.chart.curves[i].style), detail.names[i]);
  }
  return detail;
}

Detail Noise(const RunFacts& facts) {
  Detail detail =
      NewDetail(facts, "Noise scale", "noise scale of the gradient, rows (logarithmic)");
  detail.chart.log = true;
  detail.caption =
      "A batch far below it could be larger for almost proportionally fewer steps; far "
      "above it, more rows bring little.";
  AddCurve(CurveHue(0), "", "noise scale", facts.digest.closer().noise_scale().Points(), &detail);
  const int batch = facts.summary.job.training().batch_size();
  if (batch > 0) AddLimit(batch, absl::StrCat("batch ", batch), "rows of a batch", &detail);
  return detail;
}

}  // namespace

std::string CurveHue(size_t number) {
  constexpr size_t kHues = 4;
  const absl::string_view dash = number < kHues ? "" : number < 2 * kHues ? kDashed : " dotted";
  return absl::StrCat("hue", number % kHues, dash);
}

std::string GateName(v1::Model::Cell cell, size_t gate) {
  const std::vector<GateWords> words = GatesOf(cell);
  return gate < words.size() ? std::string(words[gate].name) : "";
}

std::vector<Detail> DetailsOf(const RunFacts& facts) {
  std::vector<Detail> details;
  if (facts.summary.history.buckets().empty()) return details;
  for (const auto make : {GateGradients, GateOpenness, Memory, Slope, Similarity, Direction,
                          Distance, RecurrentMatrices, LastStepProbe, LossByLengths, Noise}) {
    KeepIfAny(make(facts), &details);
  }
  return details;
}

}  // namespace gradwatch::cli
