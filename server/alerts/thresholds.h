#ifndef GRADWATCH_SERVER_ALERTS_THRESHOLDS_H_
#define GRADWATCH_SERVER_ALERTS_THRESHOLDS_H_

#include <cstdint>

// Every number that a rule compares with. What a job may change is the default of its settings
// (rule_catalogue.cc); the rest is fixed.
namespace gradwatch::alerts {

// R1 NON_FINITE: non-finite steps in a row.
constexpr double kNonFiniteSteps = 0.0;

// R2 EXPLODING_ABS: norm before clipping, for a loss that is a mean.
constexpr double kNormLimit = 1e3;
constexpr double kNormResolvePart = 0.1;  // Resolves below this part of the limit.

// R3 LOSS_DIVERGENCE: loss over the first finite loss; or the loss's moving average over its best,
// where a best below a quarter of the first loss counts as a quarter, because near zero every
// wobble is a multiple.
constexpr double kLossOverFirst = 10.0;
constexpr double kLossEmaBeta = 0.95;
constexpr double kEmaOverBest = 2.0;
constexpr double kEmaOverBestResolve = 1.2;
constexpr double kBestFloorPart = 0.25;
constexpr int64_t kEmaForFactor = 10;  // The average must stay high so many times as long.

// R4 EXPLODING_REL: robust z of ln norm, and norm over the median, in so many of the last steps.
constexpr double kNormZ = 6.0;
constexpr double kNormOverMedian = 10.0;
constexpr int kSpikesNeeded = 3;
constexpr int kSpikeWindow = 10;
constexpr int kNormSamplesMin = 64;

// R5 RECURRENT_EXPANSION and R6 VANISHING_THROUGH_TIME: the growth factor's moving average (of its
// logarithm), or the decades over the back-propagated length that follow from it.
constexpr double kGrowthEmaBeta = 0.98;
constexpr double kGrowthLimit = 1.05;
constexpr double kGrowthResolvePart = 0.4;  // Of the limit's distance from 1: 1.05 gives 1.02.
constexpr double kExpansionDecades = 3.0;
constexpr double kExpansionDecadesResolve = 2.5;
constexpr double kVanishingDecades = -6.0;
constexpr double kVanishingResolvePart = 2.0 / 3.0;  // -6 gives -4.
constexpr int kVanishingWindowMin = 20;              // Time steps.

// R14 HIDDEN_GROWTH: slope of ln RMS over the second half of the time steps, of states that are
// large at the end; or a single state that is huge.
constexpr double kSurgeSlope = 0.02;  // Per time step.
constexpr double kSurgeSlopeResolvePart = 0.5;
constexpr double kSurgeRmsFloor = 10.0;
constexpr double kSurgeRmsFloorResolvePart = 0.5;
constexpr double kSurgeLargest = 1e3;
constexpr double kSurgeLargestResolvePart = 0.5;
constexpr int kSurgeTimeStepsMin = 8;  // Fewer have no slope.

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_THRESHOLDS_H_
