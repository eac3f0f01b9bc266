#include "server/nn/network.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/nn/batch_layout.h"
#include "server/nn/cells.h"
#include "server/nn/gemm.h"
#include "server/nn/initialize.h"
#include "server/nn/loss.h"
#include "server/nn/packet.h"
#include "server/nn/plan.h"
#include "server/nn/trace.h"

namespace gradwatch::nn {
namespace {

template <typename S>
bool AllFinite(const S* values, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite &= std::abs(values[i]) <= std::numeric_limits<S>::max();
  return finite;
}

template <typename S>
void AddTo(S* sum, const S* values, int64_t n) {
  ForPackets<S>(n, [&](int64_t j, auto lanes) {
    Store<S>(sum + j, packet::padd(Load<S>(sum + j, lanes), Load<S>(values + j, lanes)), lanes);
  });
}

// Copies `row` [width] to `rows` rows.
template <typename S>
void FillRows(int64_t rows, int64_t width, const S* row, S* to) {
  for (int64_t r = 0; r < rows; ++r) std::copy_n(row, width, to + r * width);
}

}  // namespace

template <typename S>
class Network<S>::Impl {
 public:
  Impl(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max);

  void Run(const Batch& batch, Detail detail);
  double ComputeLoss(const Batch& batch);
  void Backward();
  std::optional<NonFinite> FirstNonFinite() const;
  void HoldChunkStates();
  void ReleaseChunkStates();

  const S* Output(int64_t t, int64_t row) const;
  const S* Hidden(int layer, int64_t t, int64_t row) const {
    return layers_[static_cast<size_t>(layer)].h.data() +
           (layout_.rows() + layout_.first(t) + row) * hidden_;
  }

  const NetworkConfig config_;
  const Plan plan_;
  const std::vector<Parameter> parameters_;
  Buffer<S> weights_;
  Buffer<S> gradients_;
  Buffer<S> state_;
  std::vector<LayerTrace> traces_;

 private:
  struct Layer {
    Layer(const NetworkConfig& config, const Plan& plan, int64_t time_steps_max)
        : gates(plan.gates),
          h(plan.states),
          c(plan.has_cell ? plan.states : 0),
          c_tanh(plan.cell_tanh),
          candidates(plan.candidates),
          recorder(config.cell, config.hidden, time_steps_max) {}

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

  bool Lstm() const { return config_.cell == Cell::kLstm; }
  bool Gru() const { return config_.cell == Cell::kGru; }
  bool LastStep() const { return config_.loss_at == LossAt::kLastStep; }
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

  void FindOffsets();
  void CopyFeatures(const Batch& batch);
  void StartStates(const Batch& batch, Layer& layer);
  void KeepStates(const Batch& batch, Layer& layer);

  void FillBias(const Layer& layer);
  void ProjectTokens(const Layer& layer);
  void ProjectInput(Layer& layer);
  CellStep<S> StepOf(Layer& layer, int64_t t);
  void AddRecurrence(const CellStep<S>& step);
  void ForwardLayer(const Batch& batch, Layer& layer);
  void GatherLast(const Batch& batch);
  void ForwardReadout(const Batch& batch);

  const S* ReadoutInput() const { return LastStep() ? readout_states_.data() : Positions(Top().h); }
  void AddColumnSums(int64_t rows, int64_t width, const S* values, S* sums);
  void BackwardReadout();
  void PackRecurrent(const Layer& layer, bool transposed);
  void AddLocalGradient(const Layer& layer, int64_t t);
  void CarryBack(const CellStep<S>& step);
  void BackwardThroughTime(Layer& layer);
  void RecurrentGradient(const Layer& layer);
  void BiasGradient(const Layer& layer);
  void TokenGradient(const Layer& layer);
  void InputGradient(const Layer& layer);

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
  int64_t embedding_ = 0;    // Offsets in the flat buffers.
  int64_t readout_weight_ = 0;
  int64_t readout_bias_ = 0;

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
  Buffer<S> local_;            // [N or B, H]: gradient at h from above.
  Buffer<S> delta_h_;          // [B, H]
  Buffer<S> delta_c_;          // [B, H]
  Buffer<S> bias_;             // [max(G*H, O)]
  Buffer<S> partial_sums_;     // [max(G*H, O)]
  PackedMatrix<S> bulk_;
  PackedMatrix<S> recurrent_;
  PackedMatrix<S> candidate_;  // GRU: the part of W_hh that makes the candidate.
  GemmWorkspace<S> workspace_;
  double loss_ = 0.0;
};

template <typename S>
Network<S>::Impl::Impl(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max)
    : config_(config),
      plan_(Plan::Of<S>(config, rows_max, time_steps_max)),
      parameters_(ParametersOf(config)),
      weights_(plan_.parameters),
      gradients_(plan_.parameters),
      state_(plan_.state),
      traces_(static_cast<size_t>(config.layers)),
      rows_max_(rows_max),
      hidden_(config.hidden),
      gate_rows_(GatesOf(config.cell) * config.hidden),
      states_(config.cell == Cell::kLstm ? 2 : 1),
      layout_(rows_max, time_steps_max, config.input == Input::kFeatures ? 0 : config.vocabulary),
      inputs_(plan_.inputs),
      token_rows_(plan_.token_rows),
      token_gradient_(plan_.token_rows),
      token_vectors_(plan_.token_vectors),
      vector_gradient_(plan_.token_vectors),
      readout_states_(plan_.readout_states),
      outputs_(plan_.readout_rows),
      output_gradient_(plan_.readout_rows),
      local_(plan_.local),
      delta_h_(plan_.adjoint),
      delta_c_(plan_.has_cell ? plan_.adjoint : 0),
      bias_(plan_.bias_rows),
      partial_sums_(plan_.bias_rows),
      bulk_(plan_.bulk_pack),
      recurrent_(plan_.recurrent_pack),
      candidate_(plan_.candidate_pack) {
  GRADWATCH_CHECK(config.layers >= 1 && config.layers <= kLayersMax);
  GRADWATCH_CHECK(config.hidden >= 1 && config.outputs >= 1 && InputWidthOf(config) >= 1);
  layers_.reserve(static_cast<size_t>(config.layers));
  for (int index = 0; index < config.layers; ++index) {
    layers_.emplace_back(config_, plan_, time_steps_max);
  }
  FindOffsets();
}

template <typename S>
void Network<S>::Impl::FindOffsets() {
  for (const Parameter& parameter : parameters_) {
    if (parameter.role == Role::kEmbedding) embedding_ = parameter.offset;
    if (parameter.role == Role::kReadoutWeight) readout_weight_ = parameter.offset;
    if (parameter.role == Role::kReadoutBias) readout_bias_ = parameter.offset;
    if (parameter.layer < 0) continue;
    Layer& layer = layers_[static_cast<size_t>(parameter.layer)];
    layer.index = parameter.layer;
    if (parameter.role == Role::kInputWeight) {
      layer.input_weight = parameter.offset;
      layer.input_width = parameter.shape[1];
    }
    if (parameter.role == Role::kRecurrentWeight) layer.recurrent_weight = parameter.offset;
    if (parameter.role == Role::kInputBias) layer.input_bias = parameter.offset;
    if (parameter.role == Role::kRecurrentBias) layer.recurrent_bias = parameter.offset;
  }
}

// --- forward -----------------------------------------------------------------------------------

template <typename S>
void Network<S>::Impl::Run(const Batch& batch, Detail detail) {
  layout_.Read(batch);
  if (config_.input == Input::kFeatures) CopyFeatures(batch);
  for (Layer& layer : layers_) {
    layer.recorder.Begin(layout_.time_steps(), detail);
    ForwardLayer(batch, layer);
  }
  ForwardReadout(batch);
}

template <typename S>
void Network<S>::Impl::CopyFeatures(const Batch& batch) {
  const int64_t width = config_.features;
  GRADWATCH_CHECK(batch.features == width);
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    const double* from = batch.inputs.data() + t * layout_.rows() * width;
    S* to = inputs_.data() + layout_.first(t) * width;
    for (int64_t i = 0; i < layout_.valid(t) * width; ++i) to[i] = static_cast<S>(from[i]);
  }
}

template <typename S>
void Network<S>::Impl::StartStates(const Batch& batch, Layer& layer) {
  for (int64_t b = 0; b < layout_.rows(); ++b) {
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
void Network<S>::Impl::KeepStates(const Batch& batch, Layer& layer) {
  for (int64_t b = 0; b < layout_.rows(); ++b) {
    const int64_t last = layout_.first(batch.lengths[static_cast<size_t>(b)] - 1) + b;
    std::copy_n(Positions(layer.h) + last * hidden_, hidden_, StateH(layer) + b * hidden_);
    if (Lstm()) {
      std::copy_n(Positions(layer.c) + last * hidden_, hidden_, StateC(layer) + b * hidden_);
    }
  }
}

// Both biases together; the GRU's candidate has its recurrent one inside the reset product.
template <typename S>
void Network<S>::Impl::FillBias(const Layer& layer) {
  std::copy_n(weights_.data() + layer.input_bias, gate_rows_, bias_.data());
  AddTo(bias_.data(), weights_.data() + layer.recurrent_bias, Gru() ? 2 * hidden_ : gate_rows_);
}

// The input product once for each token of the batch.
template <typename S>
void Network<S>::Impl::ProjectTokens(const Layer& layer) {
  const S* weight = weights_.data() + layer.input_weight;
  const int64_t width = layer.input_width;
  const auto tokens = layout_.tokens();
  const auto slots = static_cast<int64_t>(tokens.size());
  FillRows(slots, gate_rows_, bias_.data(), token_rows_.data());
  if (config_.input == Input::kOneHot) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      S* row = token_rows_.data() + slot * gate_rows_;
      const S* column = weight + tokens[static_cast<size_t>(slot)];
      for (int64_t j = 0; j < gate_rows_; ++j) row[j] += column[j * width];
    }
    return;
  }
  for (int64_t slot = 0; slot < slots; ++slot) {
    const S* vector = weights_.data() + embedding_ + tokens[static_cast<size_t>(slot)] * width;
    std::copy_n(vector, width, token_vectors_.data() + slot * width);
  }
  bulk_.Pack(weight, width, gate_rows_, width);
  bulk_.AddProduct(slots, token_vectors_.data(), width, token_rows_.data(), gate_rows_, workspace_);
}

template <typename S>
void Network<S>::Impl::ProjectInput(Layer& layer) {
  const int64_t positions = layout_.positions();
  FillBias(layer);
  if (layer.index == 0 && config_.input != Input::kFeatures) {
    ProjectTokens(layer);
    for (int64_t p = 0; p < positions; ++p) {
      std::copy_n(token_rows_.data() + layout_.token_slot(p) * gate_rows_, gate_rows_,
                  layer.gates.data() + p * gate_rows_);
    }
  } else {
    const S* input = layer.index == 0 ? inputs_.data()
                                      : Positions(layers_[static_cast<size_t>(layer.index - 1)].h);
    FillRows(positions, gate_rows_, bias_.data(), layer.gates.data());
    bulk_.Pack(weights_.data() + layer.input_weight, layer.input_width, gate_rows_,
               layer.input_width);
    bulk_.AddProduct(positions, input, layer.input_width, layer.gates.data(), gate_rows_,
                     workspace_);
  }
  if (Gru()) {
    FillRows(positions, hidden_, weights_.data() + layer.recurrent_bias + 2 * hidden_,
             layer.candidates.data());
  }
}

template <typename S>
CellStep<S> Network<S>::Impl::StepOf(Layer& layer, int64_t t) {
  const int64_t position = layout_.first(t) * hidden_;
  const int64_t after = position + layout_.rows() * hidden_;
  const int64_t before = layout_.before(t) * hidden_;
  CellStep<S> step;
  step.rows = layout_.valid(t);
  step.hidden = hidden_;
  step.gates = layer.gates.data() + layout_.first(t) * gate_rows_;
  step.h_before = layer.h.data() + before;
  step.h = layer.h.data() + after;
  if (Gru()) step.candidate = layer.candidates.data() + position;
  if (Lstm()) {
    step.c_before = layer.c.data() + before;
    step.c = layer.c.data() + after;
    step.c_tanh = layer.c_tanh.data() + position;
  }
  return step;
}

template <typename S>
void Network<S>::Impl::AddRecurrence(const CellStep<S>& step) {
  recurrent_.AddProduct(step.rows, step.h_before, hidden_, step.gates, gate_rows_, workspace_);
  if (Gru()) {
    candidate_.AddProduct(step.rows, step.h_before, hidden_, step.candidate, hidden_, workspace_);
  }
}

template <typename S>
void Network<S>::Impl::ForwardLayer(const Batch& batch, Layer& layer) {
  StartStates(batch, layer);
  ProjectInput(layer);
  PackRecurrent(layer, /*transposed=*/false);
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    CellStep<S> step = StepOf(layer, t);
    if (!layer.held_h.empty() && t > 0 && CutBefore(t)) {
      step.h_before = layer.held_h.data() + layout_.before(t) * hidden_;
      if (Lstm()) step.c_before = layer.held_c.data() + layout_.before(t) * hidden_;
    }
    AddRecurrence(step);
    ForwardCell(config_.cell, step);
    if (layer.recorder.detail() == Detail::kFull) {
      layer.recorder.RecordStates(t, step.rows, step.h, step.c, step.gates);
    }
  }
  KeepStates(batch, layer);
}

template <typename S>
void Network<S>::Impl::GatherLast(const Batch& batch) {
  for (int64_t b = 0; b < layout_.rows(); ++b) {
    const int64_t last = layout_.first(batch.lengths[static_cast<size_t>(b)] - 1) + b;
    std::copy_n(Positions(Top().h) + last * hidden_, hidden_, readout_states_.data() + b * hidden_);
  }
}

template <typename S>
void Network<S>::Impl::ForwardReadout(const Batch& batch) {
  if (LastStep()) GatherLast(batch);
  const int64_t outputs = config_.outputs;
  FillRows(Readouts(), outputs, weights_.data() + readout_bias_, outputs_.data());
  bulk_.Pack(weights_.data() + readout_weight_, hidden_, outputs, hidden_);
  bulk_.AddProduct(Readouts(), ReadoutInput(), hidden_, outputs_.data(), outputs, workspace_);
}

template <typename S>
const S* Network<S>::Impl::Output(int64_t t, int64_t row) const {
  const int64_t readout = LastStep() ? row : layout_.first(t) + row;
  return outputs_.data() + readout * config_.outputs;
}

// --- loss --------------------------------------------------------------------------------------

template <typename S>
double Network<S>::Impl::ComputeLoss(const Batch& batch) {
  const int64_t outputs = config_.outputs;
  const int64_t steps = LastStep() ? 1 : layout_.time_steps();
  const auto rows_at = [&](int64_t t) { return LastStep() ? layout_.rows() : layout_.valid(t); };
  double total = 0.0;
  for (int64_t t = 0; t < steps; ++t) {
    const double* weights = batch.weights.data() + t * layout_.rows();
    for (int64_t b = 0; b < rows_at(t); ++b) total += weights[b];
  }
  loss_ = 0.0;
  if (total <= 0.0) {
    std::fill_n(output_gradient_.data(), Readouts() * outputs, S(0));
    return loss_;
  }
  int64_t readout = 0;
  for (int64_t t = 0; t < steps; ++t) {
    for (int64_t b = 0; b < rows_at(t); ++b, ++readout) {
      const auto target = static_cast<size_t>(t * layout_.rows() + b);
      const double factor = batch.weights[target] / total;
      const S* output = outputs_.data() + readout * outputs;
      S* gradient = output_gradient_.data() + readout * outputs;
      if (factor == 0.0) {
        std::fill_n(gradient, outputs, S(0));
      } else if (config_.loss == Loss::kMeanSquared) {
        loss_ += factor * MeanSquared(output, batch.target_values.data() + target * outputs,
                                      outputs, factor, gradient);
      } else {
        const int32_t target_class = batch.target_classes[target];
        GRADWATCH_CHECK(target_class >= 0 && target_class < outputs);
        loss_ += factor * CrossEntropy(output, target_class, outputs, factor, gradient);
      }
    }
  }
  return loss_;
}

// --- backward ----------------------------------------------------------------------------------

template <typename S>
void Network<S>::Impl::Backward() {
  std::fill_n(gradients_.data(), gradients_.size(), S(0));
  BackwardReadout();
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    BackwardThroughTime(*layer);
    RecurrentGradient(*layer);
    BiasGradient(*layer);
    InputGradient(*layer);
    traces_[static_cast<size_t>(layer->index)] = layer->recorder.Finish();
  }
}

// Long sums in float are made of shorter ones, so that rounding grows slowly.
template <typename S>
void Network<S>::Impl::AddColumnSums(int64_t rows, int64_t width, const S* values, S* sums) {
  constexpr int64_t kRowsPerSum = 64;
  for (int64_t first = 0; first < rows; first += kRowsPerSum) {
    std::fill_n(partial_sums_.data(), width, S(0));
    for (int64_t r = first; r < std::min(rows, first + kRowsPerSum); ++r) {
      AddTo(partial_sums_.data(), values + r * width, width);
    }
    AddTo(sums, partial_sums_.data(), width);
  }
}

template <typename S>
void Network<S>::Impl::BackwardReadout() {
  const int64_t outputs = config_.outputs;
  const S* gradient = output_gradient_.data();
  AddOuterProduct(Readouts(), outputs, hidden_, gradient, outputs, ReadoutInput(), hidden_,
                  gradients_.data() + readout_weight_, hidden_, workspace_);
  AddColumnSums(Readouts(), outputs, gradient, gradients_.data() + readout_bias_);
  std::fill_n(local_.data(), Readouts() * hidden_, S(0));
  bulk_.PackTransposed(weights_.data() + readout_weight_, hidden_, hidden_, outputs);
  bulk_.AddProduct(Readouts(), gradient, outputs, local_.data(), hidden_, workspace_);
}

template <typename S>
void Network<S>::Impl::PackRecurrent(const Layer& layer, bool transposed) {
  const S* weight = weights_.data() + layer.recurrent_weight;
  const int64_t gates = Gru() ? 2 * hidden_ : gate_rows_;
  const S* candidate = weight + gates * hidden_;
  if (transposed) {
    recurrent_.PackTransposed(weight, hidden_, hidden_, gates);
    if (Gru()) candidate_.PackTransposed(candidate, hidden_, hidden_, hidden_);
  } else {
    recurrent_.Pack(weight, hidden_, gates, hidden_);
    if (Gru()) candidate_.Pack(candidate, hidden_, hidden_, hidden_);
  }
}

// A loss at the last step reaches only the rows that end here.
template <typename S>
void Network<S>::Impl::AddLocalGradient(const Layer& layer, int64_t t) {
  const int64_t valid = layout_.valid(t);
  if (LastStep() && &layer == &Top()) {
    const int64_t first = layout_.valid(t + 1);
    AddTo(delta_h_.data() + first * hidden_, local_.data() + first * hidden_,
          (valid - first) * hidden_);
  } else {
    AddTo(delta_h_.data(), local_.data() + layout_.first(t) * hidden_, valid * hidden_);
  }
}

template <typename S>
void Network<S>::Impl::CarryBack(const CellStep<S>& step) {
  recurrent_.AddProduct(step.rows, step.gates, gate_rows_, delta_h_.data(), hidden_, workspace_);
  if (Gru()) {
    candidate_.AddProduct(step.rows, step.candidate, hidden_, delta_h_.data(), hidden_, workspace_);
  }
}

template <typename S>
void Network<S>::Impl::BackwardThroughTime(Layer& layer) {
  TraceRecorder& recorder = layer.recorder;
  const bool traced = recorder.detail() != Detail::kNone;
  S* const delta_h = delta_h_.data();
  S* const delta_c = Lstm() ? delta_c_.data() : nullptr;
  PackRecurrent(layer, /*transposed=*/true);
  for (int64_t t = layout_.time_steps() - 1; t >= 0; --t) {
    const CellStep<S> step = StepOf(layer, t);
    const bool last = t + 1 == layout_.time_steps();
    const bool cut = last || CutBefore(t + 1);
    const int64_t carried = cut ? 0 : layout_.valid(t + 1) * hidden_;
    const int64_t size = step.rows * hidden_;
    if (traced && !last) {
      if (cut) {
        recorder.RecordCut(t);
      } else {
        recorder.RecordCarry(t, delta_h, delta_c, carried);
      }
    }
    std::fill(delta_h + carried, delta_h + size, S(0));
    if (Lstm()) std::fill(delta_c + carried, delta_c + size, S(0));
    AddLocalGradient(layer, t);
    if (traced) recorder.RecordAdjoint(t, delta_h, delta_c, size);
    BackwardCell(config_.cell, step, delta_h, delta_c);
    if (t > 0 && !CutBefore(t)) CarryBack(step);
  }
}

template <typename S>
void Network<S>::Impl::RecurrentGradient(const Layer& layer) {
  S* gradient = gradients_.data() + layer.recurrent_weight;
  const int64_t gates = Gru() ? 2 * hidden_ : gate_rows_;
  for (const BatchLayout::Run& run : layout_.runs()) {
    const S* before = layer.h.data() + run.before * hidden_;
    AddOuterProduct(run.count, gates, hidden_, layer.gates.data() + run.position * gate_rows_,
                    gate_rows_, before, hidden_, gradient, hidden_, workspace_);
    if (Gru()) {
      AddOuterProduct(run.count, hidden_, hidden_, layer.candidates.data() + run.position * hidden_,
                      hidden_, before, hidden_, gradient + gates * hidden_, hidden_, workspace_);
    }
  }
}

template <typename S>
void Network<S>::Impl::BiasGradient(const Layer& layer) {
  S* input = gradients_.data() + layer.input_bias;
  S* recurrent = gradients_.data() + layer.recurrent_bias;
  AddColumnSums(layout_.positions(), gate_rows_, layer.gates.data(), input);
  if (Gru()) {
    std::copy_n(input, 2 * hidden_, recurrent);
    AddColumnSums(layout_.positions(), hidden_, layer.candidates.data(), recurrent + 2 * hidden_);
  } else {
    std::copy_n(input, gate_rows_, recurrent);
  }
}

template <typename S>
void Network<S>::Impl::TokenGradient(const Layer& layer) {
  const auto tokens = layout_.tokens();
  const auto slots = static_cast<int64_t>(tokens.size());
  const int64_t width = layer.input_width;
  S* weight_gradient = gradients_.data() + layer.input_weight;
  std::fill_n(token_gradient_.data(), slots * gate_rows_, S(0));
  for (int64_t p = 0; p < layout_.positions(); ++p) {
    AddTo(token_gradient_.data() + layout_.token_slot(p) * gate_rows_,
          layer.gates.data() + p * gate_rows_, gate_rows_);
  }
  if (config_.input == Input::kOneHot) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      const S* row = token_gradient_.data() + slot * gate_rows_;
      S* column = weight_gradient + tokens[static_cast<size_t>(slot)];
      for (int64_t j = 0; j < gate_rows_; ++j) column[j * width] = row[j];
    }
    return;
  }
  AddOuterProduct(slots, gate_rows_, width, token_gradient_.data(), gate_rows_,
                  token_vectors_.data(), width, weight_gradient, width, workspace_);
  std::fill_n(vector_gradient_.data(), slots * width, S(0));
  bulk_.PackTransposed(weights_.data() + layer.input_weight, width, width, gate_rows_);
  bulk_.AddProduct(slots, token_gradient_.data(), gate_rows_, vector_gradient_.data(), width,
                   workspace_);
  for (int64_t slot = 0; slot < slots; ++slot) {
    std::copy_n(vector_gradient_.data() + slot * width, width,
                gradients_.data() + embedding_ + tokens[static_cast<size_t>(slot)] * width);
  }
}

// The gradient at the layer's input weights, and at its input where another layer made it.
template <typename S>
void Network<S>::Impl::InputGradient(const Layer& layer) {
  if (layer.index == 0 && config_.input != Input::kFeatures) {
    TokenGradient(layer);
    return;
  }
  const int64_t positions = layout_.positions();
  const int64_t width = layer.input_width;
  const S* input = layer.index == 0 ? inputs_.data()
                                    : Positions(layers_[static_cast<size_t>(layer.index - 1)].h);
  AddOuterProduct(positions, gate_rows_, width, layer.gates.data(), gate_rows_, input, width,
                  gradients_.data() + layer.input_weight, width, workspace_);
  if (layer.index == 0) return;
  std::fill_n(local_.data(), positions * width, S(0));
  bulk_.PackTransposed(weights_.data() + layer.input_weight, width, width, gate_rows_);
  bulk_.AddProduct(positions, layer.gates.data(), gate_rows_, local_.data(), width, workspace_);
}

// --- where it went wrong -------------------------------------------------------------------------

template <typename S>
std::optional<NonFinite> Network<S>::Impl::FirstNonFinite() const {
  using Stage = NonFinite::Stage;
  if (auto found = NonFiniteInput()) return found;
  for (const Layer& layer : layers_) {
    if (auto found = NonFiniteStates(layer)) return found;
  }
  if (auto found = NonFiniteReadout(outputs_, Stage::kReadout, "readout")) return found;
  if (!std::isfinite(loss_)) return NonFinite{Stage::kLoss, "loss", -1, -1};
  if (auto found = NonFiniteReadout(output_gradient_, Stage::kBackward, "readout_gradient")) {
    return found;
  }
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    if (auto found = NonFiniteBackward(*layer)) return found;
  }
  return NonFiniteGradient();
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteInput() const {
  if (config_.input != Input::kFeatures) return std::nullopt;
  const int64_t width = config_.features;
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    if (!AllFinite(inputs_.data() + layout_.first(t) * width, layout_.valid(t) * width)) {
      return NonFinite{NonFinite::Stage::kInput, "input", -1, t};
    }
  }
  return std::nullopt;
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteStates(const Layer& layer) const {
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    const int64_t offset = layout_.first(t) * hidden_;
    const int64_t size = layout_.valid(t) * hidden_;
    if (Lstm() && !AllFinite(Positions(layer.c) + offset, size)) {
      return NonFinite{NonFinite::Stage::kHidden, absl::StrCat("c_l", layer.index), layer.index, t};
    }
    if (!AllFinite(Positions(layer.h) + offset, size)) {
      return NonFinite{NonFinite::Stage::kHidden, absl::StrCat("h_l", layer.index), layer.index, t};
    }
  }
  return std::nullopt;
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteReadout(const Buffer<S>& values,
                                                            NonFinite::Stage stage,
                                                            const char* name) const {
  const int64_t outputs = config_.outputs;
  if (LastStep()) {
    if (AllFinite(values.data(), layout_.rows() * outputs)) return std::nullopt;
    return NonFinite{stage, name, -1, -1};
  }
  const int64_t steps = layout_.time_steps();
  const bool falling = stage == NonFinite::Stage::kBackward;
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t t = falling ? steps - 1 - i : i;
    if (!AllFinite(values.data() + layout_.first(t) * outputs, layout_.valid(t) * outputs)) {
      return NonFinite{stage, name, -1, t};
    }
  }
  return std::nullopt;
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteBackward(const Layer& layer) const {
  for (int64_t t = layout_.time_steps() - 1; t >= 0; --t) {
    if (!AllFinite(layer.gates.data() + layout_.first(t) * gate_rows_,
                   layout_.valid(t) * gate_rows_)) {
      return NonFinite{NonFinite::Stage::kBackward, absl::StrCat("gate_gradient_l", layer.index),
                       layer.index, t};
    }
  }
  return std::nullopt;
}

// Read-out first, then the layers from the top, then the embedding.
template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteGradient() const {
  for (auto parameter = parameters_.rbegin(); parameter != parameters_.rend(); ++parameter) {
    if (!AllFinite(gradients_.data() + parameter->offset, parameter->size)) {
      return NonFinite{NonFinite::Stage::kWeightGradient, parameter->name, parameter->layer, -1};
    }
  }
  return std::nullopt;
}

// --- gradient checks -----------------------------------------------------------------------------

template <typename S>
void Network<S>::Impl::HoldChunkStates() {
  for (Layer& layer : layers_) {
    layer.held_h.assign(layer.h.data(), layer.h.data() + layer.h.size());
    if (Lstm()) layer.held_c.assign(layer.c.data(), layer.c.data() + layer.c.size());
  }
}

template <typename S>
void Network<S>::Impl::ReleaseChunkStates() {
  for (Layer& layer : layers_) {
    layer.held_h.clear();
    layer.held_c.clear();
  }
}

// --- the public face
// -------------------------------------------------------------------------------

template <typename S>
Network<S>::Network(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max)
    : impl_(std::make_unique<Impl>(config, rows_max, time_steps_max)) {}

template <typename S>
Network<S>::~Network() = default;

template <typename S>
const NetworkConfig& Network<S>::config() const {
  return impl_->config_;
}

template <typename S>
const std::vector<Parameter>& Network<S>::parameters() const {
  return impl_->parameters_;
}

template <typename S>
void Network<S>::Initialize(uint64_t seed) {
  for (const Parameter& parameter : impl_->parameters_) {
    const std::vector<double> values = InitialValues(impl_->config_, parameter, seed);
    std::transform(values.begin(), values.end(), impl_->weights_.data() + parameter.offset,
                   [](double value) { return static_cast<S>(value); });
  }
}

template <typename S>
absl::Span<S> Network<S>::weights() {
  return {impl_->weights_.data(), static_cast<size_t>(impl_->weights_.size())};
}

template <typename S>
absl::Span<const S> Network<S>::weights() const {
  return {impl_->weights_.data(), static_cast<size_t>(impl_->weights_.size())};
}

template <typename S>
absl::Span<S> Network<S>::gradients() {
  return {impl_->gradients_.data(), static_cast<size_t>(impl_->gradients_.size())};
}

template <typename S>
absl::Span<const S> Network<S>::gradients() const {
  return {impl_->gradients_.data(), static_cast<size_t>(impl_->gradients_.size())};
}

template <typename S>
void Network<S>::Predict(const Batch& batch) {
  impl_->Run(batch, Detail::kNone);
}

template <typename S>
double Network<S>::Forward(const Batch& batch) {
  impl_->Run(batch, Detail::kNone);
  return impl_->ComputeLoss(batch);
}

template <typename S>
double Network<S>::ForwardBackward(const Batch& batch, Detail detail) {
  impl_->Run(batch, detail);
  const double loss = impl_->ComputeLoss(batch);
  impl_->Backward();
  return loss;
}

template <typename S>
absl::Span<const S> Network<S>::output(int64_t t, int64_t row) const {
  return {impl_->Output(t, row), static_cast<size_t>(impl_->config_.outputs)};
}

template <typename S>
absl::Span<const S> Network<S>::hidden_state(int layer, int64_t t, int64_t row) const {
  return {impl_->Hidden(layer, t, row), static_cast<size_t>(impl_->config_.hidden)};
}

template <typename S>
absl::Span<const LayerTrace> Network<S>::traces() const {
  return impl_->traces_;
}

template <typename S>
std::optional<NonFinite> Network<S>::FirstNonFinite() const {
  return impl_->FirstNonFinite();
}

template <typename S>
absl::Span<S> Network<S>::state() {
  return {impl_->state_.data(), static_cast<size_t>(impl_->state_.size())};
}

template <typename S>
absl::Span<const S> Network<S>::state() const {
  return {impl_->state_.data(), static_cast<size_t>(impl_->state_.size())};
}

template <typename S>
void Network<S>::ResetState() {
  std::fill_n(impl_->state_.data(), impl_->state_.size(), S(0));
}

template <typename S>
void Network<S>::HoldChunkStates() {
  impl_->HoldChunkStates();
}

template <typename S>
void Network<S>::ReleaseChunkStates() {
  impl_->ReleaseChunkStates();
}

template <typename S>
int64_t Network<S>::memory_bytes() const {
  return impl_->plan_.Bytes(static_cast<int64_t>(sizeof(S)));
}

template class Network<float>;
template class Network<double>;

}  // namespace gradwatch::nn
