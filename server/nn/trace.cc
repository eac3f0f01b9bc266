#include "server/nn/trace.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

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

// See LayerTrace::strides.
constexpr int64_t kStrideMax = 16;
constexpr double kNearNormMin = 1e-20;

enum ArrayIndex {
  kStateGradient,
  kCarryNorm,
  kRatio,
  kHiddenGradient,
  kHiddenRms,
  kHiddenLargest,
  kCellRms,
  kCellLargest,
  kPerStateValue,  // One over how many values all rows' states have.
};
static_assert(kPerStateValue + 1 == kTraceArrays);

// Of one row after the other, [rows, n]: the sum of squares, and the largest magnitude, 0 for none,
// which may pass over NaN. Calls count(mask) for each vector, where lanes are -1 whose magnitude is
// above `limit`, which is not negative, and 0 otherwise.
template <typename S, typename Count>
void MeasureRows(const S* values, int64_t rows, int64_t n, S limit, double* squares,
                 double* largest, Count count) {
  constexpr int64_t kRows = kVectorSize<S>;
  ForRowGroups<S>(rows, [&](int64_t begin, auto some) {
    Vector<S> maxima[kRows];
    std::fill_n(maxima, kRows, Vector<S>{});
    const auto measure = [&](auto rows_together, int row, const S* from, int64_t stride,
                             int64_t size, Vector<S>* lanes) {
      constexpr int kTogether = rows_together.value;
      Packet<S> largest_of[kTogether];
      for (int r = 0; r < kTogether; ++r) largest_of[r] = Packet<S>(maxima[row + r]);
      LanesOfRows<S, kTogether>(from, stride, size, lanes, [&](auto r, const Vector<S>& of) {
        const Packet<S> magnitudes = packet::pabs(Packet<S>(of));
        largest_of[r.value] = packet::pmax(largest_of[r.value], magnitudes);
        count(Vector<S>(magnitudes) > limit);
      });
      for (int r = 0; r < kTogether; ++r) maxima[row + r] = Vector<S>(largest_of[r]);
    };
    QuickSumsOfSquares(values + begin * n, n, some, n, squares + begin, measure);
    S across[kRows];
    StoreVector<S>(AcrossLanes<S>(maxima,
                                  [](const Vector<S>& x, const Vector<S>& y) {
                                    return Vector<S>(packet::pmax(Packet<S>(x), Packet<S>(y)));
                                  }),
                   across);
    std::copy_n(across, static_cast<int>(some), largest + begin);
  });
}

// As MeasureRows; adds, lane by lane, how many magnitudes are above `limit`.
template <typename S, typename Lanes>
void MeasureAndCountRows(const S* values, int64_t rows, int64_t n, S limit, double* squares,
                         double* largest, Lanes* lanes) {
  decltype(Vector<S>{} < Vector<S>{}) above = {};
  MeasureRows(values, rows, n, limit, squares, largest,
              [&above](const auto& mask) { above -= mask; });
  AddLanes(__builtin_convertvector(above, typename CountersOf<S>::Type), lanes);
}

// The sum of squares of one row after the other, each `stride` values after the one before.
template <typename S>
void SquaresOfRows(const S* values, int64_t stride, int64_t rows, int64_t n, double* squares) {
  const auto lanes_of = [](auto rows_together, int, const S* from, int64_t row_stride, int64_t size,
                           Vector<S>* lanes) {
    LanesOfRows<S, rows_together.value>(from, row_stride, size, lanes,
                                        [](auto, const Vector<S>&) {});
  };
  ForRowGroups<S>(rows, [&](int64_t begin, auto some) {
    QuickSumsOfSquares(values + begin * stride, stride, some, n, squares + begin, lanes_of);
  });
}

// By packets whoever asks, so that equal sums have equal roots.
void SquareRoots(const double* values, int64_t n, double* roots) {
  ForPackets<double>(n, [=](int64_t i, auto lanes) {
    Store(roots + i, packet::psqrt(Load(values + i, lanes)), lanes);
  });
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
      unit_work_(hidden),
      strides_(time_steps_max) {}

int64_t TraceRecorder::UnitBytesOf(Cell cell, int64_t hidden, int members) {
  const int64_t flags = cell == Cell::kRnnRelu ? hidden : 0;
  return SaturatingAdd(
      GateSums::MemoryBytesOf(CountedGatesOf(cell), hidden, members),
      SaturatingAdd(SaturatingMultiply(members, SaturatingAdd(flags, sizeof(Saturated))),
                    SaturatingMultiply(hidden, static_cast<int64_t>(sizeof(double)))));
}

void TraceRecorder::Begin(Detail detail, const BatchLayout& layout, bool carry_is_adjoint) {
  detail_ = detail;
  carry_is_adjoint_ = carry_is_adjoint;
  sparse_ = detail == Detail::kGrowth && carry_is_adjoint && layout.rows() == 1 &&
            hidden_ <= kShortRow && truncation_ == 0;
  recorded_ = 0;
  first_ = next_ = layout.time_steps() - 1;
  if (detail != Detail::kFull) return;
  std::fill_n(saturated_.data(), members_max_, Saturated{});
  std::fill_n(alive_.data(), alive_.size(), uint8_t{0});
  gate_sums_.Clear();
}

int TraceRecorder::CountedGatesOf(Cell cell) {
  return cell == Cell::kRnnSigmoid || GatesOf(cell) > 1 ? GatesOf(cell) : 0;
}

template <typename S>
void TraceRecorder::RecordHidden(int member, Range positions, const S* h) {
  const int64_t rows = positions.size();
  double* const squares = &At(kHidden, positions.begin);
  double* const largest = &At(kHiddenMax, positions.begin);
  auto* const lanes = &saturated_[member].lanes;
  if (cell_ == Cell::kRnnRelu) {
    // What is not above zero is saturated. A NaN counts, too, but makes the states none anyway.
    Saturated above;
    MeasureAndCountRows(h, rows, hidden_, S(0), squares, largest, &above.lanes);
    (*lanes)[0] += static_cast<int32_t>(rows * hidden_ - SumOfLanes(above.lanes));
    uint8_t* const alive = alive_.data() + member * hidden_;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < hidden_; ++i) alive[i] |= h[row * hidden_ + i] > S(0) ? 1 : 0;
    }
  } else {
    MeasureAndCountRows(h, rows, hidden_, static_cast<S>(kSaturated), squares, largest, lanes);
  }
}

template <typename S>
void TraceRecorder::RecordStates(int member, Range positions, const S* h, const S* c,
                                 const S* c_tanh, const S* gates) {
  const int64_t gate_rows = GatesOf(cell_) * hidden_;
  const int64_t at = positions.begin * hidden_;
  const int64_t rows = positions.size();
  double* const activations = &At(kActivation, positions.begin);
  RecordHidden(member, positions, h + at);
  if (cell_ == Cell::kLstm) {
    MeasureRows(c + at, rows, hidden_, S(0), &At(kCell, positions.begin),
                &At(kCellMax, positions.begin), [](const auto&) {});
    SquaresOfRows(c_tanh + at, hidden_, rows, hidden_, activations);
  }
  if (cell_ == Cell::kGru) {
    SquaresOfRows(gates + positions.begin * gate_rows + 2 * hidden_, gate_rows, rows, hidden_,
                  activations);
  }
  if (CountedGates() == 0) return;
  const int64_t stride = cell_ == Cell::kRnnSigmoid ? hidden_ : gate_rows;
  const S* const values = cell_ == Cell::kRnnSigmoid ? h : gates;
  gate_sums_.Add(member, values + positions.begin * stride, stride, rows);
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

// What `combine` makes, from 0 on, of a value at the first `steps` time steps' first rows, as many
// as `rows` says. In `results`, or of one row where the values are.
template <typename Rows, typename Combine>
const double* TraceRecorder::OverRows(const BatchLayout& layout, Value value, int64_t steps,
                                      Rows rows, Combine combine, double* results) {
  const double* const values = &At(value, 0);
  if (layout.rows() == 1) return values;
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t begin = layout.first(t);
    results[t] = std::accumulate(values + begin, values + begin + rows(t), 0.0, combine);
  }
  return results;
}

void TraceRecorder::RecordStride(int64_t t) {
  if (recorded_ > 0) strides_[recorded_ - 1] = static_cast<int>(before_ - t);
  ++recorded_;
  before_ = t;
  const double squares = At(kAdjointH, t) + At(kAdjointC, t);
  const bool near = squares < kNearNormMin * kNearNormMin;
  next_ = t - (near ? 1 : std::clamp<int64_t>(first_ - t, 1, kStrideMax));
}

void TraceRecorder::FinishStrides(LayerTrace* trace) {
  const auto strides = static_cast<size_t>(recorded_ - 1);
  std::reverse(strides_.data(), strides_.data() + strides);
  double* const norms = Array(kStateGradient);
  int64_t t = 0;
  for (size_t i = 0; i <= strides; ++i) {
    norms[i] = At(kAdjointH, t) + At(kAdjointC, t);
    if (i < strides) t += strides_.data()[i];
  }
  SquareRoots(norms, recorded_, norms);
  trace->state_gradient_norm = {norms, strides + 1};
  trace->carry_norm = {norms, strides};
  trace->strides = {strides_.data(), strides};
}

void TraceRecorder::FinishGradients(const BatchLayout& layout, LayerTrace* trace) {
  const int64_t steps = layout.time_steps();
  double* const adjoint = Array(kStateGradient);
  double* const hidden = Array(kHiddenGradient);
  double* const carry = Array(kCarryNorm);
  double* const ratio = Array(kRatio);
  const auto valid = [&layout](int64_t t) { return layout.valid(t); };
  const auto go_on = [&layout](int64_t t) { return layout.valid(t + 1); };
  // The roots of the sums over some rows of two values. The ratios' place is free until they come.
  const auto norms = [&](Value first, Value second, int64_t count, auto rows, double* results) {
    const double* const a = OverRows(layout, first, count, rows, std::plus<>(), results);
    const double* const b = OverRows(layout, second, count, rows, std::plus<>(), ratio);
    ForPackets<double>(count, [&](int64_t t, auto lanes) {
      Store(results + t, packet::psqrt(packet::padd(Load(a + t, lanes), Load(b + t, lanes))),
            lanes);
    });
  };
  norms(kAdjointH, kAdjointC, steps, valid, adjoint);
  if (!carry_is_adjoint_) {
    SquareRoots(OverRows(layout, kCarry, steps - 1, go_on, std::plus<>(), carry), steps - 1, carry);
  } else if (layout.rows() == 1) {
    std::copy_n(adjoint, steps - 1, carry);
  } else {
    norms(kAdjointH, kAdjointC, steps - 1, go_on, carry);
  }
  if (truncation_ > 0) {
    for (int64_t t = truncation_ - 1; t < steps - 1; t += truncation_) carry[t] = kNaN;
  }
  const auto size = static_cast<size_t>(steps);
  trace->state_gradient_norm = {adjoint, size};
  trace->carry_norm = {carry, size - 1};
  if (detail_ != Detail::kFull) return;
  SquareRoots(OverRows(layout, kAdjointH, steps, valid, std::plus<>(), hidden), steps, hidden);
  ForPackets<double>(steps - 1, [&](int64_t t, auto lanes) {
    const Packet<double> arrived = Load(carry + t, lanes);
    const Packet<double> sent = Load(adjoint + t + 1, lanes);
    const Packet<double> value = packet::pdiv(arrived, sent);
    const auto known = [](const Packet<double>& norm) {
      return packet::pcmp_le(Constant<double>(kNormMin), norm);
    };
    const Packet<double> finite =
        packet::pcmp_le(value, Constant<double>(std::numeric_limits<double>::max()));
    const Packet<double> defined = packet::pand(packet::pand(known(arrived), known(sent)), finite);
    Store(ratio + t, packet::pselect(defined, value, Constant<double>(kNaN)), lanes);
  });
  trace->carry_ratio = {ratio, size - 1};
  trace->hidden_gradient_norm = {hidden, size};
}

// A maximum may have passed over a NaN, a sum has not.
void TraceRecorder::FinishStates(const BatchLayout& layout, LayerTrace* trace) {
  const int64_t steps = layout.time_steps();
  double* const per_value = Array(kPerStateValue);
  const auto valid = [&layout](int64_t t) { return layout.valid(t); };
  const auto most = [](double a, double b) { return std::max(a, b); };
  std::fill_n(per_value, steps, 1.0 / static_cast<double>(hidden_));
  for (int64_t t = 0; t < steps && layout.rows() > 1; ++t) {
    per_value[t] /= static_cast<double>(valid(t));
  }
  const auto finish = [&](Value squares, Value largest, ArrayIndex rms_index,
                          ArrayIndex largest_index, absl::Span<const double>* rms_out,
                          absl::Span<const double>* largest_out) {
    double* const rms = Array(rms_index);
    double* const maxima = Array(largest_index);
    const double* const sums = OverRows(layout, squares, steps, valid, std::plus<>(), rms);
    const double* const most_of = OverRows(layout, largest, steps, valid, most, maxima);
    ForPackets<double>(steps, [&](int64_t t, auto lanes) {
      const Packet<double> mean = packet::pmul(Load(sums + t, lanes), Load(per_value + t, lanes));
      const Packet<double> found = packet::psqrt(mean);
      Store(rms + t, found, lanes);
      Store(maxima + t,
            packet::pselect(packet::pcmp_eq(found, found), Load(most_of + t, lanes), found), lanes);
    });
    *rms_out = {rms, static_cast<size_t>(steps)};
    *largest_out = {maxima, static_cast<size_t>(steps)};
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
  const double* const values = &At(squares, 0);
  const double sum = std::accumulate(values, values + layout.positions(), 0.0);
  const double mean_square = sum / static_cast<double>(layout.positions() * hidden_);
  if (cell_ == Cell::kRnnSigmoid) return 4.0 * (trace.gate_mean[0] - mean_square);
  return 1.0 - mean_square;
}

LayerTrace TraceRecorder::Finish(const BatchLayout& layout) {
  LayerTrace trace;
  if (detail_ == Detail::kNone) return trace;
  if (sparse_) {
    FinishStrides(&trace);
    return trace;
  }
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
