#include <algorithm>

#include "server/nn/network_impl.h"

namespace gradwatch::nn {

template <typename S>
void Network<S>::Impl::RunBackward(int member) {
  ClearTokenGradients(member);
  Barrier();
  BackwardReadout(member);
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    PackBackward(member, *layer);
    Barrier();
    BackwardThroughTime(member, *layer);
    Barrier();
    WeightGradients(member, *layer);
    if (ReadsTokens(*layer)) TokenGradient(member, *layer);
    Barrier();
    BiasGradient(member, *layer);
  }
}

// Of tokens that the batch does not have; every other gradient is overwritten.
template <typename S>
void Network<S>::Impl::ClearTokenGradients(int member) {
  if (!Tokens()) return;
  const bool one_hot = config_.input == Input::kOneHot;
  S* gradient = gradients_.data() + (one_hot ? layers_.front().input_weight : embedding_);
  const int64_t size = config_.vocabulary * (one_hot ? gate_rows_ : layers_.front().input_width);
  const Range part = Part(member, size);
  std::fill(gradient + part.begin, gradient + part.end, S(0));
}

// Leaves the gradient at the states in local_.
template <typename S>
void Network<S>::Impl::BackwardReadout(int member) {
  const int64_t outputs = config_.outputs;
  const S* gradient = output_gradient_.data();
  PackTransposed(member, ReadoutBackPack(), weights_.data() + readout_weight_, hidden_);
  const OuterTerm<S> term = {hidden_, ReadoutInput(), hidden_, gradients_.data() + readout_weight_,
                             hidden_};
  OuterProducts<S>(Part(member, outputs, kOuterStep), Readouts(), gradient, outputs, {&term, 1},
                   Into::kOverwrite, {.all = gradients_.data() + readout_bias_}, Workspace(member));
  Barrier();
  const Range part = Part(member, Readouts());
  ReadoutBackPack().Multiply({0, hidden_}, part.size(), gradient + part.begin * outputs, outputs,
                             Into::kOverwrite, nullptr, local_.data() + part.begin * hidden_,
                             hidden_);
  Barrier();
}

template <typename S>
void Network<S>::Impl::PackBackward(int member, const Layer& layer) {
  const S* recurrent = weights_.data() + layer.recurrent_weight;
  PackTransposed(member, RecurrentBackPack(), recurrent, hidden_);
  if (Gru()) {
    PackTransposed(member, CandidateBackPack(), recurrent + SummedGates() * hidden_, hidden_);
  }
  if (layer.index == 0 && config_.input != Input::kEmbedding) return;
  PackTransposed(member, InputBackPack(layer), weights_.data() + layer.input_weight,
                 layer.input_width);
}

// Where BackwardCell puts the squares of the adjoint at time step t, in layers with short rows.
template <typename S>
DeltaSquares Network<S>::Impl::AdjointSquares(Layer& layer, int64_t t, const Share& share) {
  const int64_t position = layout_.first(t) + share.rows.begin;
  return {layer.recorder.HiddenAdjoint(position),
          Lstm() ? layer.recorder.CellAdjoint(position) : nullptr};
}

// Makes the adjoint of time step t, for the member's share: what was carried back to the first
// `carried` rows, and what comes from above. Measures the one before the other is added, and of
// long rows the whole.
template <typename S>
void Network<S>::Impl::TakeGradients(Layer& layer, int64_t t, const Share& share, int64_t carried,
                                     bool traced) {
  // A loss at the last step reaches only the rows that end here.
  const bool last = LossOnlyAtTheEnd(layer);
  const int64_t local_begin = last ? layout_.valid(t + 1) : 0;
  const int64_t local_offset = last ? 0 : layout_.first(t);
  const auto [rows, units] = share;
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    S* const h = delta_h_.data() + b * hidden_ + units.begin;
    S* const c = Lstm() ? delta_c_.data() + b * hidden_ + units.begin : nullptr;
    const bool local = b >= local_begin;
    if (b >= carried) {
      std::fill_n(h, units.size(), S(0));
      if (c != nullptr) std::fill_n(c, units.size(), S(0));
    } else if (traced && by_units_) {
      MeasureUnits(kCarry, t, b, units);
    } else if (traced && local) {
      const double c_squares = c == nullptr ? 0.0 : QuickSumOfSquares(c, hidden_);
      *layer.recorder.Carry(layout_.first(t) + b) = QuickSumOfSquares(h, hidden_) + c_squares;
    }
    if (local) AddTo(h, local_.data() + (local_offset + b) * hidden_ + units.begin, units.size());
    if (!traced || hidden_ <= kShortRow) continue;
    if (by_units_) {
      MeasureUnits(kAdjoint, t, b, units);
    } else {
      const int64_t position = layout_.first(t) + b;
      *layer.recorder.HiddenAdjoint(position) = QuickSumOfSquares(h, hidden_);
      if (c != nullptr) *layer.recorder.CellAdjoint(position) = QuickSumOfSquares(c, hidden_);
    }
  }
}

// Block by block, for GatherUnitSquares to put together behind a barrier.
template <typename S>
void Network<S>::Impl::MeasureUnits(Measured measured, int64_t t, int64_t row, Range units) {
  for (int64_t u = units.begin; u < units.end; u += kSquaresBlock) {
    for (int state = 0; state < states_; ++state) {
      const S* delta = (state == 0 ? delta_h_ : delta_c_).data() + row * hidden_ + u;
      UnitSquares(t, measured, state, row, u / kSquaresBlock) =
          QuickSumOfSquares(delta, kSquaresBlock);
    }
  }
}

template <typename S>
void Network<S>::Impl::GatherUnitSquares(Measured measured, Layer& layer, int64_t t, Range rows) {
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    double sums[2] = {};
    for (int state = 0; state < states_; ++state) {
      for (int64_t block = 0; block < hidden_ / kSquaresBlock; ++block) {
        sums[state] += UnitSquares(t, measured, state, b, block);
      }
    }
    const int64_t position = layout_.first(t) + b;
    if (measured == kCarry) {
      *layer.recorder.Carry(position) = sums[0] + sums[1];
    } else {
      *layer.recorder.HiddenAdjoint(position) = sums[0];
      *layer.recorder.CellAdjoint(position) = sums[1];
    }
  }
}

// The member's gates at time step t, the most that its backward cell reads, as far as they are
// worth a prefetch: they were written long ago, unless those of all time steps stay near.
template <typename S>
absl::Span<const S> Network<S>::Impl::FarGates(int member, const Layer& layer, int64_t t) const {
  constexpr auto kNear = kNearBytes / static_cast<int64_t>(sizeof(S));
  if (by_units_ || layout_.positions() * gate_rows_ <= kNear) return {};
  const Range rows = ShareOf(member, t).rows;
  return {layer.gates.data() + (layout_.first(t) + rows.begin) * gate_rows_,
          static_cast<size_t>(std::min(rows.size() * gate_rows_, kNear))};
}

// What passes W_hh on its way to the time step before. `soon` is what that one reads first.
template <typename S>
void Network<S>::Impl::CarryBack(const CellStep<S>& step, absl::Span<const S> soon, S* delta_h) {
  const Into into = CarriesDirectly(config_.cell) ? Into::kAdd : Into::kOverwrite;
  delta_h += step.units.begin;
  RecurrentBackPack().Multiply(step.units, step.rows, step.gates, gate_rows_, into, nullptr,
                               delta_h, hidden_, soon);
  if (!Gru()) return;
  CandidateBackPack().Multiply(step.units, step.rows, step.candidate, hidden_, Into::kAdd, nullptr,
                               delta_h, hidden_);
}

// The gradient at the states of the layer below, which were this one's input.
template <typename S>
void Network<S>::Impl::BackToInput(Layer& layer, int64_t t, const Share& share) {
  const int64_t position = layout_.first(t) + share.rows.begin;
  InputBackPack(layer).Multiply(
      share.units, share.rows.size(), layer.gates.data() + position * gate_rows_, gate_rows_,
      Into::kOverwrite, nullptr, local_.data() + position * hidden_ + share.units.begin, hidden_);
}

template <typename S>
void Network<S>::Impl::BackwardThroughTime(int member, Layer& layer) {
  for (int64_t t = layout_.time_steps() - 1; t >= 0; --t) {
    const Share share = ShareOf(member, t);
    const CellStep<S> step = StepOf(layer, t, share);
    S* const delta_h = delta_h_.data() + share.rows.begin * hidden_;
    S* const delta_c = Lstm() ? delta_c_.data() + share.rows.begin * hidden_ : nullptr;
    const bool cut = t + 1 == layout_.time_steps() || CutBefore(t + 1);
    const int64_t carried = cut ? 0 : layout_.valid(t + 1);
    const bool traced = share.rows.size() > 0 && layer.recorder.Wants(t);
    TakeGradients(layer, t, share, carried, traced);
    const bool within = traced && hidden_ <= kShortRow;
    BackwardCell(config_.cell, step, delta_h, delta_c,
                 within ? AdjointSquares(layer, t, share) : DeltaSquares());
    if (within) layer.recorder.Recorded(t);
    UnitBarrier();
    if (by_units_ && traced) {
      GatherUnitSquares(kCarry, layer, t, Part(member, carried));
      GatherUnitSquares(kAdjoint, layer, t, Part(member, layout_.valid(t)));
    }
    if (t > 0 && !CutBefore(t)) CarryBack(step, FarGates(member, layer, t - 1), delta_h);
    if (layer.index > 0) BackToInput(layer, t, share);
  }
}

// The gradients of both weight matrices, and of the recurrent bias.
template <typename S>
void Network<S>::Impl::WeightGradients(int member, const Layer& layer) {
  S* recurrent = gradients_.data() + layer.recurrent_weight;
  S* bias = gradients_.data() + layer.recurrent_bias;
  S* input = gradients_.data() + layer.input_weight;
  const int64_t width = layer.input_width;
  const Range gates = Part(member, SummedGates(), kOuterStep);
  const bool tokens = ReadsTokens(layer);
  if (tokens) ClearTokenSums(gates);
  Into into = Into::kOverwrite;
  for (const BatchLayout::Run& run : layout_.runs()) {
    const S* gate_gradients = layer.gates.data() + run.position * gate_rows_;
    const S* before = layer.h.data() + run.before * hidden_;
    // Tokens have a way of their own.
    const S* x = tokens ? nullptr : InputOf(layer) + run.position * width;
    const OuterTerm<S> terms[] = {{hidden_, before, hidden_, recurrent, hidden_},
                                  {width, x, width, input, width}};
    const absl::Span<const OuterTerm<S>> both(terms, tokens ? 1 : 2);
    RowSums<S> sums = {.all = bias};
    if (tokens) {
      sums.by_slot = token_gradient_.data();
      sums.ld = gate_rows_;
      sums.slot_of_row = layout_.token_slots(run.position);
    }
    OuterProducts(gates, run.count, gate_gradients, gate_rows_, both, into, sums,
                  Workspace(member));
    if (Gru()) CandidateGradients(member, layer, run, into);
    into = Into::kAdd;
  }
}

// The GRU's candidate has one gradient for what it takes from the state and one for the input.
template <typename S>
void Network<S>::Impl::CandidateGradients(int member, const Layer& layer,
                                          const BatchLayout::Run& run, Into into) {
  const int64_t gates = SummedGates();
  const int64_t width = layer.input_width;
  const Range part = Part(member, hidden_, kOuterStep);
  const OuterTerm<S> from_state = {hidden_, layer.h.data() + run.before * hidden_, hidden_,
                                   gradients_.data() + layer.recurrent_weight + gates * hidden_,
                                   hidden_};
  OuterProducts<S>(part, run.count, layer.candidates.data() + run.position * hidden_, hidden_,
                   {&from_state, 1}, into,
                   {.all = gradients_.data() + layer.recurrent_bias + gates}, Workspace(member));
  if (ReadsTokens(layer)) return;
  const OuterTerm<S> from_input = {width, InputOf(layer) + run.position * width, width,
                                   gradients_.data() + layer.input_weight + gates * width, width};
  OuterProducts<S>(part, run.count, layer.gates.data() + run.position * gate_rows_ + gates,
                   gate_rows_, {&from_input, 1}, into, {}, Workspace(member));
}

// The recurrent biases' came with the weights'; but for the GRU's candidate the others' are equal.
template <typename S>
void Network<S>::Impl::BiasGradient(int member, const Layer& layer) {
  S* input = gradients_.data() + layer.input_bias;
  const S* recurrent = gradients_.data() + layer.recurrent_bias;
  const Range part = Part(member, SummedGates());
  std::copy(recurrent + part.begin, recurrent + part.end, input + part.begin);
  if (!Gru()) return;
  const Range candidate = Part(member, hidden_, kPanel<S>);
  std::fill_n(input + SummedGates() + candidate.begin, candidate.size(), S(0));
  AddColumnSums(layout_.positions(), candidate.size(),
                layer.gates.data() + SummedGates() + candidate.begin, gate_rows_,
                input + SummedGates() + candidate.begin);
}

template <typename S>
void Network<S>::Impl::ClearTokenSums(Range gates) {
  for (size_t slot = 0; slot < layout_.tokens().size(); ++slot) {
    S* row = token_gradient_.data() + static_cast<int64_t>(slot) * gate_rows_;
    std::fill(row + gates.begin, row + gates.end, S(0));
  }
}

// The other gates' sums come with the weights' gradients.
template <typename S>
void Network<S>::Impl::SumCandidateByToken(int member, const Layer& layer) {
  const Range units = Part(member, hidden_, kPanel<S>);
  const Range gate = {SummedGates() + units.begin, SummedGates() + units.end};
  ClearTokenSums(gate);
  const int32_t* slots = layout_.token_slots(0);
  for (int64_t p = 0; p < layout_.positions(); ++p) {
    AddTo(token_gradient_.data() + slots[p] * gate_rows_ + gate.begin,
          layer.gates.data() + p * gate_rows_ + gate.begin, gate.size());
  }
}

template <typename S>
void Network<S>::Impl::TokenGradient(int member, const Layer& layer) {
  const auto tokens = layout_.tokens();
  const auto slots = static_cast<int64_t>(tokens.size());
  const int64_t width = layer.input_width;
  S* weight_gradient = gradients_.data() + layer.input_weight;
  if (Gru()) SumCandidateByToken(member, layer);
  Barrier();
  const Range part = Part(member, gate_rows_, kPanel<S>);
  if (config_.input == Input::kOneHot) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      const S* row = token_gradient_.data() + slot * gate_rows_;
      S* column = weight_gradient + tokens[static_cast<size_t>(slot)];
      for (int64_t j = part.begin; j < part.end; ++j) column[j * width] = row[j];
    }
    return;
  }
  const OuterTerm<S> term = {width, token_vectors_.data(), width, weight_gradient, width};
  OuterProducts<S>(part, slots, token_gradient_.data(), gate_rows_, {&term, 1}, Into::kOverwrite,
                   {}, Workspace(member));
  Barrier();
  const Range rows = Part(member, slots);
  InputBackPack(layer).Multiply(
      {0, width}, rows.size(), token_gradient_.data() + rows.begin * gate_rows_, gate_rows_,
      Into::kOverwrite, nullptr, vector_gradient_.data() + rows.begin * width, width);
  for (int64_t slot = rows.begin; slot < rows.end; ++slot) {
    std::copy_n(vector_gradient_.data() + slot * width, width,
                gradients_.data() + embedding_ + tokens[static_cast<size_t>(slot)] * width);
  }
}

template void Network<float>::Impl::RunBackward(int);
template void Network<double>::Impl::RunBackward(int);

}  // namespace gradwatch::nn
