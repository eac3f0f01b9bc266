#ifndef GRADWATCH_SERVER_NN_CELLS_H_
#define GRADWATCH_SERVER_NN_CELLS_H_

#include <cstdint>

#include "server/base/range.h"
#include "server/nn/network_config.h"

namespace gradwatch::nn {

// One cell at one time step, for `rows` rows and the units of a range. Arrays are row-major without
// gaps and start at the first of the rows and at unit 0; what a cell does not have is null.
template <typename S>
struct CellStep {
  int64_t rows = 0;
  int64_t hidden = 0;  // H
  Range units;         // Of 0 … H.
  // [rows, G*H]. Forward: pre-activations W_ih x + b_ih + W_hh h + b_hh turn into activations
  // (the plain cells leave them). Backward: they turn into the gradient at the pre-activations.
  S* gates = nullptr;
  // GRU, [rows, H]: W_hn h + b_hn, which is kept out of the third gate. Backward turns it into its
  // gradient.
  S* candidate = nullptr;
  const S* h_before = nullptr;  // [rows, H]
  S* h = nullptr;               // [rows, H]
  const S* c_before = nullptr;  // LSTM, [rows, H]
  S* c = nullptr;               // LSTM, [rows, H]
  S* c_tanh = nullptr;          // LSTM, [rows, H]: tanh(c).
};

template <typename S>
void ForwardCell(Cell cell, const CellStep<S>& step);

// Whether a part of the gradient at h reaches the h before without passing W_hh.
inline bool CarriesDirectly(Cell cell) { return cell == Cell::kGru; }

// Where each row's sum of squares goes, one after the other; null where it is not wanted. `c` is
// null for cells without one.
struct DeltaSquares {
  double* h = nullptr;
  double* c = nullptr;
};

// Before: delta_h [rows, H] is the total gradient at h, delta_c (LSTM) the one at c from the next
// step. After: delta_h is what CarriesDirectly speaks of and has no meaning for the other cells;
// delta_c is what reaches the c before. `squares` gets those of what there was before, over the
// step's units, summed in double in an order that depends on their number alone.
template <typename S>
void BackwardCell(Cell cell, const CellStep<S>& step, S* delta_h, S* delta_c,
                  const DeltaSquares& squares = {});

extern template void ForwardCell(Cell, const CellStep<float>&);
extern template void ForwardCell(Cell, const CellStep<double>&);
extern template void BackwardCell(Cell, const CellStep<float>&, float*, float*,
                                  const DeltaSquares&);
extern template void BackwardCell(Cell, const CellStep<double>&, double*, double*,
                                  const DeltaSquares&);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_CELLS_H_
