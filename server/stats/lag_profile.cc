#include "server/stats/lag_profile.h"

#include <cmath>
#include <cstddef>

namespace gradwatch::stats {
namespace {

bool HasLogarithm(double norm) { return norm > 0.0 && std::isfinite(norm); }

}  // namespace

std::optional<double> DecayFactor(absl::Span<const float> profile) {
  double count = 0.0;
  double lags = 0.0;
  double logs = 0.0;
  for (size_t lag = 0; lag < profile.size(); ++lag) {
    if (!HasLogarithm(profile[lag])) continue;
    count += 1.0;
    lags += static_cast<double>(lag);
    logs += std::log(static_cast<double>(profile[lag]));
  }
  if (count < 2.0) return std::nullopt;
  double products = 0.0;
  double squares = 0.0;
  for (size_t lag = 0; lag < profile.size(); ++lag) {
    if (!HasLogarithm(profile[lag])) continue;
    const double from_middle = static_cast<double>(lag) - lags / count;
    products += from_middle * (std::log(static_cast<double>(profile[lag])) - logs / count);
    squares += from_middle * from_middle;
  }
  return std::exp(products / squares);
}

std::optional<int> LagHorizon(absl::Span<const float> profile) {
  if (profile.empty() || !HasLogarithm(profile[0])) return std::nullopt;
  const double least = kHorizonShare * static_cast<double>(profile[0]);
  size_t lag = profile.size() - 1;
  while (!(static_cast<double>(profile[lag]) >= least)) --lag;  // Ends at 0 at the latest.
  return static_cast<int>(lag);
}

}  // namespace gradwatch::stats
