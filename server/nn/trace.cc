#include "server/nn/trace.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

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
constexpr double kGateClosed = 0.05;
constexpr double kGateOpen = 0.95;

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

// Adds, lane by lane, how many of the values `is` says yes to. Lanes do not overflow: a batch with
// 2^31 states would take more than 8 GB.
template <typename S, typename Lanes, typename Is>
inline void Count(const S* values, int64_t n, Is is, Lanes* lanes) {
  constexpr int64_t kLanes = kVectorSize<S>;
  using Counters = typename CountersOf<S>::Type;
  Counters counters;
  std::memcpy(&counters, lanes->data(), sizeof(counters));
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    // A comparison that holds is -1.
    counters -= __builtin_convertvector(is(LoadVector(values + i)), Counters);
  }
  if (i < n) {
    S rest[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) rest[k] = values[std::min(i + k, n - 1)];
    auto hits = __builtin_convertvector(is(LoadVector(rest)), Counters);
    for (int64_t k = n - i; k < kLanes; ++k) hits[k] = 0;
    counters -= hits;
  }
  std::memcpy(lanes->data(), &counters, sizeof(counters));
}

template <typename Lanes>
int64_t Sum(const Lanes& lanes) {
  return std::accumulate(lanes.begin(), lanes.end(), int64_t{0});
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
      counts_(members_max),
      alive_(members_max * hidden),
      gate_means_(CountedGatesOf(cell) * hidden, members_max),
      unit_work_(hidden) {}

int64_t TraceRecorder::UnitBytesOf(Cell cell, int64_t hidden, int members) {
  return SaturatingAdd(
      UnitMeans::MemoryBytesOf(SaturatingMultiply(CountedGatesOf(cell), hidden), members),
      SaturatingMultiply(hidden, static_cast<int64_t>(sizeof(double))));
}

void TraceRecorder::Begin(Detail detail) {
  detail_ = detail;
  std::fill_n(counts_.data(), members_max_, Counts{});
  std::fill_n(alive_.data(), alive_.size(), uint8_t{0});
  if (detail == Detail::kFull) gate_means_.Clear();
}

int TraceRecorder::CountedGatesOf(Cell cell) {
  return cell == Cell::kRnnSigmoid || GatesOf(cell) > 1 ? GatesOf(cell) : 0;
}

// The gate that ends in tanh: n of the GRU, g of the LSTM.
bool TraceRecorder::IsCandidate(int gate) const { return cell_ != Cell::kRnnSigmoid && gate == 2; }

template <typename S>
void TraceRecorder::CountGates(Counts* counts, const S* h, const S* gates) const {
  const int count = CountedGates();
  const S* activations = cell_ == Cell::kRnnSigmoid ? h : gates;
  for (int gate = 0; gate < count; ++gate) {
    const S* values = activations + gate * hidden_;
    auto* const closed = &counts->closed[static_cast<size_t>(gate)];
    auto* const open = &counts->open[static_cast<size_t>(gate)];
    using V = Vector<S>;
    constexpr S kLow = static_cast<S>(kGateClosed);
    constexpr S kHigh = static_cast<S>(kGateOpen);
    if (IsCandidate(gate)) {  // By magnitude.
      Count(
          values, hidden_, [](const V& x) { return (x < kLow) & (x > -kLow); }, closed);
      Count(
          values, hidden_, [](const V& x) { return (x > kHigh) | (x < -kHigh); }, open);
    } else {
      Count(
          values, hidden_, [](const V& x) { return x < kLow; }, closed);
      Count(
          values, hidden_, [](const V& x) { return x > kHigh; }, open);
    }
  }
}

template <typename S>
void TraceRecorder::RecordStates(int member, int64_t position, const S* h, const S* c,
                                 const S* c_tanh, const S* gates) {
  Counts* const counts = &counts_[member];
  Squares hidden;
  AddSquares(h, hidden_, &hidden);
  At(kHidden, position) = hidden.Total();
  At(kHiddenMax, position) = LargestMagnitude(h, hidden_);
  if (c != nullptr) {
    Squares cell;
    AddSquares(c, hidden_, &cell);
    At(kCell, position) = cell.Total();
    At(kCellMax, position) = LargestMagnitude(c, hidden_);
  }
  if (cell_ == Cell::kRnnRelu) {
    Count(
        h, hidden_, [](const Vector<S>& x) { return x == S(0); }, &counts->saturated);
    uint8_t* const alive = alive_.data() + member * hidden_;
    for (int64_t i = 0; i < hidden_; ++i) alive[i] |= h[i] > S(0) ? 1 : 0;
  } else {
    constexpr S kLimit = static_cast<S>(kSaturated);
    Count(
        h, hidden_, [](const Vector<S>& x) { return (x > kLimit) | (x < -kLimit); },
        &counts->saturated);
  }
  CountGates(counts, h, gates);
  if (CountedGates() > 0) gate_means_.Add(member, cell_ == Cell::kRnnSigmoid ? h : gates);
  if (!HasKeepGate()) return;
  Squares activation;
  AddSquares(cell_ == Cell::kLstm ? c_tanh : gates + 2 * hidden_, hidden_, &activation);
  At(kActivation, position) = activation.Total();
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
  double sum = 0.0;
  for (int64_t b = 0; b < rows; ++b) sum += At(value, layout.first(t) + b);
  return sum;
}

double TraceRecorder::LargestOf(const BatchLayout& layout, Value value, int64_t t) {
  double largest = 0.0;
  for (int64_t b = 0; b < layout.valid(t); ++b) {
    largest = std::max(largest, At(value, layout.first(t) + b));
  }
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
  std::array<int64_t, kGatesMax> closed{};
  std::array<int64_t, kGatesMax> open{};
  for (int member = 0; member < members_max_; ++member) {
    const Counts& counts = counts_[member];
    saturated += Sum(counts.saturated);
    for (size_t gate = 0; gate < kGatesMax; ++gate) {
      closed[gate] += Sum(counts.closed[gate]);
      open[gate] += Sum(counts.open[gate]);
    }
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
    trace->gate_closed[at] = share(closed[at]);
    trace->gate_open[at] = share(open[at]);
  }
}

// A gate that is not a number makes the state none, too: then there is no mean.
void TraceRecorder::FinishGates(int64_t positions, LayerTrace* trace) {
  const auto is_nan = [](double rms) { return std::isnan(rms); };
  const bool broken = std::any_of(trace->hidden_rms.begin(), trace->hidden_rms.end(), is_nan);
  for (int gate = 0; gate < trace->gates; ++gate) {
    double sum = 0.0;
    int64_t closed = 0;
    for (int64_t i = 0; i < hidden_; ++i) {
      const double mean = gate_means_.Mean(gate * hidden_ + i, positions);
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

// The gate that keeps the state comes second in both cells: f of i f g o, z of r z n.
void TraceRecorder::FinishTimeConstants(int64_t positions, LayerTrace* trace) {
  double* const constants = unit_work_.data();
  for (int64_t i = 0; i < hidden_; ++i) {
    const double mean = gate_means_.Mean(hidden_ + i, positions);
    constants[i] = mean < 1.0 ? -1.0 / std::log(mean) : std::numeric_limits<double>::infinity();
  }
  double* const middle = constants + hidden_ / 2;
  std::nth_element(constants, middle, constants + hidden_);
  trace->keep_time_constant = *middle;
  trace->keep_time_constant_max = *std::max_element(middle, constants + hidden_);
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

template void TraceRecorder::RecordStates(int, int64_t, const float*, const float*, const float*,
                                          const float*);
template void TraceRecorder::RecordStates(int, int64_t, const double*, const double*, const double*,
                                          const double*);
template double TraceRecorder::Similarity(const float*, int64_t);
template double TraceRecorder::Similarity(const double*, int64_t);

}  // namespace gradwatch::nn
