#include <algorithm>

#include "server/base/check.h"
#include "server/nn/loss.h"
#include "server/nn/network_impl.h"

namespace gradwatch::nn {

template <typename S>
void Network<S>::Impl::RunForward(int member, const Batch& batch) {
  if (!Tokens()) CopyFeatures(member, batch);
  for (Layer& layer : layers_) {
    ForwardLayer(member, batch, layer);
    Barrier();
  }
  ForwardReadout(member, batch);
}

template <typename S>
void Network<S>::Impl::CopyFeatures(int member, const Batch& batch) {
  const int64_t width = config_.features;
  const Range steps = Part(member, layout_.time_steps());
  for (int64_t t = steps.begin; t < steps.end; ++t) {
    const double* from = batch.inputs.data() + t * layout_.rows() * width;
    S* to = inputs_.data() + layout_.first(t) * width;
    for (int64_t i = 0; i < layout_.valid(t) * width; ++i) to[i] = static_cast<S>(from[i]);
  }
}

template <typename S>
void Network<S>::Impl::StartStates(int member, const Batch& batch, Layer& layer) {
  const Range rows = Part(member, layout_.rows());
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    if (batch.restart[static_cast<size_t>(b)] != 0) {
      std::fill_n(layer.h.data() + b * hidden_, hidden_, S(0));
      if (Lstm()) std::fill_n(layer.c.data() + b * hidden_, hidden_, S(0));
    } else {
      std::copy_n(StateH(layer) + b * hidden_, hidden_, layer.h.data() + b * hidden_);
      if (Lstm()) std::copy_n(StateC(layer) + b * hidden_, hidden_, layer.c.data() + b * hidden_);
    }
  }
}

template <typename S>
void Network<S>::Impl::KeepStates(int member, const Batch& batch, Layer& layer) {
  const Range rows = Part(member, layout_.rows());
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    const int64_t last = layout_.first(batch.lengths[static_cast<size_t>(b)] - 1) + b;
    std::copy_n(Positions(layer.h) + last * hidden_, hidden_, StateH(layer) + b * hidden_);
    if (Lstm()) {
      std::copy_n(Positions(layer.c) + last * hidden_, hidden_, StateC(layer) + b * hidden_);
    }
  }
}

// Both biases together; the GRU's candidate has its recurrent one inside the reset product.
template <typename S>
void Network<S>::Impl::FillBias(int member, const Layer& layer) {
  const S* input = weights_.data() + layer.input_bias;
  const S* recurrent = weights_.data() + layer.recurrent_bias;
  const Range part = Part(member, gate_rows_);
  for (int64_t j = part.begin; j < part.end; ++j) {
    bias_[j] = j < SummedGates() ? input[j] + recurrent[j] : input[j];
  }
}

template <typename S>
void Network<S>::Impl::Pack(int member, const PackedMatrix<S>& packed, const S* weight,
                            int64_t ld) {
  packed.Pack(weight, ld, Part(member, packed.outputs(), kPanel<S>));
}

template <typename S>
void Network<S>::Impl::PackTransposed(int member, const PackedMatrix<S>& packed, const S* weight,
                                      int64_t ld) {
  packed.PackTransposed(weight, ld, Part(member, packed.outputs(), kPanel<S>));
}

template <typename S>
void Network<S>::Impl::PackForward(int member, const Layer& layer) {
  const S* recurrent = weights_.data() + layer.recurrent_weight;
  Pack(member, RecurrentPack(), recurrent, hidden_);
  if (Gru()) Pack(member, CandidatePack(), recurrent + SummedGates() * hidden_, hidden_);
  if (ReadsTokens(layer) && config_.input == Input::kOneHot) return;
  Pack(member, InputPack(layer), weights_.data() + layer.input_weight, layer.input_width);
}

// The input product once for each token of the batch.
template <typename S>
void Network<S>::Impl::ProjectTokens(int member, const Layer& layer) {
  const S* weight = weights_.data() + layer.input_weight;
  const int64_t width = layer.input_width;
  const auto tokens = layout_.tokens();
  const auto slots = static_cast<int64_t>(tokens.size());
  if (config_.input == Input::kOneHot) {
    const Range part = Part(member, gate_rows_);
    for (int64_t slot = 0; slot < slots; ++slot) {
      S* row = token_rows_.data() + slot * gate_rows_;
      const S* column = weight + tokens[static_cast<size_t>(slot)];
      for (int64_t j = part.begin; j < part.end; ++j) row[j] = bias_[j] + column[j * width];
    }
    return;
  }
  const Range part = Part(member, slots);
  for (int64_t slot = part.begin; slot < part.end; ++slot) {
    const S* vector = weights_.data() + embedding_ + tokens[static_cast<size_t>(slot)] * width;
    std::copy_n(vector, width, token_vectors_.data() + slot * width);
  }
  InputPack(layer).Multiply({0, gate_rows_}, part.size(),
                            token_vectors_.data() + part.begin * width, width, Into::kOverwrite,
                            bias_.data(), token_rows_.data() + part.begin * gate_rows_, gate_rows_);
}

template <typename S>
typename Network<S>::Impl::Share Network<S>::Impl::ShareOf(int member, int64_t t) const {
  const int64_t valid = layout_.valid(t);
  if (by_units_) return {{0, valid}, PartOf(hidden_, member, members_, kSquaresBlock)};
  const Range rows = Part(member, layout_.rows());
  return {{std::min(rows.begin, valid), std::min(rows.end, valid)}, {0, hidden_}};
}

template <typename S>
CellStep<S> Network<S>::Impl::StepOf(Layer& layer, int64_t t, const Share& share) {
  const int64_t position = layout_.first(t) + share.rows.begin;
  const int64_t after = (layout_.rows() + position) * hidden_;
  const int64_t before = (layout_.before(t) + share.rows.begin) * hidden_;
  CellStep<S> step;
  step.rows = share.rows.size();
  step.hidden = hidden_;
  step.units = share.units;
  step.gates = layer.gates.data() + position * gate_rows_;
  step.h_before = layer.h.data() + before;
  step.h = layer.h.data() + after;
  if (Gru()) step.candidate = layer.candidates.data() + position * hidden_;
  if (Lstm()) {
    step.c_before = layer.c.data() + before;
    step.c = layer.c.data() + after;
    step.c_tanh = layer.c_tanh.data() + position * hidden_;
  }
  return step;
}

template <typename S>
void Network<S>::Impl::CopyTokenRows(Layer& layer, int64_t t, const Share& share) {
  const int64_t position = layout_.first(t) + share.rows.begin;
  const int32_t* const slots = layout_.token_slots(position);
  S* const gates = layer.gates.data() + position * gate_rows_;
  ForGateRows(gate_rows_, share.units, [&](Range range) {
    for (int64_t b = 0; b < share.rows.size(); ++b) {
      const S* row = token_rows_.data() + slots[b] * gate_rows_;
      std::copy(row + range.begin, row + range.end, gates + b * gate_rows_ + range.begin);
    }
  });
}

// Puts what the input adds to the gates, biases included, there for time step t and some after it:
// enough rows to make reading the weights, or a call, worth while, few enough to leave the gates in
// the cache.
// Returns the first time step that it left out.
template <typename S>
int64_t Network<S>::Impl::Project(Layer& layer, int64_t t, const Share& share) {
  if (ReadsTokens(layer)) {
    CopyTokenRows(layer, t, share);
    return t + 1;
  }
  constexpr int64_t kRowsWanted = 128;
  constexpr int64_t kWeightBytesMin = 64 << 10;  // Below, weights cost nothing to read again,
  constexpr int64_t kGateBytes = 16 << 10;       // and gates stay in the first-level cache.
  const int64_t valid = layout_.valid(t);
  typename PackedMatrix<S>::Groups groups;
  groups.rows = share.rows.size();
  groups.x_stride = valid * layer.input_width;
  groups.c_stride = valid * gate_rows_;
  const int64_t row_bytes = gate_rows_ * static_cast<int64_t>(sizeof(S));
  const bool small = row_bytes * layer.input_width < kWeightBytesMin;
  const int64_t wanted = small ? kGateBytes / row_bytes : kRowsWanted;
  while (groups.count * groups.rows < wanted && layout_.valid(t + groups.count) == valid) {
    ++groups.count;
  }
  const int64_t after = t + groups.count;
  if (groups.rows == valid) {  // They follow each other without a gap.
    groups.rows *= groups.count;
    groups.count = 1;
  }
  const int64_t position = layout_.first(t) + share.rows.begin;
  ForGateRows(gate_rows_, share.units, [&](Range range) {
    InputPack(layer).MultiplyGroups(range, groups, InputOf(layer) + position * layer.input_width,
                                    layer.input_width, Into::kOverwrite, bias_.data() + range.begin,
                                    layer.gates.data() + position * gate_rows_ + range.begin,
                                    gate_rows_);
  });
  return after;
}

template <typename S>
void Network<S>::Impl::AddRecurrence(const Layer& layer, const CellStep<S>& step) {
  ForGateRows(SummedGates(), step.units, [&](Range range) {
    RecurrentPack().Multiply(range, step.rows, step.h_before, hidden_, Into::kAdd, nullptr,
                             step.gates + range.begin, gate_rows_);
  });
  if (!Gru()) return;
  const S* bias = weights_.data() + layer.recurrent_bias + SummedGates();
  CandidatePack().Multiply(step.units, step.rows, step.h_before, hidden_, Into::kOverwrite,
                           bias + step.units.begin, step.candidate + step.units.begin, hidden_);
}

// Records the states of time step t, which has just been computed. Where one member has all rows,
// some time steps at once while they are still in the cache: short ones are cheaper together.
template <typename S>
void Network<S>::Impl::RecordStates(int member, Layer& layer, int64_t t) {
  if (layer.recorder.detail() != Detail::kFull) return;
  constexpr int64_t kTogether = 2048;  // Values of each gate.
  Range positions = {layout_.first(t), layout_.first(t + 1)};
  if (members_ == 1) {
    positions.begin = recorded_;
    const bool last = t + 1 == layout_.time_steps();
    if (!last && positions.size() * hidden_ < kTogether) return;
    recorded_ = last ? 0 : positions.end;
  } else {
    const Range rows = by_units_ ? Part(member, layout_.valid(t)) : ShareOf(member, t).rows;
    positions = {positions.begin + rows.begin, positions.begin + rows.end};
  }
  layer.recorder.template RecordStates<S>(member, positions, Positions(layer.h),
                                          Lstm() ? Positions(layer.c) : nullptr,
                                          layer.c_tanh.data(), layer.gates.data());
}

template <typename S>
void Network<S>::Impl::ForwardLayer(int member, const Batch& batch, Layer& layer) {
  StartStates(member, batch, layer);
  FillBias(member, layer);
  PackForward(member, layer);
  Barrier();
  if (ReadsTokens(layer)) {
    ProjectTokens(member, layer);
    Barrier();
  }
  int64_t projected = 0;  // Time steps that have their input in the gates.
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    const Share share = ShareOf(member, t);
    CellStep<S> step = StepOf(layer, t, share);
    if (!layer.held_h.empty() && t > 0 && CutBefore(t)) {
      const int64_t before = (layout_.before(t) + share.rows.begin) * hidden_;
      step.h_before = layer.held_h.data() + before;
      if (Lstm()) step.c_before = layer.held_c.data() + before;
    }
    if (t == projected) projected = Project(layer, t, share);
    AddRecurrence(layer, step);
    ForwardCell(config_.cell, step);
    UnitBarrier();
    RecordStates(member, layer, t);
  }
  KeepStates(member, batch, layer);
}

template <typename S>
void Network<S>::Impl::GatherLast(int member, const Batch& batch) {
  const Range rows = Part(member, layout_.rows());
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    const int64_t last = layout_.first(batch.lengths[static_cast<size_t>(b)] - 1) + b;
    std::copy_n(Positions(Top().h) + last * hidden_, hidden_, readout_states_.data() + b * hidden_);
  }
}

template <typename S>
void Network<S>::Impl::ForwardReadout(int member, const Batch& batch) {
  Pack(member, ReadoutPack(), weights_.data() + readout_weight_, hidden_);
  if (LastStep()) GatherLast(member, batch);
  Barrier();
  const int64_t outputs = config_.outputs;
  const Range part = Part(member, Readouts());
  ReadoutPack().Multiply({0, outputs}, part.size(), ReadoutInput() + part.begin * hidden_, hidden_,
                         Into::kOverwrite, weights_.data() + readout_bias_,
                         outputs_.data() + part.begin * outputs, outputs);
}

template <typename S>
void Network<S>::Impl::FindTotalWeight(const Batch& batch) {
  const int64_t steps = LastStep() ? 1 : layout_.time_steps();
  total_weight_ = 0.0;
  for (int64_t t = 0; t < steps; ++t) {
    const double* weights = batch.weights.data() + t * layout_.rows();
    const int64_t rows = LastStep() ? layout_.rows() : layout_.valid(t);
    for (int64_t b = 0; b < rows; ++b) total_weight_ += weights[b];
  }
}

// Of the member's read-outs, which are those that ForwardReadout gave it.
template <typename S>
void Network<S>::Impl::ComputeLosses(int member, const Batch& batch) {
  const int64_t outputs = config_.outputs;
  const Range part = Part(member, Readouts());
  int64_t t = 0;
  for (int64_t readout = part.begin; readout < part.end; ++readout) {
    while (!LastStep() && layout_.first(t + 1) <= readout) ++t;
    const int64_t row = LastStep() ? readout : readout - layout_.first(t);
    const auto target = static_cast<size_t>(t * layout_.rows() + row);
    const double factor = total_weight_ > 0.0 ? batch.weights[target] / total_weight_ : 0.0;
    const S* output = outputs_.data() + readout * outputs;
    S* gradient = output_gradient_.data() + readout * outputs;
    losses_[readout] = 0.0;
    if (factor == 0.0) {
      std::fill_n(gradient, outputs, S(0));
    } else if (config_.loss == Loss::kMeanSquared) {
      losses_[readout] = factor * MeanSquared(output, batch.target_values.data() + target * outputs,
                                              outputs, factor, gradient);
    } else {
      const int32_t target_class = batch.target_classes[target];
      GRADWATCH_CHECK(target_class >= 0 && target_class < outputs);
      losses_[readout] = factor * CrossEntropy(output, target_class, outputs, factor, gradient);
    }
  }
}

template <typename S>
double Network<S>::Impl::SumLosses() const {
  double sum = 0.0;
  for (int64_t readout = 0; readout < Readouts(); ++readout) sum += losses_[readout];
  return sum;
}

template <typename S>
void Network<S>::Impl::RowLosses(absl::Span<double> losses) const {
  GRADWATCH_CHECK(static_cast<int64_t>(losses.size()) == layout_.rows());
  std::fill(losses.begin(), losses.end(), 0.0);
  int64_t t = 0;
  for (int64_t readout = 0; readout < Readouts(); ++readout) {
    while (!LastStep() && layout_.first(t + 1) <= readout) ++t;
    const int64_t row = LastStep() ? readout : readout - layout_.first(t);
    losses[static_cast<size_t>(row)] += losses_[readout];
  }
}

#define GRADWATCH_INSTANTIATE(S)                                                           \
  template void Network<S>::Impl::RunForward(int, const Batch&);                           \
  template void Network<S>::Impl::FindTotalWeight(const Batch&);                           \
  template void Network<S>::Impl::ComputeLosses(int, const Batch&);                        \
  template double Network<S>::Impl::SumLosses() const;                                     \
  template void Network<S>::Impl::RowLosses(absl::Span<double>) const;                     \
  template typename Network<S>::Impl::Share Network<S>::Impl::ShareOf(int, int64_t) const; \
  template CellStep<S> Network<S>::Impl::StepOf(Layer&, int64_t, const Share&);            \
  template void Network<S>::Impl::Pack(int, const PackedMatrix<S>&, const S*, int64_t);    \
  template void Network<S>::Impl::PackTransposed(int, const PackedMatrix<S>&, const S*, int64_t);
GRADWATCH_INSTANTIATE(float)
GRADWATCH_INSTANTIATE(double)
#undef GRADWATCH_INSTANTIATE

}  // namespace gradwatch::nn
