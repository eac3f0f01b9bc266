#ifndef GRADWATCH_SERVER_NN_TRACE_H_
#define GRADWATCH_SERVER_NN_TRACE_H_

#include <array>
#include <cstdint>

#include "server/nn/buffer.h"
#include "server/nn/network.h"

namespace gradwatch::nn {

// Sum of squares in double, in one fixed order.
template <typename S>
double SumOfSquares(const S* values, int64_t n);

// Collects what LayerTrace shows of one layer. Allocates only in its constructor.
class TraceRecorder {
 public:
  TraceRecorder(Cell cell, int64_t hidden, int64_t time_steps_max);

  // Starts a batch of `time_steps`.
  void Begin(int64_t time_steps, Detail detail);
  Detail detail() const { return detail_; }

  // The states and gate activations that time step t just computed: `h`, `c` [rows, H] (c null
  // without a cell state), `gates` [rows, G*H].
  template <typename S>
  void RecordStates(int64_t t, int64_t rows, const S* h, const S* c, const S* gates);

  // The norms of carry_t (NaN: cut) and of the whole adjoint, over h [n] and c [n] (null: none).
  template <typename S>
  void RecordCarry(int64_t t, const S* h, const S* c, int64_t n);
  void RecordCut(int64_t t);
  template <typename S>
  void RecordAdjoint(int64_t t, const S* h, const S* c, int64_t n);

  // Finishes the batch.
  LayerTrace Finish();

 private:
  double* Array(int index) { return arrays_.data() + index * time_steps_max_; }
  template <typename S>
  void CountGates(int64_t rows, const S* h, const S* gates);
  int CountedGates() const;
  bool IsCandidate(int gate) const;
  double Share(int64_t count) const;
  void FinishShares(LayerTrace& trace) const;

  const Cell cell_;
  const int64_t hidden_;
  const int64_t time_steps_max_;
  Buffer<double> arrays_;
  Buffer<uint8_t> alive_;  // Per unit: was above 0 somewhere.

  Detail detail_ = Detail::kNone;
  int64_t time_steps_ = 0;
  int64_t positions_ = 0;  // Valid (t, row) so far.
  int64_t saturated_ = 0;
  std::array<int64_t, kGatesMax> closed_{};
  std::array<int64_t, kGatesMax> open_{};
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_TRACE_H_
