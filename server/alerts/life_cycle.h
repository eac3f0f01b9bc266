#ifndef GRADWATCH_SERVER_ALERTS_LIFE_CYCLE_H_
#define GRADWATCH_SERVER_ALERTS_LIFE_CYCLE_H_

#include <array>
#include <cstdint>

#include "server/alerts/rules.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {

// Where one rule stands: the same state machine for all of them.
//
//   inactive --holds--> pending --held for long enough--> firing --clear for long enough-->
//   inactive
//               ^          |
//               +--- first step that does not hold
//
// A clause that is an event fires at once; while it does, another that held for long enough takes
// over.
struct Life {
  enum class Phase { kInactive, kPending, kFiring };

  Phase phase = Phase::kInactive;
  std::array<int64_t, kClauses> runs{};  // Steps in a row that each clause held.
  int64_t pending_step = 0;              // Where the condition that is pending, or fires, began.
  int clause = 0;                        // The clause that fired.
  int64_t clear_run = 0;                 // Steps in a row that were clear, while firing.
  int64_t alert = 0;                     // Number of the latest alert; 0 for none.
  int64_t resolved_step = 0;             // When that alert resolved, unless it fires.

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);
};

enum class Transition { kNone, kFires, kTakesOver, kResolves };

// Takes `life` through one step. `seen.known` must be true.
Transition Advance(const Observation& seen, const Settings& settings, int64_t step, Life* life);

// Whether what fires, or last did, is a clause that is an event.
bool FiredForEvent(const Observation& seen, const Life& life);

// A life that fires at this step continues its latest alert instead of beginning another one.
bool WithinCooldown(const Life& life, const Settings& settings);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_LIFE_CYCLE_H_
