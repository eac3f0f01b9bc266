#include "server/nn/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "server/nn/packet.h"
#include "server/nn/plan.h"

namespace gradwatch::nn {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// Below this a ratio of norms says nothing.
constexpr double kNormMin = 1e-30;
constexpr double kTanhSaturated = 0.99;
constexpr double kGateClosed = 0.05;
constexpr double kGateOpen = 0.95;

enum ArrayIndex {
  kStateGradient,
  kCarry,
  kRatio,
  kHiddenGradient,
  kHiddenRms,
  kHiddenMax,
  kCellRms,
  kCellMax
};
static_assert(kCellMax + 1 == kTraceArrays);

struct Summary {
  double rms;
  double largest;  // Magnitude.
};

template <typename S>
Summary Summarize(const S* values, int64_t n) {
  Packet<S> largest = Constant<S>(0.0);
  ForPackets<S>(n, [&](int64_t j, auto lanes) {
    largest = packet::pmax(largest, packet::pabs(Load<S>(values + j, lanes)));
  });
  const double rms = std::sqrt(SumOfSquares(values, n) / static_cast<double>(n));
  // The maximum may have passed over a NaN, the sum has not.
  return {rms, std::isnan(rms) ? kNaN : static_cast<double>(packet::predux_max(largest))};
}

template <typename S>
double JointNorm(const S* h, const S* c, int64_t n) {
  double sum = SumOfSquares(h, n);
  if (c != nullptr) sum += SumOfSquares(c, n);
  return std::sqrt(sum);
}

struct Counts {
  int64_t below = 0;
  int64_t above = 0;
};

template <typename S>
Counts CountOutside(const S* values, int64_t n, double low, double high) {
  const S lower = static_cast<S>(low);
  const S upper = static_cast<S>(high);
  int32_t below = 0;
  int32_t above = 0;
  for (int64_t i = 0; i < n; ++i) {
    below += values[i] < lower ? 1 : 0;
    above += values[i] > upper ? 1 : 0;
  }
  return {below, above};
}

// Of the magnitudes.
template <typename S>
Counts CountMagnitudesOutside(const S* values, int64_t n, double low, double high) {
  const S lower = static_cast<S>(low);
  const S upper = static_cast<S>(high);
  int32_t below = 0;
  int32_t above = 0;
  for (int64_t i = 0; i < n; ++i) {
    const S magnitude = std::abs(values[i]);
    below += magnitude < lower ? 1 : 0;
    above += magnitude > upper ? 1 : 0;
  }
  return {below, above};
}

template <typename S>
void MarkAlive(const S* h, int64_t n, uint8_t* alive) {
  for (int64_t i = 0; i < n; ++i) alive[i] |= h[i] > S(0) ? 1 : 0;
}

}  // namespace

template <typename S>
double SumOfSquares(const S* values, int64_t n) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int k = 0; k < kSums; ++k) {
      const double value = static_cast<double>(values[i + k]);
      sums[k] += value * value;
    }
  }
  for (int k = 0; i < n; ++i, ++k) {
    const double value = static_cast<double>(values[i]);
    sums[k] += value * value;
  }
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

TraceRecorder::TraceRecorder(Cell cell, int64_t hidden, int64_t time_steps_max)
    : cell_(cell),
      hidden_(hidden),
      time_steps_max_(time_steps_max),
      arrays_(kTraceArrays * time_steps_max),
      alive_(hidden) {}

void TraceRecorder::Begin(int64_t time_steps, Detail detail) {
  detail_ = detail;
  time_steps_ = time_steps;
  positions_ = 0;
  saturated_ = 0;
  closed_.fill(0);
  open_.fill(0);
  std::fill_n(alive_.data(), hidden_, uint8_t{0});
}

int TraceRecorder::CountedGates() const {
  return cell_ == Cell::kRnnSigmoid || GatesOf(cell_) > 1 ? GatesOf(cell_) : 0;
}

// The gate that ends in tanh: n of the GRU, g of the LSTM.
bool TraceRecorder::IsCandidate(int gate) const {
  return cell_ != Cell::kRnnSigmoid && gate == 2;
}

template <typename S>
void TraceRecorder::CountGates(int64_t rows, const S* h, const S* gates) {
  const int count = CountedGates();
  const S* activations = cell_ == Cell::kRnnSigmoid ? h : gates;
  for (int64_t b = 0; b < rows; ++b) {
    for (int gate = 0; gate < count; ++gate) {
      const S* values = activations + (b * count + gate) * hidden_;
      const Counts counts =
          IsCandidate(gate) ? CountMagnitudesOutside(values, hidden_, kGateClosed, kGateOpen)
                            : CountOutside(values, hidden_, kGateClosed, kGateOpen);
      closed_[gate] += counts.below;
      open_[gate] += counts.above;
    }
  }
}

template <typename S>
void TraceRecorder::RecordStates(int64_t t, int64_t rows, const S* h, const S* c, const S* gates) {
  const int64_t n = rows * hidden_;
  const Summary hidden = Summarize(h, n);
  Array(kHiddenRms)[t] = hidden.rms;
  Array(kHiddenMax)[t] = hidden.largest;
  if (c != nullptr) {
    const Summary cell = Summarize(c, n);
    Array(kCellRms)[t] = cell.rms;
    Array(kCellMax)[t] = cell.largest;
  }
  positions_ += rows;
  if (cell_ == Cell::kRnnTanh) {
    const Counts counts = CountOutside(h, n, -kTanhSaturated, kTanhSaturated);
    saturated_ += counts.below + counts.above;
  } else if (cell_ == Cell::kRnnRelu) {
    for (int64_t b = 0; b < rows; ++b) MarkAlive(h + b * hidden_, hidden_, alive_.data());
  }
  CountGates(rows, h, gates);
}

template <typename S>
void TraceRecorder::RecordCarry(int64_t t, const S* h, const S* c, int64_t n) {
  Array(kCarry)[t] = JointNorm(h, c, n);
}

void TraceRecorder::RecordCut(int64_t t) { Array(kCarry)[t] = kNaN; }

template <typename S>
void TraceRecorder::RecordAdjoint(int64_t t, const S* h, const S* c, int64_t n) {
  const double hidden = SumOfSquares(h, n);
  Array(kHiddenGradient)[t] = std::sqrt(hidden);
  Array(kStateGradient)[t] = std::sqrt(c == nullptr ? hidden : hidden + SumOfSquares(c, n));
}

double TraceRecorder::Share(int64_t count) const {
  return static_cast<double>(count) / static_cast<double>(positions_ * hidden_);
}

void TraceRecorder::FinishShares(LayerTrace& trace) const {
  if (cell_ == Cell::kRnnTanh) trace.saturated_share = Share(saturated_);
  if (cell_ == Cell::kRnnRelu) {
    const int64_t dead = std::count(alive_.data(), alive_.data() + hidden_, uint8_t{0});
    trace.dead_share = static_cast<double>(dead) / static_cast<double>(hidden_);
  }
  trace.gates = CountedGates();
  for (int gate = 0; gate < trace.gates; ++gate) {
    trace.gate_closed[gate] = Share(closed_[gate]);
    trace.gate_open[gate] = Share(open_[gate]);
  }
}

LayerTrace TraceRecorder::Finish() {
  LayerTrace trace;
  if (detail_ == Detail::kNone) return trace;
  const auto steps = static_cast<size_t>(time_steps_);
  const double* adjoint = Array(kStateGradient);
  const double* carry = Array(kCarry);
  double* ratio = Array(kRatio);
  for (int64_t t = 0; t + 1 < time_steps_; ++t) {
    const double value = carry[t] / adjoint[t + 1];
    const bool defined = carry[t] >= kNormMin && adjoint[t + 1] >= kNormMin && std::isfinite(value);
    ratio[t] = defined ? value : kNaN;
  }
  trace.state_gradient_norm = {adjoint, steps};
  trace.carry_norm = {carry, steps - 1};
  trace.carry_ratio = {ratio, steps - 1};
  if (detail_ != Detail::kFull) return trace;
  trace.hidden_gradient_norm = {Array(kHiddenGradient), steps};
  trace.hidden_rms = {Array(kHiddenRms), steps};
  trace.hidden_max = {Array(kHiddenMax), steps};
  if (cell_ == Cell::kLstm) {
    trace.cell_rms = {Array(kCellRms), steps};
    trace.cell_max = {Array(kCellMax), steps};
  }
  FinishShares(trace);
  return trace;
}

#define GRADWATCH_INSTANTIATE(S)                                                             \
  template double SumOfSquares(const S*, int64_t);                                           \
  template void TraceRecorder::RecordStates(int64_t, int64_t, const S*, const S*, const S*); \
  template void TraceRecorder::RecordCarry(int64_t, const S*, const S*, int64_t);            \
  template void TraceRecorder::RecordAdjoint(int64_t, const S*, const S*, int64_t);
GRADWATCH_INSTANTIATE(float)
GRADWATCH_INSTANTIATE(double)
#undef GRADWATCH_INSTANTIATE

}  // namespace gradwatch::nn
