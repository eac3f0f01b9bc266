#include "server/nn/network.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "server/base/check.h"
#include "server/nn/initialize.h"
#include "server/nn/network_impl.h"

namespace gradwatch::nn {

template <typename S>
Network<S>::Impl::Impl(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max,
                       ThreadTeam* team)
    : config_(config),
      plan_(
          Plan::Of<S>(config, rows_max, time_steps_max, team == nullptr ? 1 : team->threads_max())),
      parameters_(ParametersOf(config)),
      weights_(plan_.parameters),
      gradients_(plan_.parameters),
      state_(plan_.state),
      traces_(static_cast<size_t>(config.layers)),
      rows_max_(rows_max),
      hidden_(config.hidden),
      gate_rows_(GatesOf(config.cell) * config.hidden),
      states_(config.cell == Cell::kLstm ? 2 : 1),
      team_(team),
      layout_(rows_max, time_steps_max, config.input == Input::kFeatures ? 0 : config.vocabulary),
      inputs_(plan_.inputs),
      token_rows_(plan_.token_rows),
      token_gradient_(plan_.token_rows),
      token_vectors_(plan_.token_vectors),
      vector_gradient_(plan_.token_vectors),
      readout_states_(plan_.readout_states),
      outputs_(plan_.readout_rows),
      output_gradient_(plan_.readout_rows),
      losses_(plan_.readout_losses),
      local_(plan_.local),
      delta_h_(plan_.adjoint),
      delta_c_(plan_.has_cell ? plan_.adjoint : 0),
      bias_(plan_.bias_row),
      unit_squares_(plan_.unit_squares),
      bulk_(plan_.bulk_pack),
      recurrent_(plan_.recurrent_pack),
      candidate_(plan_.candidate_pack),
      workspaces_(plan_.workspaces) {
  GRADWATCH_CHECK(config.layers >= 1 && config.layers <= kLayersMax);
  GRADWATCH_CHECK(config.hidden >= 1 && config.outputs >= 1 && InputWidthOf(config) >= 1);
  layers_.reserve(static_cast<size_t>(config.layers));
  for (int index = 0; index < config.layers; ++index) {
    layers_.emplace_back(config_, plan_, rows_max * time_steps_max, time_steps_max, plan_.members);
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

// Sharing by rows needs no barrier within the time loop, but every member reads all weights. Where
// those leave the second-level cache and a member's few rows do not make up for reading them again
// at every time step, each takes some units and their part of the weights.
template <typename S>
bool Network<S>::Impl::SharesUnits(int members) const {
  if (members == 1 || hidden_ <= kShortRow) return false;
  if (hidden_ % kSquaresBlock != 0 || hidden_ / kSquaresBlock < members) return false;
  constexpr int64_t kCacheBytes = 1 << 20;
  constexpr int64_t kRowsPerMember = 16;
  const int64_t bytes = gate_rows_ * hidden_ * static_cast<int64_t>(sizeof(S));
  return layout_.rows() < kRowsPerMember * members && bytes > kCacheBytes;
}

template <typename S>
void Network<S>::Impl::Run(const Batch& batch, Detail detail, absl::FunctionRef<void(int)> work) {
  layout_.Read(batch);
  GRADWATCH_CHECK(Tokens() || batch.features == config_.features);
  for (Layer& layer : layers_) {
    layer.recorder.Begin(detail, layout_, LossOnlyAtTheEnd(layer));
  }
  members_ = team_ == nullptr ? 1 : team_->threads();
  by_units_ = SharesUnits(members_);
  if (members_ == 1) return work(0);
  team_->Run(work);
}

template <typename S>
void Network<S>::Impl::Predict(const Batch& batch) {
  Run(batch, Detail::kNone, [&](int member) { RunForward(member, batch); });
}

template <typename S>
double Network<S>::Impl::Forward(const Batch& batch) {
  Run(batch, Detail::kNone, [&](int member) {
    RunForward(member, batch);
    if (member == 0) FindTotalWeight(batch);
    Barrier();
    ComputeLosses(member, batch);
  });
  return SumLosses();
}

template <typename S>
double Network<S>::Impl::ForwardBackward(const Batch& batch, Detail detail) {
  Run(batch, detail, [&](int member) {
    RunForward(member, batch);
    if (member == 0) FindTotalWeight(batch);
    Barrier();
    ComputeLosses(member, batch);
    RunBackward(member);
  });
  for (Layer& layer : layers_) {
    LayerTrace& trace = traces_[static_cast<size_t>(layer.index)];
    trace = layer.recorder.Finish(layout_);
    if (detail == Detail::kFull) MeasureCarriedStates(batch, layer, &trace);
  }
  loss_ = SumLosses();
  return loss_;
}

// The states that a run began from stand in front of the others.
template <typename S>
void Network<S>::Impl::MeasureCarriedStates(const Batch& batch, Layer& layer, LayerTrace* trace) {
  trace->state_similarity = layer.recorder.Similarity(StateH(layer), layout_.rows());
  trace->hidden_drift = Drift(batch, layer.h.data(), StateH(layer));
  if (Lstm()) trace->cell_drift = Drift(batch, layer.c.data(), StateC(layer));
}

template <typename S>
double Network<S>::Impl::Drift(const Batch& batch, const S* before, const S* after) const {
  double from = 0.0;
  double to = 0.0;
  for (int64_t b = 0; b < layout_.rows(); ++b) {
    if (batch.restart[static_cast<size_t>(b)] != 0) continue;
    from += QuickSumOfSquares(before + b * hidden_, hidden_);
    to += QuickSumOfSquares(after + b * hidden_, hidden_);
  }
  if (!(from > 0.0)) return std::numeric_limits<double>::quiet_NaN();
  return 0.5 * std::log(to / from);
}

template <typename S>
const S* Network<S>::Impl::Output(int64_t t, int64_t row) const {
  const int64_t readout = LastStep() ? row : layout_.first(t) + row;
  return outputs_.data() + readout * config_.outputs;
}

// --- gradient checks -----------------------------------------------------------------------------

template <typename S>
void Network<S>::Impl::SetTruncation(int64_t truncation) {
  config_.truncation = truncation;
  for (Layer& layer : layers_) layer.recorder.SetTruncation(truncation);
}

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

// --- the public face -----------------------------------------------------------------------------

template <typename S>
Network<S>::Network(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max,
                    ThreadTeam* team)
    : impl_(std::make_unique<Impl>(config, rows_max, time_steps_max, team)) {}

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
    FillInitialValues(impl_->config_, parameter, seed,
                      weights().subspan(static_cast<size_t>(parameter.offset),
                                        static_cast<size_t>(parameter.size)));
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
  impl_->Predict(batch);
}

template <typename S>
double Network<S>::Forward(const Batch& batch) {
  return impl_->Forward(batch);
}

template <typename S>
double Network<S>::ForwardBackward(const Batch& batch, Detail detail) {
  return impl_->ForwardBackward(batch, detail);
}

template <typename S>
void Network<S>::RowLosses(absl::Span<double> losses) const {
  impl_->RowLosses(losses);
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
void Network<S>::SetTruncation(int64_t truncation) {
  impl_->SetTruncation(truncation);
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
