#ifndef GRADWATCH_SERVER_STATS_LAG_PROFILE_H_
#define GRADWATCH_SERVER_STATS_LAG_PROFILE_H_

#include <optional>

#include "absl/types/span.h"
#include "server/base/export.h"

// What a profile says that has the norm of a gradient at lag 0, 1, …: by how much it changes from
// one lag to the next, and how far it goes. Pure; any thread.
namespace gradwatch::stats {

// Of the norm at lag 0: where less than this is left, the gradient has vanished.
constexpr double kHorizonShare = 1e-3;

// exp of the slope of the least-squares line through (lag, ln norm). Norms that are zero or not
// finite are left out: they have no logarithm. Nothing with fewer than two others.
GRADWATCH_ENGINE_API std::optional<double> DecayFactor(absl::Span<const float> profile);

// The largest lag whose norm is at least kHorizonShare of that at lag 0. Nothing when that one is
// zero or not finite, or there is none.
GRADWATCH_ENGINE_API std::optional<int> LagHorizon(absl::Span<const float> profile);

}  // namespace gradwatch::stats

#endif  // GRADWATCH_SERVER_STATS_LAG_PROFILE_H_
