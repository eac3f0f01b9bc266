#ifndef GRADWATCH_SERVER_ALERTS_BASELINES_H_
#define GRADWATCH_SERVER_ALERTS_BASELINES_H_

#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/thresholds.h"
#include "server/stats/estimators.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {

// Whether the step held NaN or infinity anywhere.
bool IsNonFinite(const v1::StepStats& stats);

// How one norm stood out from the norms before it.
struct NormScore {
  double z = 0.0;            // Robust, in the log domain.
  double over_median = 0.0;  // norm / median.
};

// What rules remember of a job's past. Steps that are not finite change nothing but their own
// count.
struct Baselines {
  int64_t nonfinite_in_a_row = 0;

  std::optional<double> first_loss;  // The first finite one.
  stats::Ema loss_ema{kLossEmaBeta};
  double best_loss_ema = std::numeric_limits<double>::infinity();

  // Scores of the last kSpikeWindow steps, each against the norms before it; newest at
  // score_next - 1. Not scored before there are kNormSamplesMin norms.
  stats::LogMadWindow norms;
  std::array<NormScore, kSpikeWindow> scores{};
  int score_next = 0;

  stats::Ema log_growth{kGrowthEmaBeta};

  // Takes in one step; call before the rules look.
  void Observe(const v1::StepStats& stats);

  const NormScore& latest_score() const;

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_BASELINES_H_
