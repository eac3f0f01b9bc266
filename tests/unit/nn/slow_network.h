#ifndef GRADWATCH_TESTS_UNIT_NN_SLOW_NETWORK_H_
#define GRADWATCH_TESTS_UNIT_NN_SLOW_NETWORK_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/batch.h"
#include "server/nn/network.h"

namespace gradwatch::nn {

// A slow reference: one unit at a time, straight from the equations.
class SlowNetwork {
 public:
  explicit SlowNetwork(const Network<double>& network) : network_(network) {}

  // What one layer did, over all positions that Outputs has gone through.
  struct Seen {
    // [gate][unit]: sums of the magnitudes of the gates' values.
    std::vector<std::vector<double>> gates;
    double slopes = 0.0;  // Of phi' / phi'(0) of what makes the state.
    int64_t positions = 0;
  };
  const Seen& seen(size_t layer) const { return seen_[layer]; }

  // Read-out of `row` at its valid time steps, from a zero state.
  std::vector<std::vector<double>> Outputs(const Batch& batch, int64_t row) {
    const NetworkConfig& config = network_.config();
    const auto hidden = static_cast<size_t>(config.hidden);
    std::vector<std::vector<double>> h(static_cast<size_t>(config.layers),
                                       std::vector<double>(hidden, 0.0));
    std::vector<std::vector<double>> c = h;
    seen_.resize(h.size());
    for (Seen& seen : seen_) {
      seen.gates.resize(static_cast<size_t>(GatesOf(config.cell)), std::vector<double>(hidden));
    }
    std::vector<std::vector<double>> outputs;
    for (int64_t t = 0; t < batch.lengths[static_cast<size_t>(row)]; ++t) {
      std::vector<double> x = InputOf(batch, t, row);
      for (size_t layer = 0; layer < h.size(); ++layer) {
        Step(std::to_string(layer), x, h[layer], c[layer], &seen_[layer]);
        x = h[layer];
      }
      std::vector<double> output;
      for (size_t o = 0; o < static_cast<size_t>(config.outputs); ++o) {
        output.push_back(At("readout.bias", o) + Dot("readout.weight", o, x));
      }
      outputs.push_back(output);
    }
    return outputs;
  }

 private:
  std::vector<double> InputOf(const Batch& batch, int64_t t, int64_t row) {
    const auto position = static_cast<size_t>(t * batch.rows + row);
    const NetworkConfig& config = network_.config();
    std::vector<double> x;
    if (config.input == Input::kFeatures) {
      const auto width = static_cast<size_t>(config.features);
      x.assign(batch.inputs.begin() + static_cast<int64_t>(position * width),
               batch.inputs.begin() + static_cast<int64_t>((position + 1) * width));
    } else if (config.input == Input::kOneHot) {
      x.assign(static_cast<size_t>(config.vocabulary), 0.0);
      x[static_cast<size_t>(batch.tokens[position])] = 1.0;
    } else {
      const auto width = static_cast<size_t>(config.embedding_width);
      for (size_t e = 0; e < width; ++e) {
        x.push_back(
            At("embedding.weight", static_cast<size_t>(batch.tokens[position]) * width + e));
      }
    }
    return x;
  }

  double At(const std::string& name, size_t index) {
    for (const Parameter& parameter : network_.parameters()) {
      if (parameter.name == name) {
        return network_.weights()[static_cast<size_t>(parameter.offset) + index];
      }
    }
    ADD_FAILURE() << name;
    return 0.0;
  }

  double Dot(const std::string& name, size_t row, const std::vector<double>& x) {
    double sum = 0.0;
    for (size_t j = 0; j < x.size(); ++j) sum += At(name, row * x.size() + j) * x[j];
    return sum;
  }

  static double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

  void Step(const std::string& layer, const std::vector<double>& x, std::vector<double>& h,
            std::vector<double>& c, Seen* seen) {
    const size_t n = h.size();
    ++seen->positions;
    const std::vector<double> before = h;
    const auto from_input = [&](size_t gate, size_t j) {
      return Dot("rnn.weight_ih_l" + layer, gate * n + j, x) +
             At("rnn.bias_ih_l" + layer, gate * n + j);
    };
    const auto from_state = [&](size_t gate, size_t j) {
      return Dot("rnn.weight_hh_l" + layer, gate * n + j, before) +
             At("rnn.bias_hh_l" + layer, gate * n + j);
    };
    const auto both = [&](size_t gate, size_t j) {
      return from_input(gate, j) + from_state(gate, j);
    };
    for (size_t j = 0; j < n; ++j) {
      switch (network_.config().cell) {
        case Cell::kRnnTanh:
          h[j] = std::tanh(both(0, j));
          seen->slopes += 1.0 - h[j] * h[j];
          break;
        case Cell::kRnnRelu:
          h[j] = std::max(0.0, both(0, j));
          seen->slopes += h[j] > 0.0 ? 1.0 : 0.0;
          break;
        case Cell::kRnnSigmoid:
          h[j] = Sigmoid(both(0, j));
          Note({h[j]}, j, seen);
          seen->slopes += 4.0 * h[j] * (1.0 - h[j]);
          break;
        case Cell::kGru: {
          const double r = Sigmoid(both(0, j));
          const double z = Sigmoid(both(1, j));
          const double candidate = std::tanh(from_input(2, j) + r * from_state(2, j));
          h[j] = (1.0 - z) * candidate + z * before[j];
          Note({r, z, candidate}, j, seen);
          seen->slopes += 1.0 - candidate * candidate;
          break;
        }
        case Cell::kLstm:
          c[j] = Sigmoid(both(1, j)) * c[j] + Sigmoid(both(0, j)) * std::tanh(both(2, j));
          h[j] = Sigmoid(both(3, j)) * std::tanh(c[j]);
          Note({Sigmoid(both(0, j)), Sigmoid(both(1, j)), std::tanh(both(2, j)),
                Sigmoid(both(3, j))},
               j, seen);
          seen->slopes += 1.0 - std::tanh(c[j]) * std::tanh(c[j]);
          break;
      }
    }
  }

  static void Note(const std::vector<double>& gates, size_t unit, Seen* seen) {
    for (size_t gate = 0; gate < gates.size(); ++gate) {
      seen->gates[gate][unit] += std::abs(gates[gate]);
    }
  }

  const Network<double>& network_;
  std::vector<Seen> seen_;
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_TESTS_UNIT_NN_SLOW_NETWORK_H_
