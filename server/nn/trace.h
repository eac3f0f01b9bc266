#ifndef GRADWATCH_SERVER_NN_TRACE_H_
#define GRADWATCH_SERVER_NN_TRACE_H_

#include <array>
#include <cstdint>

#include "server/base/squares.h"
#include "server/nn/batch_layout.h"
#include "server/nn/buffer.h"
#include "server/nn/network.h"
#include "server/nn/unit_means.h"

namespace gradwatch::nn {

// Values for each position in a layer's trace, see TraceRecorder.
constexpr int kTraceValues = 8;

// Collects what LayerTrace shows of one layer, from several threads: each gives the rows that are
// its own. Allocates only in its constructor.
class TraceRecorder {
 public:
  // For batches of at most `positions_max` valid positions and `time_steps_max` time steps, with
  // carries that are cut where NetworkConfig::truncation says, and `members_max` threads.
  TraceRecorder(Cell cell, int64_t hidden, int64_t truncation, int64_t positions_max,
                int64_t time_steps_max, int members_max);

  // Starts a batch. By one thread.
  void Begin(Detail detail);
  Detail detail() const { return detail_; }
  void SetTruncation(int64_t truncation) { truncation_ = truncation; }

  // What one position has just computed: `h`, `c`, `c_tanh` [H] (null without a cell state),
  // `gates` [G*H].
  template <typename S>
  void RecordStates(int member, int64_t position, const S* h, const S* c, const S* c_tanh,
                    const S* gates);

  // Mean cosine over the pairs of `rows` rows [rows, H]; see LayerTrace::state_similarity.
  template <typename S>
  double Similarity(const S* states, int64_t rows);

  // What a recorder holds for the means of gates, in bytes; saturates.
  static int64_t UnitBytesOf(Cell cell, int64_t hidden, int members);

  // The carry that arrives at a position, and the whole adjoint there; c all zero where there is
  // none.
  void RecordCarry(int64_t position, const Squares& h, const Squares& c) {
    At(kCarry, position) = h.Total() + c.Total();
  }
  void RecordAdjoint(int64_t position, const Squares& h, const Squares& c) {
    At(kAdjointH, position) = h.Total();
    At(kAdjointC, position) = c.Total();
  }

  // Finishes the batch, which `layout` describes. By one thread.
  LayerTrace Finish(const BatchLayout& layout);

 private:
  enum Value {
    kCarry,
    kAdjointH,
    kAdjointC,
    kHidden,
    kHiddenMax,
    kCell,
    kCellMax,
    kActivation,  // Squares of c_tanh or n: what else makes the state is in kHidden.
  };
  static_assert(kActivation + 1 == kTraceValues);

  // What one member counted, in lanes that are summed at the end. As many as the widest vector has;
  // a member writes to cache lines of its own.
  struct Counts {
    static constexpr int kLanes = 16;
    using Lanes = std::array<int32_t, kLanes>;
    alignas(64) Lanes saturated{};
    std::array<Lanes, kGatesMax> closed{};
    std::array<Lanes, kGatesMax> open{};
  };

  double& At(Value value, int64_t position) { return values_[value * positions_max_ + position]; }
  double* Array(int index) { return arrays_.data() + index * time_steps_max_; }
  template <typename S>
  void CountGates(Counts* counts, const S* h, const S* gates) const;
  static int CountedGatesOf(Cell cell);
  int CountedGates() const { return CountedGatesOf(cell_); }
  bool HasKeepGate() const { return cell_ == Cell::kLstm || cell_ == Cell::kGru; }
  bool IsCandidate(int gate) const;
  // Over the first `rows` rows of time step t, in order.
  double SumOf(const BatchLayout& layout, Value value, int64_t t, int64_t rows);
  double LargestOf(const BatchLayout& layout, Value value, int64_t t);
  bool CutAfter(int64_t t) const { return truncation_ > 0 && (t + 1) % truncation_ == 0; }
  void FinishGradients(const BatchLayout& layout, LayerTrace* trace);
  void FinishStates(const BatchLayout& layout, LayerTrace* trace);
  void FinishShares(const BatchLayout& layout, LayerTrace* trace) const;
  void FinishGates(int64_t positions, LayerTrace* trace);
  void FinishTimeConstants(int64_t positions, LayerTrace* trace);
  double ActivationSlope(const BatchLayout& layout, const LayerTrace& trace);

  const Cell cell_;
  const int64_t hidden_;
  int64_t truncation_;
  const int64_t positions_max_;
  const int64_t time_steps_max_;
  const int members_max_;
  Buffer<double> values_;     // [kTraceValues, positions]
  Buffer<double> arrays_;     // [kTraceArrays, T]
  Buffer<Counts> counts_;     // [members]
  Buffer<uint8_t> alive_;     // [members, H]: the unit was above 0 somewhere.
  UnitMeans gate_means_;      // [gates, H]
  Buffer<double> unit_work_;  // [H]
  Detail detail_ = Detail::kNone;
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_TRACE_H_
