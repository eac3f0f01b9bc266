#include "server/alerts/life_cycle.h"

#include <cstddef>

namespace gradwatch::alerts {
namespace {

// The first clause that holds and has held for long enough; -1 for none.
int FirstRipe(const Observation& seen, const Settings& settings, const Life& life) {
  // What told more than an event goes on telling it until the cool-down is over.
  const bool muted = !FiredForEvent(seen, life) && WithinCooldown(life, settings);
  for (size_t i = 0; i < seen.clauses.size(); ++i) {
    const Clause& clause = seen.clauses[i];
    if (!clause.holds || (clause.event && muted)) continue;
    const int64_t needed = clause.event ? 1 : settings.for_steps * clause.for_factor;
    if (life.runs[i] >= needed) return static_cast<int>(i);
  }
  return -1;
}

Transition AdvanceFiring(const Observation& seen, const Settings& settings, int64_t step,
                         Life* life) {
  if (FiredForEvent(seen, *life)) {
    const int ripe = FirstRipe(seen, settings, *life);
    if (ripe >= 0 && !seen.clauses[static_cast<size_t>(ripe)].event) {
      life->clause = ripe;
      life->clear_run = 0;
      return Transition::kTakesOver;
    }
  }
  life->clear_run = seen.clear && !seen.holds() ? life->clear_run + 1 : 0;
  if (life->clear_run < settings.resolve_steps) return Transition::kNone;
  life->phase = Life::Phase::kInactive;
  life->runs = {};
  life->resolved_step = step;
  return Transition::kResolves;
}

Transition AdvanceQuiet(const Observation& seen, const Settings& settings, int64_t step,
                        Life* life) {
  if (!seen.holds()) {
    life->phase = Life::Phase::kInactive;
    return Transition::kNone;
  }
  if (life->phase == Life::Phase::kInactive) {
    life->phase = Life::Phase::kPending;
    life->pending_step = step;
  }
  const int ripe = FirstRipe(seen, settings, *life);
  if (ripe < 0) return Transition::kNone;
  life->phase = Life::Phase::kFiring;
  life->clause = ripe;
  life->clear_run = 0;
  return Transition::kFires;
}

}  // namespace

bool FiredForEvent(const Observation& seen, const Life& life) {
  return seen.clauses[static_cast<size_t>(life.clause)].event;
}

Transition Advance(const Observation& seen, const Settings& settings, int64_t step, Life* life) {
  // As most rules at most steps: no clause has a run that would end.
  if (life->phase == Life::Phase::kInactive && !seen.holds()) return Transition::kNone;
  for (size_t i = 0; i < seen.clauses.size(); ++i) {
    life->runs[i] = seen.clauses[i].holds ? life->runs[i] + 1 : 0;
  }
  return life->phase == Life::Phase::kFiring ? AdvanceFiring(seen, settings, step, life)
                                             : AdvanceQuiet(seen, settings, step, life);
}

bool WithinCooldown(const Life& life, const Settings& settings) {
  return life.alert > 0 && life.pending_step - life.resolved_step <= settings.cooldown_steps;
}

void Life::SaveState(stats::StateWriter* writer) const {
  writer->Int(static_cast<int64_t>(phase));
  for (const int64_t run : runs) writer->Int(run);
  writer->Int(pending_step);
  writer->Int(clause);
  writer->Int(clear_run);
  writer->Int(alert);
  writer->Int(resolved_step);
}

void Life::LoadState(stats::StateReader* reader) {
  const int64_t saved_phase = reader->Int();
  if (saved_phase < 0 || saved_phase > static_cast<int64_t>(Phase::kFiring)) reader->Fail();
  phase = reader->ok() ? static_cast<Phase>(saved_phase) : Phase::kInactive;
  for (int64_t& run : runs) run = reader->Int();
  if (phase == Phase::kInactive && runs != std::array<int64_t, kClauses>()) reader->Fail();
  pending_step = reader->Int();
  const int64_t saved_clause = reader->Int();
  if (saved_clause < 0 || saved_clause >= std::ssize(runs)) reader->Fail();
  clause = reader->ok() ? static_cast<int>(saved_clause) : 0;
  clear_run = reader->Int();
  alert = reader->Int();
  resolved_step = reader->Int();
}

}  // namespace gradwatch::alerts
