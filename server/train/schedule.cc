#include "server/train/schedule.h"

#include <cmath>

namespace gradwatch::train {

double LearningRateAt(const v1::Optimizer& spec, int64_t step_limit, int64_t step) {
  const double rate = spec.learning_rate();
  if (!spec.has_warmup_cosine()) return rate;
  const int64_t warmup = spec.warmup_cosine().warmup_steps();
  const double minimum = spec.warmup_cosine().learning_rate_min();
  if (step < warmup) {
    return rate * static_cast<double>(step + 1) / static_cast<double>(warmup);
  }
  if (step >= step_limit) return minimum;
  constexpr double kPi = 3.14159265358979323846;
  const double done = static_cast<double>(step - warmup) / static_cast<double>(step_limit - warmup);
  return minimum + (rate - minimum) * 0.5 * (1.0 + std::cos(kPi * done));
}

}  // namespace gradwatch::train
