#ifndef GRADWATCH_SERVER_ALERTS_OBSERVE_H_
#define GRADWATCH_SERVER_ALERTS_OBSERVE_H_

#include <string>

#include "server/alerts/rules.h"

// The condition of each rule; see RuleKind::observe. observe.cc has those on explosions and on the
// gradient through time, observe_learning.cc those on layers, clipping, updates and loss.
namespace gradwatch::alerts {

Observation ObserveNonFinite(const Context& context);
Observation ObserveExplodingAbs(const Context& context);
Observation ObserveLossDivergence(const Context& context);
Observation ObserveExplodingRel(const Context& context);
Observation ObserveRecurrentExpansion(const Context& context);
Observation ObserveVanishingThroughTime(const Context& context);
Observation ObserveVanishingAbs(const Context& context);
Observation ObserveDeadLayer(const Context& context);
Observation ObserveClipSaturated(const Context& context);
Observation ObserveLossPlateau(const Context& context);
Observation ObserveGatesStuck(const Context& context);
Observation ObserveDeadOrSaturatedUnits(const Context& context);
Observation ObserveUpdateRatio(const Context& context);
Observation ObserveHiddenGrowth(const Context& context);
Observation ObserveWeightBlowup(const Context& context);
Observation ObserveOscillation(const Context& context);
Observation ObserveStalledJob(const Context& context);
Observation ObserveClipTooLoose(const Context& context);
Observation ObserveUpdateSpike(const Context& context);

// The observation for a job in which no step ended for `seconds`. ObserveStalledJob is what a step
// that did end says.
Observation Stall(double seconds, const Settings& settings);

// The weights that grew most: over their first norm (or that of PyTorch's initial weights, if
// larger), or over the step before. `tensor` is -1 when there are none.
struct WeightGrowth {
  int tensor = -1;
  double factor = 0.0;
};
WeightGrowth LargestOverFirst(const Context& context);
WeightGrowth LargestOverPrevious(const Context& context);

// The recurrent layer whose largest singular value grew most over the first one that was measured;
// -1 where none was.
struct SpectrumGrowth {
  int layer = -1;
  double factor = 0.0;
};
SpectrumGrowth LargestSpectrum(const Context& context);

// What a model that learnt nothing of the task's memory reaches, where that is known.
struct TaskFloor {
  double loss = 0.0;  // 0 when it is not known.
  const char* words = "";
};
TaskFloor FloorOf(const v1::Task& task);

// How the states of one layer run along the sequence.
struct StateRun {
  std::string name;      // "h_l0", "c_l1"
  double slope = 0.0;    // Of ln RMS per time step, over the second half; 0 for short sequences.
  double rms_end = 0.0;  // At the last time step.
};

// The run of the state that surges most: the largest slope among those that are large at the end,
// or among all if none is. Needs level FULL: an empty name otherwise.
StateRun SteepestRun(const v1::StepStats& stats);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_OBSERVE_H_
