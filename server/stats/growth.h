#ifndef GRADWATCH_SERVER_STATS_GROWTH_H_
#define GRADWATCH_SERVER_STATS_GROWTH_H_

#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/base/export.h"

namespace gradwatch::stats {

// Below this a norm says nothing about a ratio, and the pair is left out.
constexpr double kNormFloor = 1e-30;

// What back-propagation through time saw in one recurrent layer over T time steps.
struct LayerCarry {
  // ||delta_t||, t = 0..T-1: the whole gradient at the state of time step t.
  absl::Span<const double> state_gradient_norm;
  // ||carry_t||, t = 0..T-2: the part of delta_t that came through the recurrence from t + 1.
  absl::Span<const double> carry_norm;
  // Empty, or the norms are those of some time steps, the first and the last among them, in one
  // window: strides[i] is how many time steps norm i is before norm i + 1, and every carry is the
  // whole gradient, so that a ratio over a stride is the product of its ratios.
  absl::Span<const int> strides;
};

// The gradient through time in a few numbers (Pascanu, Mikolov and Bengio 2013, the ratio inside
// their regulariser). The growth factor of a layer is exp(mean of ln(carry_t / delta_{t+1})) over
// the valid pairs.
struct Growth {
  double growth_factor = 0.0;          // The largest over layers.
  int layer = 0;                       // Which layer that is.
  std::optional<double> horizon;       // -1 / ln(growth_factor) time steps; absent from 1 upwards.
  bool horizon_beyond_window = false;  // Longer than the window (or endless): a lower bound.
  double decades = 0.0;                // window * log10(growth_factor).
  int window = 0;                      // Back-propagated length, in time steps.
  // The smallest lag (time steps back from the end of a window) at which the gradient fell below
  // kNormFloor in some layer.
  std::optional<int> underflow_at_lag;
  std::vector<double> layer_growth_factors;  // NaN for a layer without a valid pair.
};

// Fills `growth` from one entry for each layer. `window` is the number of time steps that the
// gradient goes back at most, from 1: windows begin at 0, window, 2 * window, ..., and no ratio is
// taken across their borders. Pairs with a norm below kNormFloor or not finite are left out, under
// strides with all of their time steps.
// False, and `growth` without meaning, when no layer has a valid pair.
// Allocates only when there are more layers than in the call before.
GRADWATCH_ENGINE_API bool MeasureGrowth(absl::Span<const LayerCarry> layers, int window,
                                        Growth* growth);

// The same numbers as a message.
GRADWATCH_ENGINE_API void ToProto(const Growth& growth, v1::GrowthStats* message);

}  // namespace gradwatch::stats

#endif  // GRADWATCH_SERVER_STATS_GROWTH_H_
