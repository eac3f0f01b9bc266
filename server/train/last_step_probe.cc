#include "server/train/last_step_probe.h"

#include <algorithm>
#include <optional>

#include "server/stats/lag_profile.h"

namespace gradwatch::train {
namespace {

// The last time step of `row` that has weight in the loss; -1 when none has.
int64_t LastLoss(const Batch& batch, int64_t row) {
  int64_t t = batch.lengths[static_cast<size_t>(row)] - 1;
  while (t >= 0 && !(batch.weights[static_cast<size_t>(t * batch.rows + row)] > 0.0)) --t;
  return t;
}

}  // namespace

template <typename S>
LastStepProbe<S>::LastStepProbe(const nn::Network<S>& network, int64_t positions_max)
    : state_(static_cast<int64_t>(network.state().size())) {
  weights_.reserve(static_cast<size_t>(positions_max));
}

template <typename S>
void LastStepProbe<S>::Run(Batch* batch, nn::Network<S>* network) {
  const absl::Span<S> state = network->state();
  std::copy(state.begin(), state.end(), state_.data());
  weights_.assign(batch->weights.size(), 0.0);
  for (int64_t row = 0; row < batch->rows; ++row) {
    const int64_t t = LastLoss(*batch, row);
    if (t >= 0) weights_[static_cast<size_t>(t * batch->rows + row)] = 1.0;
  }
  weights_.swap(batch->weights);
  network->ForwardBackward(*batch, nn::Detail::kFull);
  weights_.swap(batch->weights);
  std::copy_n(state_.data(), state.size(), state.begin());
}

template <typename S>
int64_t LastStepProbe<S>::MemoryBytesOf(int64_t state, int64_t positions_max) {
  return nn::SaturatingAdd(
      nn::SaturatingMultiply(state, static_cast<int64_t>(sizeof(S))),
      nn::SaturatingMultiply(positions_max, static_cast<int64_t>(sizeof(double))));
}

template <typename S>
void FillProbe(const nn::Network<S>& network, v1::StepStats* record) {
  int layer = 0;
  for (const nn::LayerTrace& trace : network.traces()) {
    v1::ProbeStats* message = record->add_probe();
    message->set_layer(layer++);
    auto* profile = message->mutable_lag_profile();
    for (auto norm = trace.hidden_gradient_norm.rbegin(); norm != trace.hidden_gradient_norm.rend();
         ++norm) {
      profile->Add(static_cast<float>(*norm));
    }
    const absl::Span<const float> lags(profile->data(), static_cast<size_t>(profile->size()));
    const std::optional<double> decay = stats::DecayFactor(lags);
    if (decay.has_value()) message->set_decay_factor(*decay);
    const std::optional<int> horizon = stats::LagHorizon(lags);
    if (horizon.has_value()) message->set_horizon(*horizon);
  }
}

template class LastStepProbe<float>;
template class LastStepProbe<double>;
template void FillProbe(const nn::Network<float>&, v1::StepStats*);
template void FillProbe(const nn::Network<double>&, v1::StepStats*);

}  // namespace gradwatch::train
