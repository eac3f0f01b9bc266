#ifndef GRADWATCH_SERVER_ALERTS_BASELINES_H_
#define GRADWATCH_SERVER_ALERTS_BASELINES_H_

#include <algorithm>
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

// Positive values, and how each of the last kSpikeWindow stood out from those before it, at most
// `past` of them. Not scored before there are kSpikeSamplesMin, or half of `past` if that is less.
class SpikeWatch {
 public:
  explicit SpikeWatch(int past) : values_(past) {}

  void Observe(double value);
  // Keeps the newest values that fit; what was scored stays.
  void Resize(int past) { values_.Resize(past); }

  const stats::LogMadWindow& values() const { return values_; }
  // Whether any value was scored.
  bool scored() const { return values_.size() > SamplesMin(); }
  const Score& latest() const;
  // The largest of each kind among the last kSpikeWindow.
  Score largest() const;
  // How many of the last kSpikeWindow passed both limits.
  int Count(double z, double over_median) const;

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  int SamplesMin() const { return std::min(kSpikeSamplesMin, values_.capacity() / 2); }

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

// How far back rules look, in steps; see v1.RuleSettings.window_steps. All are at least 1,
// loss_plateau is at least 2.
struct Windows {
  int loss_divergence = kLossWindow;
  int exploding_rel = kSpikePast;
  int recurrent_expansion = kGrowthWindow;
  int vanishing_through_time = kGrowthWindow;
  int clip_saturated = kClipWindow;
  int loss_plateau = kPlateauWindow;
  int update_ratio = kUpdateRatioWindow;
  int oscillation = kCosineWindow;
  int clip_too_loose = kClipWindow;
  int update_spike = kSpikePast;
};

// What rules remember of a job's past. Steps that are not finite change nothing but their own
// count.
struct Baselines {
  Baselines() : Baselines(Windows()) {}
  explicit Baselines(const Windows& windows);

  // Keeps the newest of what is there that fits; a longer window fills up first. Moving averages go
  // on from where they are.
  void SetWindows(const Windows& windows);

  // The loss has come down so far, or falls so fast, that bursts of the gradient do no harm.
  bool LearnsWell() const;
  // The loss falls at all, or is near nothing.
  bool Learns() const;

  int64_t nonfinite_in_a_row = 0;

  std::optional<double> first_loss;  // The first finite one.
  stats::Ema loss_ema;               // Of LOSS_DIVERGENCE.
  double best_loss_ema = std::numeric_limits<double>::infinity();
  // Of LOSS_PLATEAU: the last losses, and as many before them.
  stats::Window recent_losses;
  stats::Window earlier_losses;

  SpikeWatch norms;    // Of the gradient before clipping. EXPLODING_REL's.
  SpikeWatch updates;  // Of the update over the learning rate, so that no schedule is a spike.
  stats::RecentShare clipped;  // Of CLIP_SATURATED.
  stats::Window clip_coefficients;
  stats::RecentShare loosely_clipped;  // The same as `clipped`, of CLIP_TOO_LOOSE.
  stats::RecentShare spiked;           // Norms that stood out, unclipped.

  stats::Ema log_growth;     // Of RECURRENT_EXPANSION.
  stats::Ema log_vanishing;  // The same, of VANISHING_THROUGH_TIME.
  // Of the median over the weight matrices; a bias that began at 0 has no size to compare with.
  stats::Ema log_update_ratio;
  std::vector<WeightNorm> weights;  // By parameter; empty at level OFF.
  // Of the gradients that a job with Diagnostics.compare_steps compares.
  stats::Ema gradient_cosine;
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
  void ResizeLosses(int window);
  bool LossIsBelow(double share_of_median) const;
  void ObserveLoss(double loss);
  void AddLoss(double loss);  // To the two halves.
  void ObserveNorm(const v1::StepStats& stats);
  void ObserveTensors(const v1::StepStats& stats, const Layout& layout);
  void ObserveSpectra(const v1::StepStats& stats);

  // What LearnsWell and Learns look at; no setting changes it.
  stats::Ema learning_ema_{kLearningEmaBeta};
  stats::Window learning_losses_{kLearningLosses};
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_BASELINES_H_
