#include "server/nn/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "server/base/philox.h"

namespace gradwatch::nn {
namespace {

// Runs the network at changed weights from one and the same carried state.
class Probe {
 public:
  Probe(Network<double>& network, const Batch& batch)
      : network_(network), batch_(batch), state_(network.state().begin(), network.state().end()) {
    network_.ForwardBackward(batch_);
    gradient_.assign(network_.gradients().begin(), network_.gradients().end());
    active_ = ActiveUnits();
    network_.HoldChunkStates();
  }
  ~Probe() {
    network_.ReleaseChunkStates();
    std::copy(state_.begin(), state_.end(), network_.state().begin());
  }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  double gradient(int64_t entry) const { return gradient_[static_cast<size_t>(entry)]; }

  // False when one of the two runs crosses a kink.
  bool CentralDifference(int64_t entry, double step, double* difference) {
    double& weight = network_.weights()[static_cast<size_t>(entry)];
    const double before = weight;
    bool smooth = true;
    const auto loss_at = [&](double value) {
      weight = value;
      std::copy(state_.begin(), state_.end(), network_.state().begin());
      const double loss = network_.Forward(batch_);
      smooth &= ActiveUnits() == active_;
      return loss;
    };
    const double above = loss_at(before + step);
    const double below = loss_at(before - step);
    weight = before;
    *difference = (above - below) / ((before + step) - (before - step));
    return smooth;
  }

 private:
  // Which ReLU units are on, everywhere in the batch; empty for smooth cells.
  std::vector<bool> ActiveUnits() const {
    std::vector<bool> active;
    const NetworkConfig& config = network_.config();
    if (config.cell != Cell::kRnnRelu) return active;
    for (int layer = 0; layer < config.layers; ++layer) {
      for (int64_t t = 0; t < batch_.time_steps; ++t) {
        for (int64_t b = 0; b < batch_.valid_rows(t); ++b) {
          for (const double h : network_.hidden_state(layer, t, b)) active.push_back(h > 0.0);
        }
      }
    }
    return active;
  }

  Network<double>& network_;
  const Batch& batch_;
  const std::vector<double> state_;
  std::vector<double> gradient_;
  std::vector<bool> active_;
};

// Entries of one tensor, ascending: all, or a sample without repetition.
std::vector<int64_t> SampleEntries(const Parameter& parameter,
                                   const GradientCheckOptions& options) {
  std::vector<int64_t> entries(static_cast<size_t>(parameter.size));
  std::iota(entries.begin(), entries.end(), 0);
  const int64_t wanted = options.entries_per_tensor;
  if (wanted == 0 || wanted >= parameter.size) return entries;
  RandomStream stream(options.seed, StreamOf(parameter.name), 0);
  for (int64_t i = 0; i < wanted; ++i) {
    const uint32_t rest = static_cast<uint32_t>(std::min<int64_t>(parameter.size - i, UINT32_MAX));
    std::swap(entries[static_cast<size_t>(i)],
              entries[static_cast<size_t>(i + stream.NextBelow(rest))]);
  }
  entries.resize(static_cast<size_t>(wanted));
  std::sort(entries.begin(), entries.end());
  return entries;
}

TensorCheck CheckTensor(Probe& probe, const Parameter& parameter,
                        const GradientCheckOptions& options) {
  constexpr double kAbsolute = 1e-9;
  constexpr double kRelative = 1e-6;
  TensorCheck check;
  check.name = parameter.name;
  double error_squares = 0.0;
  double gradient_squares = 0.0;
  for (const int64_t entry : SampleEntries(parameter, options)) {
    double difference = 0.0;
    if (!probe.CentralDifference(parameter.offset + entry, options.step, &difference)) {
      ++check.kinks;
      continue;
    }
    const double gradient = probe.gradient(parameter.offset + entry);
    const double error = std::abs(gradient - difference);
    const double excess = error / (kAbsolute + kRelative * std::abs(gradient));
    ++check.entries;
    error_squares += error * error;
    gradient_squares += gradient * gradient;
    check.worst_absolute = std::max(check.worst_absolute, error);
    const double magnitude = std::max(std::abs(gradient), std::abs(difference));
    if (magnitude > 1e-8) check.worst_relative = std::max(check.worst_relative, error / magnitude);
    if (check.worst_entry < 0 || !(excess <= check.worst_excess)) {
      check.worst_excess = excess;
      check.worst_entry = entry;
    }
  }
  if (error_squares != 0.0) check.norm_relative = std::sqrt(error_squares / gradient_squares);
  return check;
}

}  // namespace

std::vector<TensorCheck> CheckGradients(Network<double>& network, const Batch& batch,
                                        const GradientCheckOptions& options) {
  std::vector<TensorCheck> checks;
  Probe probe(network, batch);
  for (const Parameter& parameter : network.parameters()) {
    checks.push_back(CheckTensor(probe, parameter, options));
  }
  return checks;
}

}  // namespace gradwatch::nn
