#include "server/stats/growth.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "server/base/check.h"
#include "server/base/vector.h"

namespace gradwatch::stats {
namespace {

bool Measurable(double norm) {
  return norm >= kNormFloor && norm <= std::numeric_limits<double>::max();
}

// A sum of logarithms, of which few are taken: numbers are multiplied while the product is far from
// the ends of a double's range.
class LogSum {
 public:
  // Any number above zero.
  void Add(double value) {
    if (!Moderate(value)) {
      sum_ += std::log(value);
      return;
    }
    product_ *= value;
    if (Moderate(product_)) return;
    sum_ += std::log(product_);
    product_ = 1.0;
  }
  // The logarithm of above / below, both above zero, also where no double holds the ratio.
  void AddRatio(double above, double below) {
    const double ratio = above / below;
    if (Moderate(ratio)) {
      Add(ratio);
    } else {
      sum_ += std::log(above) - std::log(below);
    }
  }
  double Total() const { return sum_ + std::log(product_); }

 private:
  static bool Moderate(double value) { return value > 1e-100 && value < 1e100; }

  double sum_ = 0.0;
  double product_ = 1.0;
};

// Pairs that are looked at together.
constexpr int kTogether = 16;

// The product of carry[i] / whole[i] over kTogether pairs. 0 when they are to be looked at one by
// one: some norm is not measurable, or some ratio so far from 1 that the product might leave the
// range of a double.
double ProductOfRatios(const double* carry, const double* whole) {
  constexpr double kFar = 1e18;
  constexpr int kStep = static_cast<int>(kVectorSize<double>);
  const Vector<double> zero = {};
  Vector<double> product = zero + 1.0;
#pragma GCC unroll 8
  for (int i = 0; i < kTogether; i += kStep) {
    const Vector<double> from = LoadVector(whole + i);
    const Vector<double> to = LoadVector(carry + i);
    const Vector<double> ratio = to / from;
    const auto usable =
        (from >= kNormFloor) & (to >= kNormFloor) & (ratio > 1.0 / kFar) & (ratio < kFar);
    product *= usable ? ratio : zero;
  }
  double all = 1.0;
  for (int lane = 0; lane < kStep; ++lane) all *= product[lane];
  return all;
}

// What one layer tells.
class LayerGrowth {
 public:
  explicit LayerGrowth(const LayerCarry& layer) : layer_(layer) {}

  // One window, of which only some norms are known. The product of ratios from one to another is
  // the ratio of these two.
  void AddStrides() {
    const double* const norms = layer_.state_gradient_norm.data();
    size_t end = layer_.strides.size();  // Of a stretch without gaps.
    bool known = Measurable(norms[end]);
    int lag = 0;
    for (size_t i = end; i-- > 0;) {
      lag += layer_.strides[i];
      const bool goes_on = Measurable(norms[i]);
      if (known && goes_on) {
        pairs_ += layer_.strides[i];
      } else if (known) {
        if (i + 1 < end) logs_.AddRatio(norms[i + 1], norms[end]);
        if (std::abs(norms[i]) < kNormFloor) AddUnderflow(lag);
      } else {
        end = i;
      }
      known = goes_on;
    }
    if (known && end > 0) logs_.AddRatio(norms[0], norms[end]);
  }

  // The back-propagated time steps from `begin` to before `end`.
  void AddWindow(int begin, int end) {
    const double* const carry = layer_.carry_norm.data();
    const double* const whole = layer_.state_gradient_norm.data() + 1;
    int t = begin;
    for (; t + kTogether < end; t += kTogether) {
      const double product = ProductOfRatios(carry + t, whole + t);
      if (product > 0.0) {
        logs_.Add(product);
        pairs_ += kTogether;
      } else {
        for (int i = t; i < t + kTogether; ++i) AddPair(carry[i], whole[i], end - 1 - i);
      }
    }
    for (; t + 1 < end; ++t) AddPair(carry[t], whole[t], end - 1 - t);
  }

  // Of ln(carry ratio); NaN without a valid pair.
  double mean_log() const {
    return pairs_ > 0 ? logs_.Total() / pairs_ : std::numeric_limits<double>::quiet_NaN();
  }
  std::optional<int> underflow_at_lag() const { return underflow_at_lag_; }

 private:
  void AddPair(double carry, double whole, int lag) {
    if (!Measurable(whole)) return;
    if (Measurable(carry)) {
      logs_.AddRatio(carry, whole);
      ++pairs_;
    } else if (std::abs(carry) < kNormFloor) {
      AddUnderflow(lag);
    }
  }
  void AddUnderflow(int lag) { underflow_at_lag_ = std::min(lag, underflow_at_lag_.value_or(lag)); }

  const LayerCarry& layer_;
  LogSum logs_;
  int pairs_ = 0;
  std::optional<int> underflow_at_lag_;
};

LayerGrowth MeasureLayer(const LayerCarry& layer, int window) {
  const int time_steps = static_cast<int>(layer.state_gradient_norm.size());
  LayerGrowth growth(layer);
  if (!layer.strides.empty()) {
    GRADWATCH_CHECK(layer.strides.size() + 1 == layer.state_gradient_norm.size());
    growth.AddStrides();
    return growth;
  }
  for (int begin = 0; begin < time_steps;) {
    const int end = begin + std::min(window, time_steps - begin);
    growth.AddWindow(begin, end);
    begin = end;
  }
  return growth;
}

}  // namespace

bool MeasureGrowth(absl::Span<const LayerCarry> layers, int window, Growth* growth) {
  GRADWATCH_CHECK(window >= 1);
  growth->layer_growth_factors.clear();
  growth->underflow_at_lag.reset();
  double largest = std::numeric_limits<double>::quiet_NaN();
  for (const LayerCarry& layer : layers) {
    const LayerGrowth one = MeasureLayer(layer, window);
    if (one.underflow_at_lag()) {
      growth->underflow_at_lag =
          std::min(*one.underflow_at_lag(), growth->underflow_at_lag.value_or(window));
    }
    const double mean_log = one.mean_log();
    if (!std::isnan(mean_log) && !(mean_log <= largest)) {
      largest = mean_log;
      growth->layer = static_cast<int>(growth->layer_growth_factors.size());
    }
    growth->layer_growth_factors.push_back(std::exp(mean_log));
  }
  if (std::isnan(largest)) return false;
  growth->growth_factor = std::exp(largest);
  growth->horizon.reset();
  if (largest < 0.0) growth->horizon = -1.0 / largest;
  growth->horizon_beyond_window = largest >= 0.0 || *growth->horizon > window;
  growth->decades = window * largest / std::log(10.0);
  growth->window = window;
  return true;
}

void ToProto(const Growth& growth, v1::GrowthStats* message) {
  message->Clear();
  message->set_growth_factor(growth.growth_factor);
  if (growth.horizon) message->set_horizon(*growth.horizon);
  message->set_horizon_beyond_window(growth.horizon_beyond_window);
  message->set_decades(growth.decades);
  message->set_layer(growth.layer);
  message->set_window(growth.window);
  if (growth.underflow_at_lag) message->set_underflow_at_lag(*growth.underflow_at_lag);
  for (const double factor : growth.layer_growth_factors) {
    message->add_layer_growth_factors(factor);
  }
}

}  // namespace gradwatch::stats
