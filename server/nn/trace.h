#ifndef GRADWATCH_SERVER_NN_TRACE_H_
#define GRADWATCH_SERVER_NN_TRACE_H_

#include <array>
#include <cstdint>

#include "server/base/range.h"
#include "server/nn/batch_layout.h"
#include "server/nn/buffer.h"
#include "server/nn/gate_sums.h"
#include "server/nn/network.h"

namespace gradwatch::nn {

// Values for each position in a layer's trace, see TraceRecorder.
constexpr int kTraceValues = 8;

// Of so few units norms cost a share of a time step that counts, and members do not share them.
constexpr int64_t kShortRow = 128;

// Collects what LayerTrace shows of one layer, from several threads: each gives the rows that are
// its own. Allocates only in its constructor.
class TraceRecorder {
 public:
  // For batches of at most `positions_max` valid positions and `time_steps_max` time steps, with
  // carries that are cut where NetworkConfig::truncation says, and `members_max` threads.
  TraceRecorder(Cell cell, int64_t hidden, int64_t truncation, int64_t positions_max,
                int64_t time_steps_max, int members_max);

  // Starts a batch, which `layout` describes. By one thread. Whether every carry is the adjoint, as
  // the loss is at the last step; see LayerTrace::strides.
  void Begin(Detail detail, const BatchLayout& layout, bool carry_is_adjoint);
  Detail detail() const { return detail_; }
  void SetTruncation(int64_t truncation) { truncation_ = truncation; }

  // What positions [begin, end) have computed: `h`, `c`, `c_tanh` [N, H] (null without a cell
  // state), `gates` [N, G*H].
  template <typename S>
  void RecordStates(int member, Range positions, const S* h, const S* c, const S* c_tanh,
                    const S* gates);

  // Mean cosine over the pairs of `rows` rows [rows, H]; see LayerTrace::state_similarity.
  template <typename S>
  double Similarity(const S* states, int64_t rows);

  // What a recorder holds for units and gates, in bytes; saturates.
  static int64_t UnitBytesOf(Cell cell, int64_t hidden, int members);

  // Where sums of squares go: of the carry's h and c that arrive at a position, unless every carry
  // is the adjoint; and of the whole adjoint there, of h and of c, zero for cells without one.
  double* Carry(int64_t position) { return &At(kCarry, position); }
  double* HiddenAdjoint(int64_t position) { return &At(kAdjointH, position); }
  double* CellAdjoint(int64_t position) { return &At(kAdjointC, position); }

  // Whether the gradients at time step t, which go down from the last, are to be recorded. Asked by
  // members that have rows then; where some time steps are left out that is one alone.
  bool Wants(int64_t t) const { return sparse_ ? t == next_ || t == 0 : detail_ != Detail::kNone; }
  // They have been, for all rows that a member has.
  void Recorded(int64_t t) {
    if (sparse_) RecordStride(t);
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

  // How many values of a member's were saturated, in lanes that are summed at the end; as many as
  // the widest vector has, in a cache line of its own. They do not overflow: a batch with 2^31
  // states would take more than 8 GB.
  struct alignas(64) Saturated {
    std::array<int32_t, 16> lanes{};
  };

  double& At(Value value, int64_t position) { return values_[value * positions_max_ + position]; }
  double* Array(int index) { return arrays_.data() + index * time_steps_max_; }
  template <typename S>
  void RecordHidden(int member, Range positions, const S* h);
  static int CountedGatesOf(Cell cell);
  int CountedGates() const { return CountedGatesOf(cell_); }
  bool HasKeepGate() const { return cell_ == Cell::kLstm || cell_ == Cell::kGru; }
  template <typename Rows, typename Combine>
  const double* OverRows(const BatchLayout& layout, Value value, int64_t steps, Rows rows,
                         Combine combine, double* results);
  void RecordStride(int64_t t);
  void FinishStrides(LayerTrace* trace);
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
  Buffer<double> values_;        // [kTraceValues, positions]
  Buffer<double> arrays_;        // [kTraceArrays, T]
  Buffer<Saturated> saturated_;  // [members]
  Buffer<uint8_t> alive_;        // [members, H]: the unit was above 0 somewhere.
  GateSums gate_sums_;
  Buffer<double> unit_work_;  // [H]
  Buffer<int> strides_;       // [T], between recorded time steps.
  Detail detail_ = Detail::kNone;
  bool carry_is_adjoint_ = false;
  bool sparse_ = false;   // Only some time steps are recorded:
  int64_t first_ = 0;     // this one first,
  int64_t recorded_ = 0;  // so many until now,
  int64_t before_ = 0;    // this one at last,
  int64_t next_ = 0;      // and this one follows.
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_TRACE_H_
