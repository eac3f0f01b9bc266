#include "server/stats/growth.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "server/base/check.h"

namespace gradwatch::stats {
namespace {

bool Measurable(double norm) { return std::isfinite(norm) && norm >= kNormFloor; }

// What one layer tells: the mean of ln(carry ratio), NaN without a valid pair.
struct LayerGrowth {
  double mean_log = std::numeric_limits<double>::quiet_NaN();
  std::optional<int> underflow_at_lag;
};

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
  double Total() const { return sum_ + std::log(product_); }

 private:
  static bool Moderate(double value) { return value > 1e-100 && value < 1e100; }

  double sum_ = 0.0;
  double product_ = 1.0;
};

LayerGrowth MeasureLayer(const LayerCarry& layer, int window) {
  const int time_steps = static_cast<int>(layer.state_gradient_norm.size());
  LayerGrowth growth;
  LogSum logs;
  int pairs = 0;
  int window_begin = (time_steps - 1) / window * window;
  for (int t = time_steps - 2; t >= 0; --t) {
    if (t + 1 == window_begin) {  // Nothing is carried to t.
      window_begin -= window;
      continue;
    }
    const double whole = layer.state_gradient_norm[static_cast<size_t>(t + 1)];
    const double carry = layer.carry_norm[static_cast<size_t>(t)];
    if (!Measurable(whole)) continue;
    if (Measurable(carry)) {
      logs.Add(carry / whole);
      ++pairs;
    } else if (std::abs(carry) < kNormFloor) {
      const int window_end = std::min(time_steps, window_begin + window) - 1;
      const int lag = window_end - t;
      growth.underflow_at_lag = std::min(lag, growth.underflow_at_lag.value_or(lag));
    }
  }
  if (pairs > 0) growth.mean_log = logs.Total() / pairs;
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
    if (one.underflow_at_lag) {
      growth->underflow_at_lag =
          std::min(*one.underflow_at_lag, growth->underflow_at_lag.value_or(window));
    }
    if (!std::isnan(one.mean_log) && !(one.mean_log <= largest)) {
      largest = one.mean_log;
      growth->layer = static_cast<int>(growth->layer_growth_factors.size());
    }
    growth->layer_growth_factors.push_back(std::exp(one.mean_log));
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
