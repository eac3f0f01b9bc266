#ifndef GRADWATCH_SERVER_ALERTS_BASELINES_H_
#define GRADWATCH_SERVER_ALERTS_BASELINES_H_

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/layout.h"
#include "server/alerts/thresholds.h"
#include "server/stats/estimators.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {

// Whether the step held NaN or infinity anywhere.
bool IsNonFinite(const v1::StepStats& stats);

// How one value stood out from the values before it.
struct Score {
  double z = 0.0;            // Robust, in the log domain.
  double over_median = 0.0;  // value / median.
};

// Positive values, and how each of the last kSpikeWindow stood out from the 128 before it. Not
// scored before there are kSpikeSamplesMin.
class SpikeWatch {
 public:
  void Observe(double value);

  const stats::LogMadWindow& values() const { return values_; }
  // Whether any value was scored.
  bool scored() const { return values_.size() > kSpikeSamplesMin; }
  const Score& latest() const;
  // The largest of each kind among the last kSpikeWindow.
  Score largest() const;
  // How many of the last kSpikeWindow passed both limits.
  int Count(double z, double over_median) const;

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  stats::LogMadWindow values_;
  std::array<Score, kSpikeWindow> scores_{};  // A ring; newest at next_ - 1.
  int next_ = 0;
};

// The norm of one tensor's weights in the course of time.
struct WeightNorm {
  double first = 0.0;
  double previous = 0.0;
  double latest = 0.0;
};

// What rules remember of a job's past. Steps that are not finite change nothing but their own
// count.
struct Baselines {
  // The loss has come down so far, or falls so fast, that bursts of the gradient do no harm.
  bool LearnsWell() const;
  // The loss falls at all, or is near nothing.
  bool Learns() const;

  int64_t nonfinite_in_a_row = 0;

  std::optional<double> first_loss;  // The first finite one.
  stats::Ema loss_ema{kLossEmaBeta};
  double best_loss_ema = std::numeric_limits<double>::infinity();
  // The last losses, and those before them.
  stats::Window recent_losses{kPlateauHalf};
  stats::Window earlier_losses{kPlateauHalf};

  SpikeWatch norms;    // Of the gradient before clipping.
  SpikeWatch updates;  // Of the update over the learning rate, so that no schedule is a spike.
  stats::RecentShare clipped{kClipWindow};
  stats::RecentShare spiked{kClipWindow};  // Norms that stood out, unclipped.
  stats::Window clip_coefficients{kClipWindow};

  stats::Ema log_growth{kGrowthEmaBeta};
  // Of the median over the weight matrices; a bias that began at 0 has no size to compare with.
  stats::Ema log_update_ratio{kUpdateRatioEmaBeta};
  std::vector<WeightNorm> weights;  // By parameter; empty at level OFF.
  // Of the gradients that a job with Diagnostics.compare_steps compares.
  stats::Ema gradient_cosine{kCosineEmaBeta};
  // Largest singular value of a recurrent layer's matrix (of its gates), as first and as last
  // measured; empty while none was.
  struct Spectrum {
    double first = 0.0;
    double latest = 0.0;
  };
  std::vector<Spectrum> spectra;

  // Takes in one step; call before the rules look.
  void Observe(const v1::StepStats& stats, const Layout& layout);

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  bool LossIsBelow(double share_of_median) const;
  void ObserveLoss(double loss);
  void ObserveNorm(const v1::StepStats& stats);
  void ObserveTensors(const v1::StepStats& stats, const Layout& layout);
  void ObserveSpectra(const v1::StepStats& stats);
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_BASELINES_H_
