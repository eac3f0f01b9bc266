#include "server/nn/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "server/nn/plan.h"

namespace gradwatch::nn {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// Below this a ratio of norms says nothing.
constexpr double kNormMin = 1e-30;
constexpr double kTanhSaturated = 0.99;
constexpr double kGateClosed = 0.05;
constexpr double kGateOpen = 0.95;

enum ArrayIndex { kStateGradient, kCarry, kRatio, kHiddenRms, kHiddenMax, kCellRms, kCellMax };
static_assert(kCellMax + 1 == kTraceArrays);

template <typename S>
double Rms(const S* values, int64_t n) {
  return std::sqrt(SumOfSquares(values, n) / static_cast<double>(n));
}

// NaN when there is one.
template <typename S>
double LargestMagnitude(const S* values, int64_t n) {
  S largest = 0;
  bool defined = true;
  for (int64_t i = 0; i < n; ++i) {
    const S magnitude = std::abs(values[i]);
    largest = magnitude > largest ? magnitude : largest;
    defined &= magnitude == magnitude;
  }
  return defined ? static_cast<double>(largest) : kNaN;
}

template <typename S>
double JointNorm(const S* h, const S* c, int64_t n) {
  double sum = SumOfSquares(h, n);
  if (c != nullptr) sum += SumOfSquares(c, n);
  return std::sqrt(sum);
}

template <typename S>
int64_t CountBelow(const S* values, int64_t n, double limit) {
  const S bound = static_cast<S>(limit);
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += values[i] < bound ? 1 : 0;
  return count;
}

template <typename S>
int64_t CountAbove(const S* values, int64_t n, double limit) {
  const S bound = static_cast<S>(limit);
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += values[i] > bound ? 1 : 0;
  return count;
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

// Gates that end in a sigmoid, the candidate's place included.
int TraceRecorder::SigmoidGates() const {
  return cell_ == Cell::kRnnSigmoid || GatesOf(cell_) > 1 ? GatesOf(cell_) : 0;
}

template <typename S>
void TraceRecorder::CountGates(int64_t rows, const S* h, const S* gates) {
  const int count = SigmoidGates();
  const S* activations = cell_ == Cell::kRnnSigmoid ? h : gates;
  for (int64_t b = 0; b < rows; ++b) {
    for (int gate = 0; gate < count; ++gate) {
      const S* values = activations + (b * count + gate) * hidden_;
      closed_[gate] += CountBelow(values, hidden_, kGateClosed);
      open_[gate] += CountAbove(values, hidden_, kGateOpen);
    }
  }
}

template <typename S>
void TraceRecorder::RecordStates(int64_t t, int64_t rows, const S* h, const S* c, const S* gates) {
  const int64_t n = rows * hidden_;
  Array(kHiddenRms)[t] = Rms(h, n);
  Array(kHiddenMax)[t] = LargestMagnitude(h, n);
  if (c != nullptr) {
    Array(kCellRms)[t] = Rms(c, n);
    Array(kCellMax)[t] = LargestMagnitude(c, n);
  }
  positions_ += rows;
  if (cell_ == Cell::kRnnTanh) {
    saturated_ += CountAbove(h, n, kTanhSaturated) + CountBelow(h, n, -kTanhSaturated);
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
  Array(kStateGradient)[t] = JointNorm(h, c, n);
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
  trace.gates = SigmoidGates();
  for (int gate = 0; gate < trace.gates; ++gate) {
    const bool candidate = cell_ != Cell::kRnnSigmoid && gate == 2;  // n of the GRU, g of the LSTM.
    trace.gate_closed[gate] = candidate ? kNaN : Share(closed_[gate]);
    trace.gate_open[gate] = candidate ? kNaN : Share(open_[gate]);
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
