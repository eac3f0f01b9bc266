#ifndef GRADWATCH_SERVER_ALERTS_OBSERVE_H_
#define GRADWATCH_SERVER_ALERTS_OBSERVE_H_

#include <string>

#include "server/alerts/rules.h"

// The condition of each rule; see RuleKind::observe.
namespace gradwatch::alerts {

Observation ObserveNonFinite(const Context& context);
Observation ObserveExplodingAbs(const Context& context);
Observation ObserveLossDivergence(const Context& context);
Observation ObserveExplodingRel(const Context& context);
Observation ObserveRecurrentExpansion(const Context& context);
Observation ObserveVanishingThroughTime(const Context& context);
Observation ObserveHiddenGrowth(const Context& context);

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
