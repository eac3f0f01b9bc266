#ifndef GRADWATCH_SERVER_NN_NETWORK_IMPL_H_
#define GRADWATCH_SERVER_NN_NETWORK_IMPL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "server/base/range.h"
#include "server/base/squares.h"
#include "server/base/thread_team.h"
#include "server/nn/batch_layout.h"
#include "server/nn/buffer.h"
#include "server/nn/cells.h"
#include "server/nn/gemm.h"
#include "server/nn/network.h"
#include "server/nn/packet.h"
#include "server/nn/plan.h"
#include "server/nn/trace.h"

namespace gradwatch::nn {

// How a network works.
//
// One run is one task of the thread team, from the first packed weight to the last gradient; its
// members share the work out by rows of the batch or by units, and meet at barriers. Every sum is
// formed in an order that does not depend on who forms it, so the number of members and the way of
// sharing change no bit. What is named `member` is the index of the thread within the team.
//
// forward.cc: states, read-out, loss · backward.cc: gradients · first_nonfinite.cc: the search for
// the first NaN · network.cc: construction and the public face.
template <typename S>
class Network<S>::Impl {
 public:
  Impl(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max, ThreadTeam* team);

  void Predict(const Batch& batch);
  double Forward(const Batch& batch);
  double ForwardBackward(const Batch& batch, Detail detail);
  std::optional<NonFinite> FirstNonFinite() const;
  void SetTruncation(int64_t truncation);
  void HoldChunkStates();
  void ReleaseChunkStates();

  void RowLosses(absl::Span<double> losses) const;
  const S* Output(int64_t t, int64_t row) const;
  const S* Hidden(int layer, int64_t t, int64_t row) const {
    return layers_[static_cast<size_t>(layer)].h.data() +
           (layout_.rows() + layout_.first(t) + row) * hidden_;
  }

  NetworkConfig config_;  // Constant but for the truncation.
  const Plan plan_;
  const std::vector<Parameter> parameters_;
  Buffer<S> weights_;
  Buffer<S> gradients_;
  Buffer<S> state_;
  std::vector<LayerTrace> traces_;

 private:
  struct Layer {
    Layer(const NetworkConfig& config, const Plan& plan, int64_t positions_max,
          int64_t time_steps_max, int members_max)
        : gates(plan.gates),
          h(plan.states),
          c(plan.has_cell ? plan.states : 0),
          c_tanh(plan.cell_tanh),
          candidates(plan.candidates),
          recorder(config.cell, config.hidden, config.truncation, positions_max, time_steps_max,
                   members_max) {}

    int index = 0;
    int64_t input_width = 0;
    // Offsets in the flat buffers.
    int64_t input_weight = 0;
    int64_t recurrent_weight = 0;
    int64_t input_bias = 0;
    int64_t recurrent_bias = 0;

    Buffer<S> gates;       // [N, G*H]
    Buffer<S> h;           // [B + N, H]
    Buffer<S> c;           // [B + N, H]
    Buffer<S> c_tanh;      // [N, H]
    Buffer<S> candidates;  // [N, H]
    TraceRecorder recorder;
    std::vector<S> held_h;  // Copies of h and c, while chunk states are held.
    std::vector<S> held_c;
  };

  // What one member does at a time step: some rows of all units, or all rows of some units.
  struct Share {
    Range rows;
    Range units;
  };

  bool Lstm() const { return config_.cell == Cell::kLstm; }
  bool Gru() const { return config_.cell == Cell::kGru; }
  bool LastStep() const { return config_.loss_at == LossAt::kLastStep; }
  // Of the layer's gradients only those at the rows' last time steps come from above.
  bool LossOnlyAtTheEnd(const Layer& layer) const { return LastStep() && &layer == &Top(); }
  bool Tokens() const { return config_.input != Input::kFeatures; }
  bool ReadsTokens(const Layer& layer) const { return layer.index == 0 && Tokens(); }
  // Nothing is carried back from time step t to t - 1.
  bool CutBefore(int64_t t) const { return config_.truncation > 0 && t % config_.truncation == 0; }
  int64_t Readouts() const { return LastStep() ? layout_.rows() : layout_.positions(); }
  int64_t StateSize() const { return rows_max_ * hidden_; }
  S* StateH(const Layer& layer) { return state_.data() + layer.index * states_ * StateSize(); }
  S* StateC(const Layer& layer) { return StateH(layer) + StateSize(); }
  const Layer& Top() const { return layers_.back(); }
  const S* Positions(const Buffer<S>& states) const {
    return states.data() + layout_.rows() * hidden_;
  }
  // What the layer reads: [N, input_width].
  const S* InputOf(const Layer& layer) const {
    return layer.index == 0 ? inputs_.data()
                            : Positions(layers_[static_cast<size_t>(layer.index - 1)].h);
  }
  // Gates whose recurrent product goes into `gates`; the GRU's third goes into `candidates`.
  int64_t SummedGates() const { return Gru() ? 2 * hidden_ : gate_rows_; }

  // --- Sharing the work.
  void Run(const Batch& batch, Detail detail, absl::FunctionRef<void(int)> work);
  bool SharesUnits(int members) const;
  Range Part(int member, int64_t n, int64_t step = 1) const {
    return PartOf(n, member, members_, step);
  }
  Share ShareOf(int member, int64_t t) const;
  void Barrier() {
    if (members_ > 1) team_->Barrier();
  }
  // At a time step, where members depend on each other's units.
  void UnitBarrier() {
    if (by_units_) Barrier();
  }
  S* Workspace(int member) { return workspaces_.data() + member * OuterProductWorkspace<S>(); }
  // Calls body(range, offset) for the rows of a matrix [gates * H, …] that belong to some units.
  // All units at once where they are all.
  template <typename Body>
  void ForGateRows(int64_t rows, Range units, Body&& body) const {
    if (units.size() == hidden_) return body(Range{0, rows});
    for (int64_t g = 0; g < rows; g += hidden_) body(Range{g + units.begin, g + units.end});
  }

  // --- Packed weights, in the buffers that all layers share.
  PackedMatrix<S> InputPack(const Layer& layer) {
    return {bulk_.data(), gate_rows_, layer.input_width};
  }
  PackedMatrix<S> InputBackPack(const Layer& layer) {
    return {bulk_.data(), layer.input_width, gate_rows_};
  }
  PackedMatrix<S> RecurrentPack() { return {recurrent_.data(), SummedGates(), hidden_}; }
  PackedMatrix<S> CandidatePack() { return {candidate_.data(), hidden_, hidden_}; }
  PackedMatrix<S> RecurrentBackPack() { return {recurrent_.data(), hidden_, SummedGates()}; }
  PackedMatrix<S> CandidateBackPack() { return {candidate_.data(), hidden_, hidden_}; }
  PackedMatrix<S> ReadoutPack() { return {bulk_.data(), config_.outputs, hidden_}; }
  PackedMatrix<S> ReadoutBackPack() { return {bulk_.data(), hidden_, config_.outputs}; }
  void Pack(int member, const PackedMatrix<S>& packed, const S* weight, int64_t ld);
  void PackTransposed(int member, const PackedMatrix<S>& packed, const S* weight, int64_t ld);

  void FindOffsets();
  CellStep<S> StepOf(Layer& layer, int64_t t, const Share& share);

  // --- Forward: what one member does.
  void RunForward(int member, const Batch& batch);
  void CopyFeatures(int member, const Batch& batch);
  void StartStates(int member, const Batch& batch, Layer& layer);
  void KeepStates(int member, const Batch& batch, Layer& layer);
  void FillBias(int member, const Layer& layer);
  void ProjectTokens(int member, const Layer& layer);
  void PackForward(int member, const Layer& layer);
  void CopyTokenRows(Layer& layer, int64_t t, const Share& share);
  int64_t Project(Layer& layer, int64_t t, const Share& share);
  void AddRecurrence(const Layer& layer, const CellStep<S>& step);
  void RecordStates(int member, Layer& layer, int64_t t);
  void ForwardLayer(int member, const Batch& batch, Layer& layer);
  void GatherLast(int member, const Batch& batch);
  void ForwardReadout(int member, const Batch& batch);

  // --- Loss.
  void FindTotalWeight(const Batch& batch);
  void ComputeLosses(int member, const Batch& batch);
  double SumLosses() const;

  // --- Backward: what one member does.
  const S* ReadoutInput() const { return LastStep() ? readout_states_.data() : Positions(Top().h); }
  void RunBackward(int member);
  void ClearTokenGradients(int member);
  void BackwardReadout(int member);
  void PackBackward(int member, const Layer& layer);
  // Which of two sums: of the carry, or of the whole adjoint.
  enum Measured { kCarry, kAdjoint };
  double& UnitSquares(int64_t t, Measured measured, int state, int64_t row, int64_t block) {
    const int64_t blocks = hidden_ / kSquaresBlock;
    const int64_t kind = (t % 2 * 2 + measured) * 2 + state;
    return unit_squares_[(kind * rows_max_ + row) * blocks + block];
  }
  DeltaSquares AdjointSquares(Layer& layer, int64_t t, const Share& share);
  void TakeGradients(Layer& layer, int64_t t, const Share& share, int64_t carried, bool traced);
  void MeasureUnits(Measured measured, int64_t t, int64_t row, Range units);
  void GatherUnitSquares(Measured measured, Layer& layer, int64_t t, Range rows);
  absl::Span<const S> FarGates(int member, const Layer& layer, int64_t t) const;
  void CarryBack(const CellStep<S>& step, absl::Span<const S> soon, S* delta_h);
  void BackToInput(Layer& layer, int64_t t, const Share& share);
  void BackwardThroughTime(int member, Layer& layer);
  void WeightGradients(int member, const Layer& layer);
  void CandidateGradients(int member, const Layer& layer, const BatchLayout::Run& run, Into into);
  void BiasGradient(int member, const Layer& layer);
  void ClearTokenSums(Range gates);
  void SumCandidateByToken(int member, const Layer& layer);
  void TokenGradient(int member, const Layer& layer);

  // --- What the trace says of the states from window to window.
  void MeasureCarriedStates(const Batch& batch, Layer& layer, LayerTrace* trace);
  double Drift(const Batch& batch, const S* before, const S* after) const;

  // --- The search for the first NaN.
  std::optional<NonFinite> NonFiniteInput() const;
  std::optional<NonFinite> NonFiniteStates(const Layer& layer) const;
  std::optional<NonFinite> NonFiniteReadout(const Buffer<S>& values, NonFinite::Stage stage,
                                            const char* name) const;
  std::optional<NonFinite> NonFiniteBackward(const Layer& layer) const;
  std::optional<NonFinite> NonFiniteGradient() const;

  const int64_t rows_max_;
  const int64_t hidden_;
  const int64_t gate_rows_;  // G*H
  const int states_;         // Kinds of state in a layer: 2 for the LSTM.
  ThreadTeam* const team_;   // Null: the calling thread alone.
  int64_t embedding_ = 0;    // Offsets in the flat buffers.
  int64_t readout_weight_ = 0;
  int64_t readout_bias_ = 0;

  // Of the present run.
  int members_ = 1;
  bool by_units_ = false;
  int64_t recorded_ = 0;  // Positions of the layer that RecordStates has had, with one member.
  double total_weight_ = 0.0;
  double loss_ = 0.0;

  BatchLayout layout_;
  std::vector<Layer> layers_;
  Buffer<S> inputs_;           // [N, F]
  Buffer<S> token_rows_;       // [slots, G*H]: first layer's product for each token.
  Buffer<S> token_gradient_;   // [slots, G*H]
  Buffer<S> token_vectors_;    // [slots, E]
  Buffer<S> vector_gradient_;  // [slots, E]
  Buffer<S> readout_states_;   // [B, H]: each row's last h.
  Buffer<S> outputs_;          // [N or B, O]
  Buffer<S> output_gradient_;  // [N or B, O]
  Buffer<double> losses_;      // [N or B], weighted.
  Buffer<S> local_;            // [N or B, H]: gradient at h from above.
  Buffer<S> delta_h_;          // [B, H]
  Buffer<S> delta_c_;          // [B, H]
  Buffer<S> bias_;             // [G*H]
  // Where members hold some units each, their sums over blocks of units until they are put
  // together: [2 (even and odd time steps), 2 (Measured), 2 (h and c), B, H / kSquaresBlock].
  Buffer<double> unit_squares_;
  Buffer<S> bulk_;        // Packed weights: input or read-out.
  Buffer<S> recurrent_;   // Packed weights.
  Buffer<S> candidate_;   // Packed weights, GRU: the part of W_hh that makes the candidate.
  Buffer<S> workspaces_;  // [members, OuterProductWorkspace]
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_NETWORK_IMPL_H_
