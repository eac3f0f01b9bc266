#ifndef GRADWATCH_SERVER_NN_PLAN_H_
#define GRADWATCH_SERVER_NN_PLAN_H_

#include <cstdint>

#include "server/nn/network_config.h"

namespace gradwatch::nn {

// Width of what the first layer reads: features, vocabulary or embedding width.
int64_t InputWidthOf(const NetworkConfig& config);

// How many entries each buffer of a network needs. The network allocates exactly these, and
// admission asks for the sum beforehand. Sizes saturate at INT64_MAX.
//
// N is the number of valid positions of a batch: at most rows x time_steps. `members` threads work
// on a batch together.
struct Plan {
  template <typename S>
  static Plan Of(const NetworkConfig& config, int64_t rows, int64_t time_steps, int members);
  int64_t Bytes(int64_t scalar_size) const;

  // Scalars, one buffer each.
  int64_t parameters = 0;
  int64_t inputs = 0;          // [N, F], features only.
  int64_t token_rows = 0;      // [min(V, N), G*H], tokens only; two of them.
  int64_t token_vectors = 0;   // [min(V, N), E], embedding only; two of them.
  int64_t readout_rows = 0;    // [N or rows, O]; two of them.
  int64_t readout_states = 0;  // [rows, H], loss at the last step only.
  int64_t state = 0;           // All layers: [rows, H], twice for the LSTM.
  int64_t adjoint = 0;         // [rows, H]; twice for the LSTM.
  int64_t local = 0;           // [N or rows, H]
  int64_t bias_row = 0;        // [G*H]
  int64_t bulk_pack = 0;
  int64_t recurrent_pack = 0;
  int64_t candidate_pack = 0;  // GRU only.
  int64_t workspaces = 0;      // All members'.

  // Scalars, per layer.
  int64_t gates = 0;       // [N, G*H]
  int64_t states = 0;      // [rows + N, H]; LSTM: twice.
  int64_t cell_tanh = 0;   // [N, H], LSTM only.
  int64_t candidates = 0;  // [N, H], GRU only.

  int layers = 0;
  int members = 1;
  bool has_cell = false;

  // Others.
  int64_t readout_losses = 0;  // Doubles.
  int64_t unit_squares = 0;    // Doubles; only for several members.
  int64_t trace_doubles = 0;   // Per layer.
  int64_t index_bytes = 0;
};

// Arrays over time in a layer's trace.
constexpr int kTraceArrays = 9;

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_PLAN_H_
