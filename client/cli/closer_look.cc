#include "client/cli/closer_look.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"

namespace gradwatch::cli {
namespace {

// Values over that at index 0; empty when that is not above 0.
std::vector<double> RelativeProfile(std::vector<double> values) {
  if (values.empty() || !std::isfinite(values[0]) || values[0] <= 0) return {};
  const double whole = values[0];
  for (double& value : values) value /= whole;
  return values;
}

// The gradient at the state of a layer by lag, relative to lag 0.
std::vector<double> StateProfile(const v1::StepStats& step, int layer) {
  for (const v1::LayerTimeStats& stats : step.layers()) {
    if (stats.layer() != layer) continue;
    return RelativeProfile(
        {stats.state_gradient_norm().rbegin(), stats.state_gradient_norm().rend()});
  }
  return {};
}

// The largest of the layers, gate by gate.
void KeepLargest(const google::protobuf::RepeatedField<double>& gates,
                 std::vector<double>* largest) {
  for (int gate = 0; gate < gates.size(); ++gate) {
    const auto at = static_cast<size_t>(gate);
    if (largest->size() <= at) largest->push_back(gates[gate]);
    (*largest)[at] = std::max((*largest)[at], gates[gate]);
  }
}

void AddSquares(const google::protobuf::RepeatedField<double>& norms,
                std::vector<double>* squares) {
  if (squares->size() < static_cast<size_t>(norms.size())) {
    squares->resize(static_cast<size_t>(norms.size()));
  }
  for (int gate = 0; gate < norms.size(); ++gate) {
    (*squares)[static_cast<size_t>(gate)] += norms[gate] * norms[gate];
  }
}

}  // namespace

CloserLook::CloserLook(int64_t first, int64_t last, const ParameterList& parameters)
    : first_(first), last_(last), noise_scale_(first, last) {
  for (const v1::ParameterInfo& parameter : parameters) {
    is_recurrence_.push_back(absl::StrContains(parameter.name(), "_hh_"));
  }
}

CloserLook::Gate& CloserLook::GateAt(int gate) {
  while (gates_.size() <= static_cast<size_t>(gate)) gates_.emplace_back(first_, last_);
  return gates_[static_cast<size_t>(gate)];
}

CloserLook::Layer& CloserLook::LayerAt(int layer) {
  while (layers_.size() <= static_cast<size_t>(layer)) layers_.emplace_back(first_, last_);
  return layers_[static_cast<size_t>(layer)];
}

void CloserLook::AddGateNorms(const v1::StepStats& step) {
  std::vector<double> recurrent;
  std::vector<double> input;
  const int tensors = std::min(step.tensors_size(), static_cast<int>(is_recurrence_.size()));
  for (int i = 0; i < tensors; ++i) {
    AddSquares(step.tensors(i).gate_norms(),
               is_recurrence_[static_cast<size_t>(i)] ? &recurrent : &input);
  }
  for (size_t gate = 0; gate < recurrent.size(); ++gate) {
    GateAt(static_cast<int>(gate)).recurrent_norm.Add(step.step(), std::sqrt(recurrent[gate]));
  }
  for (size_t gate = 0; gate < input.size(); ++gate) {
    GateAt(static_cast<int>(gate)).input_norm.Add(step.step(), std::sqrt(input[gate]));
  }
}

void CloserLook::AddLayers(const v1::StepStats& step) {
  for (const v1::LayerTimeStats& stats : step.layers()) {
    if (stats.layer() < 0) continue;
    for (int gate = 0; gate < stats.gate_mean_size(); ++gate) {
      GateAt(gate).mean.Add(step.step(), stats.gate_mean(gate));
    }
    Layer& layer = LayerAt(stats.layer());
    if (stats.has_keep_time_constant()) {
      layer.keep_time.Add(step.step(), stats.keep_time_constant());
    }
    if (stats.has_keep_time_constant_max()) {
      layer.keep_time_max.Add(step.step(), stats.keep_time_constant_max());
    }
    if (stats.has_activation_slope()) layer.slope.Add(step.step(), stats.activation_slope());
    if (stats.has_state_similarity()) layer.similarity.Add(step.step(), stats.state_similarity());
  }
}

void CloserLook::AddRecurrent(const v1::StepStats& step) {
  std::vector<double> sigma_max;
  std::vector<double> spectral_radius;
  for (const v1::RecurrentStats& layer : step.recurrent()) {
    KeepLargest(layer.sigma_max(), &sigma_max);
    KeepLargest(layer.spectral_radius(), &spectral_radius);
  }
  for (size_t gate = 0; gate < sigma_max.size(); ++gate) {
    GateAt(static_cast<int>(gate)).sigma_max.Add(step.step(), sigma_max[gate]);
  }
  for (size_t gate = 0; gate < spectral_radius.size(); ++gate) {
    GateAt(static_cast<int>(gate)).spectral_radius.Add(step.step(), spectral_radius[gate]);
  }
}

void CloserLook::AddProbes(const v1::StepStats& step) {
  for (const v1::ProbeStats& stats : step.probe()) {
    Probe probe;
    probe.profile = RelativeProfile({stats.lag_profile().begin(), stats.lag_profile().end()});
    if (stats.layer() < 0 || probe.profile.empty()) continue;
    probe.step = step.step();
    probe.state_profile = StateProfile(step, stats.layer());
    if (stats.has_decay_factor()) probe.decay_factor = stats.decay_factor();
    if (stats.has_horizon()) probe.horizon = stats.horizon();
    if (probes_.size() <= static_cast<size_t>(stats.layer())) {
      probes_.resize(static_cast<size_t>(stats.layer()) + 1);
    }
    LayerProbes& layer = probes_[static_cast<size_t>(stats.layer())];
    if (!layer.first) layer.first = probe;
    layer.newest = std::move(probe);
  }
}

void CloserLook::AddLengths(const v1::StepStats& step) {
  const int64_t tenth = std::max<int64_t>((last_ - first_ + 1) / 10, 1);
  const auto add = [&step](LossByLength* lengths) {
    for (const v1::LengthStats& group : step.lengths()) {
      if (!std::isfinite(group.loss())) continue;
      LengthLoss& at = (*lengths)[(group.minimum() + group.maximum()) / 2];
      at.rows += group.rows();
      at.sum += group.rows() * group.loss();
    }
  };
  if (step.step() < first_ + tenth) add(&early_lengths_);
  if (step.step() > last_ - tenth) add(&late_lengths_);
}

void CloserLook::Add(const v1::StepStats& step) {
  AddGateNorms(step);
  AddLayers(step);
  AddRecurrent(step);
  AddProbes(step);
  AddLengths(step);
  if (step.noise().has_noise_scale()) noise_scale_.Add(step.step(), step.noise().noise_scale());
}

}  // namespace gradwatch::cli
