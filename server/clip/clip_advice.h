#ifndef GRADWATCH_SERVER_CLIP_CLIP_ADVICE_H_
#define GRADWATCH_SERVER_CLIP_CLIP_ADVICE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "gradwatch/v1/clipping.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "server/base/export.h"

namespace gradwatch::clip {

// Steps with a finite norm below which no threshold is derived from norms.
constexpr int64_t kAdviceStepsMin = 100;
constexpr int64_t kAdviceStepsDefault = 500;
constexpr int64_t kAdviceStepsMax = 1'000'000;
constexpr int kAdviceThresholdsMax = 16;

// Norms of a stretch of steps.
struct NormHistory {
  int64_t first_step = 0;
  int64_t last_step = -1;
  std::vector<double> norms;  // Global L2, before clipping, finite; in any order.
  int64_t nonfinite_steps = 0;
  int64_t clipped_steps = 0;
};

// How many gradient entries have a magnitude in [2^(i-40), 2^(i-39)); zeros apart.
struct EntryMagnitudes {
  struct Bin {
    double end;    // All entries of it are below.
    double count;  // Entries.
  };
  std::vector<Bin> bins;  // From small to large.
  double zeros = 0.0;
};

// What advice is drawn from.
struct AdviceInputs {
  v1::Job job;         // With its defaults filled in.
  NormHistory window;  // The newest steps: at most `wanted_steps` finite ones.
  NormHistory kept;    // All that are kept.
  int64_t wanted_steps = kAdviceStepsDefault;
  int explosion_alerts = 0;        // See v1::ClipAdvice.
  bool stands_still = false;       // LOSS_PLATEAU fires at the end of the window.
  EntryMagnitudes magnitudes;      // Of the window; all 0 when not recorded.
  std::vector<double> thresholds;  // Whose effect is wanted; finite, above 0.
};

// The threshold that METHOD's rules give: SGD from the 10th percentile (the median as the bolder
// choice, never above the 90th), rounded down, and at most 0.5 when the loss stands still and
// nothing was clipped, because such norms are not those of a network that learns; Adam from the
// 90th (95th), rounded up; an exploding gradient the median, at most 1, rounded down; below
// kAdviceStepsMin steps 1, or 0.5 where an explosion was seen. All of them 1, 2 or 5 times a power
// of ten, and at least ten times the smallest gradient that Adam's epsilon resolves. Fills all but
// `shadows`. Pure; any thread.
GRADWATCH_ENGINE_API v1::ClipAdvice AdviseOnClipping(const AdviceInputs& inputs);

// Of finite norms in any order; not empty.
GRADWATCH_ENGINE_API v1::NormDistribution Distribute(const NormHistory& history);

// What `threshold` does to `norms`; without norms only the threshold is set.
GRADWATCH_ENGINE_API v1::ThresholdEffect EffectOf(double threshold, absl::Span<const double> norms);

// The next value down (up) that is 1, 2 or 5 times a power of ten; `value` itself if it is one to
// nine digits. `value` is positive and normal.
GRADWATCH_ENGINE_API double RoundDown125(double value);
GRADWATCH_ENGINE_API double RoundUp125(double value);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_CLIP_ADVICE_H_
