#include "server/nn/plan.h"

#include <algorithm>
#include <initializer_list>

#include "server/base/squares.h"
#include "server/nn/buffer.h"
#include "server/nn/gemm.h"
#include "server/nn/trace.h"

namespace gradwatch::nn {
namespace {

int64_t Sum(std::initializer_list<int64_t> terms) {
  int64_t sum = 0;
  for (const int64_t term : terms) sum = SaturatingAdd(sum, term);
  return sum;
}

}  // namespace

int64_t InputWidthOf(const NetworkConfig& config) {
  switch (config.input) {
    case Input::kOneHot:
      return config.vocabulary;
    case Input::kEmbedding:
      return config.embedding_width;
    case Input::kFeatures:
      break;
  }
  return config.features;
}

template <typename S>
Plan Plan::Of(const NetworkConfig& config, int64_t rows, int64_t time_steps, int members) {
  const auto times = SaturatingMultiply;
  const int64_t hidden = config.hidden;
  const int64_t gate_rows = times(GatesOf(config.cell), hidden);
  const int64_t positions = times(rows, time_steps);
  const bool last = config.loss_at == LossAt::kLastStep;
  const int64_t readouts = last ? rows : positions;
  const bool tokens = config.input != Input::kFeatures;
  const int64_t slots = tokens ? std::min(config.vocabulary, positions) : 0;
  const bool gru = config.cell == Cell::kGru;

  Plan plan;
  plan.layers = config.layers;
  plan.members = members;
  plan.has_cell = config.cell == Cell::kLstm;
  const int64_t states_per_layer = plan.has_cell ? 2 : 1;
  plan.parameters = ParameterCountOf(config);
  plan.inputs = tokens ? 0 : times(positions, config.features);
  plan.token_rows = times(slots, gate_rows);
  plan.token_vectors = config.input == Input::kEmbedding ? times(slots, config.embedding_width) : 0;
  plan.readout_rows = times(readouts, config.outputs);
  plan.readout_states = last ? times(rows, hidden) : 0;
  plan.state = times(times(config.layers, states_per_layer), times(rows, hidden));
  plan.adjoint = times(rows, hidden);
  plan.local = times(config.layers > 1 ? positions : readouts, hidden);
  plan.readout_losses = readouts;
  plan.bias_row = gate_rows;
  if (members > 1) plan.unit_squares = times(times(8, rows), hidden / kSquaresBlock);

  using Packed = PackedMatrix<S>;
  plan.bulk_pack =
      std::max(Packed::Size(config.outputs, hidden), Packed::Size(hidden, config.outputs));
  if (config.layers > 1) {
    plan.bulk_pack = std::max(
        {plan.bulk_pack, Packed::Size(gate_rows, hidden), Packed::Size(hidden, gate_rows)});
  }
  if (config.input != Input::kOneHot) {
    const int64_t width = InputWidthOf(config);
    plan.bulk_pack =
        std::max({plan.bulk_pack, Packed::Size(gate_rows, width), Packed::Size(width, gate_rows)});
  }
  const int64_t first_gates = gru ? times(2, hidden) : gate_rows;
  plan.recurrent_pack =
      std::max(Packed::Size(first_gates, hidden), Packed::Size(hidden, first_gates));
  plan.candidate_pack = gru ? Packed::Size(hidden, hidden) : 0;
  plan.workspaces = times(members, OuterProductWorkspace<S>());

  plan.gates = times(positions, gate_rows);
  plan.states = times(SaturatingAdd(rows, positions), hidden);
  plan.cell_tanh = plan.has_cell ? times(positions, hidden) : 0;
  plan.candidates = gru ? times(positions, hidden) : 0;

  plan.trace_doubles =
      SaturatingAdd(times(kTraceArrays, time_steps), times(kTraceValues, positions));
  // First position of each time step (8 bytes), segments (24), strides of each layer (4), slot of
  // each position and token (4), and what layers know of units and gates.
  plan.index_bytes =
      Sum({times(SaturatingAdd(time_steps, 1), 8 + 24), times(config.layers, times(4, time_steps)),
           tokens ? times(4, positions) : 0,
           tokens ? times(4, SaturatingAdd(config.vocabulary, slots)) : 0,
           times(config.layers, TraceRecorder::UnitBytesOf(config.cell, hidden, members))});
  return plan;
}

int64_t Plan::Bytes(int64_t scalar_size) const {
  const auto times = SaturatingMultiply;
  const int64_t shared =
      Sum({times(2, parameters), inputs, times(2, token_rows), times(2, token_vectors),
           times(2, readout_rows), readout_states, state, times(has_cell ? 2 : 1, adjoint), local,
           bias_row, bulk_pack, recurrent_pack, candidate_pack, workspaces});
  const int64_t per_layer = Sum({gates, times(has_cell ? 2 : 1, states), cell_tanh, candidates});
  const int64_t scalars = SaturatingAdd(shared, times(layers, per_layer));
  return Sum({times(scalars, scalar_size), times(times(layers, trace_doubles), 8),
              times(8, readout_losses), times(8, unit_squares), index_bytes});
}

template Plan Plan::Of<float>(const NetworkConfig&, int64_t, int64_t, int);
template Plan Plan::Of<double>(const NetworkConfig&, int64_t, int64_t, int);

}  // namespace gradwatch::nn
