#include "server/nn/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "server/base/squares.h"
#include "server/base/vector.h"
#include "server/nn/counter_vector.h"
#include "server/nn/packet.h"
#include "server/nn/plan.h"

namespace gradwatch::nn {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// Below this a ratio of norms says nothing.
constexpr double kNormMin = 1e-30;
constexpr double kSaturated = 0.99;

enum ArrayIndex {
  kStateGradient,
  kCarryNorm,
  kRatio,
  kHiddenGradient,
  kHiddenRms,
  kHiddenLargest,
  kCellRms,
  kCellLargest
};
static_assert(kCellLargest + 1 == kTraceArrays);

// Calls body(vector) for all values; what fills up the last vector is zero.
template <typename S, typename Body>
inline void ForVectors(const S* values, int64_t n, Body&& body) {
  constexpr int64_t kLanes = kVectorSize<S>;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(LoadVector(values + i));
  if (i == n) return;
  S rest[kLanes] = {};
  std::copy(values + i, values + n, rest);
  body(LoadVector(rest));
}

// The largest magnitude, 0 for none; may pass over NaN. Adds, lane by lane, how many magnitudes are
// above `limit`, which is not negative.
template <typename S, typename Lanes>
double LargestAndAbove(const S* values, int64_t n, S limit, Lanes* lanes) {
  decltype(Vector<S>{} < Vector<S>{}) above = {};  // A comparison that holds is -1.
  Packet<S> largest = Constant<S>(0.0);
  ForVectors(values, n, [&](const Vector<S>& of) {
    const Packet<S> magnitudes = packet::pabs(Packet<S>(of));
    largest = packet::pmax(largest, magnitudes);
    above -= Vector<S>(magnitudes) > limit;
  });
  AddLanes(__builtin_convertvector(above, typename CountersOf<S>::Type), lanes);
  return static_cast<double>(packet::predux_max(largest));
}

}  // namespace

TraceRecorder::TraceRecorder(Cell cell, int64_t hidden, int64_t truncation, int64_t positions_max,
                             int64_t time_steps_max, int members_max)
    : cell_(cell),
      hidden_(hidden),
      truncation_(truncation),
      positions_max_(positions_max),
      time_steps_max_(time_steps_max),
      members_max_(members_max),
      values_(kTraceValues * positions_max),
      arrays_(kTraceArrays * time_steps_max),
      saturated_(members_max),
      alive_(cell == Cell::kRnnRelu ? members_max * hidden : 0),
      gate_sums_(CountedGatesOf(cell), hidden, members_max),
      unit_work_(hidden) {}

int64_t TraceRecorder::UnitBytesOf(Cell cell, int64_t hidden, int members) {
  const int64_t flags = cell == Cell::kRnnRelu ? hidden : 0;
  return SaturatingAdd(
      GateSums::MemoryBytesOf(CountedGatesOf(cell), hidden, members),
      SaturatingAdd(SaturatingMultiply(members, SaturatingAdd(flags, sizeof(Saturated))),
                    SaturatingMultiply(hidden, static_cast<int64_t>(sizeof(double)))));
}

void TraceRecorder::Begin(Detail detail) {
  detail_ = detail;
  if (detail != Detail::kFull) return;
  std::fill_n(saturated_.data(), members_max_, Saturated{});
  std::fill_n(alive_.data(), alive_.size(), uint8_t{0});
  gate_sums_.Clear();
}

int TraceRecorder::CountedGatesOf(Cell cell) {
  return cell == Cell::kRnnSigmoid || GatesOf(cell) > 1 ? GatesOf(cell) : 0;
}

template <typename S>
void TraceRecorder::RecordHidden(int member, int64_t position, const S* h) {
  auto* const lanes = &saturated_[member].lanes;
  At(kHidden, position) = QuickSumOfSquares(h, hidden_);
  if (cell_ == Cell::kRnnRelu) {
    // What is not above zero is saturated. A NaN counts, too, but makes the states none anyway.
    Saturated above;
    At(kHiddenMax, position) = LargestAndAbove(h, hidden_, S(0), &above.lanes);
    (*lanes)[0] += static_cast<int32_t>(hidden_ - SumOfLanes(above.lanes));
    uint8_t* const alive = alive_.data() + member * hidden_;
    for (int64_t i = 0; i < hidden_; ++i) alive[i] |= h[i] > S(0) ? 1 : 0;
  } else {
    At(kHiddenMax, position) = LargestAndAbove(h, hidden_, static_cast<S>(kSaturated), lanes);
  }
}

template <typename S>
void TraceRecorder::RecordStates(int member, Range positions, const S* h, const S* c,
                                 const S* c_tanh, const S* gates) {
  const int64_t gate_rows = GatesOf(cell_) * hidden_;
  for (int64_t position = positions.begin; position < positions.end; ++position) {
    const int64_t at = position * hidden_;
    RecordHidden(member, position, h + at);
    if (cell_ == Cell::kLstm) {
      At(kCell, position) = QuickSumOfSquares(c + at, hidden_);
      At(kCellMax, position) = LargestMagnitude(c + at, hidden_);
    }
    if (!HasKeepGate()) continue;
    const S* const activation =
        cell_ == Cell::kLstm ? c_tanh + at : gates + position * gate_rows + 2 * hidden_;
    At(kActivation, position) = QuickSumOfSquares(activation, hidden_);
  }
  if (CountedGates() == 0) return;
  const int64_t stride = cell_ == Cell::kRnnSigmoid ? hidden_ : gate_rows;
  const S* const activations = cell_ == Cell::kRnnSigmoid ? h : gates;
  gate_sums_.Add(member, activations + positions.begin * stride, stride, positions.size());
}

template <typename S>
double TraceRecorder::Similarity(const S* states, int64_t rows) {
  double* const sum = unit_work_.data();
  std::fill_n(sum, hidden_, 0.0);
  double count = 0.0;
  for (int64_t b = 0; b < rows; ++b) {
    const S* const row = states + b * hidden_;
    const double norm = std::sqrt(DotProduct(row, row, hidden_));
    if (norm == 0.0) continue;
    count += 1.0;
    AddMultiple(1.0 / norm, row, hidden_, sum);
  }
  if (count < 2.0) return kNaN;
  // The square of the sum has every pair twice and, `count` times, a row with itself.
  return (DotProduct(sum, sum, hidden_) - count) / (count * (count - 1.0));
}

double TraceRecorder::SumOf(const BatchLayout& layout, Value value, int64_t t, int64_t rows) {
  const double* const values = &At(value, layout.first(t));
  double sum = 0.0;
  for (int64_t b = 0; b < rows; ++b) sum += values[b];
  return sum;
}

double TraceRecorder::LargestOf(const BatchLayout& layout, Value value, int64_t t) {
  const double* const values = &At(value, layout.first(t));
  double largest = 0.0;
  for (int64_t b = 0; b < layout.valid(t); ++b) largest = std::max(largest, values[b]);
  return largest;
}

void TraceRecorder::FinishGradients(const BatchLayout& layout, LayerTrace* trace) {
  const int64_t steps = layout.time_steps();
  double* adjoint = Array(kStateGradient);
  double* hidden = Array(kHiddenGradient);
  double* carry = Array(kCarryNorm);
  double* ratio = Array(kRatio);
  for (int64_t t = 0; t < steps; ++t) {
    const double sum = SumOf(layout, kAdjointH, t, layout.valid(t));
    hidden[t] = std::sqrt(sum);
    adjoint[t] = std::sqrt(sum + SumOf(layout, kAdjointC, t, layout.valid(t)));
    if (t + 1 < steps) {
      carry[t] = CutAfter(t) ? kNaN : std::sqrt(SumOf(layout, kCarry, t, layout.valid(t + 1)));
    }
  }
  for (int64_t t = 0; t + 1 < steps; ++t) {
    const double value = carry[t] / adjoint[t + 1];
    const bool defined = carry[t] >= kNormMin && adjoint[t + 1] >= kNormMin && std::isfinite(value);
    ratio[t] = defined ? value : kNaN;
  }
  const auto size = static_cast<size_t>(steps);
  trace->state_gradient_norm = {adjoint, size};
  trace->carry_norm = {carry, size - 1};
  trace->carry_ratio = {ratio, size - 1};
  if (detail_ == Detail::kFull) trace->hidden_gradient_norm = {hidden, size};
}

// A maximum may have passed over a NaN, a sum has not.
void TraceRecorder::FinishStates(const BatchLayout& layout, LayerTrace* trace) {
  const auto finish = [&](Value squares, Value largest, ArrayIndex rms_index,
                          ArrayIndex largest_index, absl::Span<const double>* rms_out,
                          absl::Span<const double>* largest_out) {
    double* const rms = Array(rms_index);
    double* const maxima = Array(largest_index);
    for (int64_t t = 0; t < layout.time_steps(); ++t) {
      const int64_t rows = layout.valid(t);
      rms[t] = std::sqrt(SumOf(layout, squares, t, rows) / static_cast<double>(rows * hidden_));
      maxima[t] = std::isnan(rms[t]) ? kNaN : LargestOf(layout, largest, t);
    }
    *rms_out = {rms, static_cast<size_t>(layout.time_steps())};
    *largest_out = {maxima, static_cast<size_t>(layout.time_steps())};
  };
  finish(kHidden, kHiddenMax, kHiddenRms, kHiddenLargest, &trace->hidden_rms, &trace->hidden_max);
  if (cell_ == Cell::kLstm) {
    finish(kCell, kCellMax, kCellRms, kCellLargest, &trace->cell_rms, &trace->cell_max);
  }
}

void TraceRecorder::FinishShares(const BatchLayout& layout, LayerTrace* trace) const {
  int64_t saturated = 0;
  for (int member = 0; member < members_max_; ++member) {
    saturated += SumOfLanes(saturated_[member].lanes);
  }
  const double total = static_cast<double>(layout.positions() * hidden_);
  const auto share = [total](int64_t count) { return static_cast<double>(count) / total; };
  trace->saturated_share = share(saturated);
  if (cell_ == Cell::kRnnRelu) {
    int64_t dead = 0;
    for (int64_t i = 0; i < hidden_; ++i) {
      uint8_t alive = 0;
      for (int member = 0; member < members_max_; ++member) alive |= alive_[member * hidden_ + i];
      dead += alive == 0 ? 1 : 0;
    }
    trace->dead_share = static_cast<double>(dead) / static_cast<double>(hidden_);
  }
  trace->gates = CountedGates();
  for (int gate = 0; gate < trace->gates; ++gate) {
    const auto at = static_cast<size_t>(gate);
    trace->gate_closed[at] = share(gate_sums_.Closed(gate));
    trace->gate_open[at] = share(gate_sums_.Open(gate));
  }
}

// A gate that is not a number makes the state none, too: then there is no mean.
void TraceRecorder::FinishGates(int64_t positions, LayerTrace* trace) {
  const auto is_nan = [](double rms) { return std::isnan(rms); };
  const bool broken = std::any_of(trace->hidden_rms.begin(), trace->hidden_rms.end(), is_nan);
  const absl::Span<double> means(unit_work_.data(), static_cast<size_t>(hidden_));
  for (int gate = 0; gate < trace->gates; ++gate) {
    gate_sums_.Means(gate, positions, means);
    double sum = 0.0;
    int64_t closed = 0;
    for (const double mean : means) {
      sum += mean;
      closed += mean < kGateClosed ? 1 : 0;
    }
    const auto at = static_cast<size_t>(gate);
    const auto units = static_cast<double>(hidden_);
    trace->gate_mean[at] = broken ? kNaN : sum / units;
    trace->gate_closed_units[at] = broken ? kNaN : static_cast<double>(closed) / units;
  }
  if (HasKeepGate() && !broken) FinishTimeConstants(positions, trace);
}

// The gate that keeps the state comes second in both cells: f of i f g o, z of r z n. The constant
// grows with the mean, so the median of the constants is that of the median.
void TraceRecorder::FinishTimeConstants(int64_t positions, LayerTrace* trace) {
  const absl::Span<double> means(unit_work_.data(), static_cast<size_t>(hidden_));
  gate_sums_.Means(1, positions, means);
  const auto middle = means.begin() + hidden_ / 2;
  std::nth_element(means.begin(), middle, means.end());
  const auto constant = [](double mean) {
    return mean < 1.0 ? -1.0 / std::log(mean) : std::numeric_limits<double>::infinity();
  };
  trace->keep_time_constant = constant(*middle);
  trace->keep_time_constant_max = constant(*std::max_element(middle, means.end()));
}

double TraceRecorder::ActivationSlope(const BatchLayout& layout, const LayerTrace& trace) {
  if (cell_ == Cell::kRnnRelu) return 1.0 - trace.saturated_share;
  const Value squares = HasKeepGate() ? kActivation : kHidden;
  double sum = 0.0;
  for (int64_t t = 0; t < layout.time_steps(); ++t)
    sum += SumOf(layout, squares, t, layout.valid(t));
  const double mean_square = sum / static_cast<double>(layout.positions() * hidden_);
  if (cell_ == Cell::kRnnSigmoid) return 4.0 * (trace.gate_mean[0] - mean_square);
  return 1.0 - mean_square;
}

LayerTrace TraceRecorder::Finish(const BatchLayout& layout) {
  LayerTrace trace;
  if (detail_ == Detail::kNone) return trace;
  FinishGradients(layout, &trace);
  if (detail_ != Detail::kFull) return trace;
  FinishStates(layout, &trace);
  FinishShares(layout, &trace);
  FinishGates(layout.positions(), &trace);
  trace.activation_slope = ActivationSlope(layout, trace);
  return trace;
}

template void TraceRecorder::RecordStates(int, Range, const float*, const float*, const float*,
                                          const float*);
template void TraceRecorder::RecordStates(int, Range, const double*, const double*, const double*,
                                          const double*);
template double TraceRecorder::Similarity(const float*, int64_t);
template double TraceRecorder::Similarity(const double*, int64_t);

}  // namespace gradwatch::nn
