#ifndef GRADWATCH_CLIENT_CLI_VERDICT_H_
#define GRADWATCH_CLIENT_CLI_VERDICT_H_

#include <string>
#include <vector>

#include "client/cli/run_facts.h"

namespace gradwatch::cli {

// What became of a run, in plain words. Every sentence follows from the numbers alone.
struct RunVerdict {
  enum class Tone { kNeutral, kGood, kBad };
  Tone tone = Tone::kNeutral;
  std::string headline;                // What the gradient does through time.
  std::vector<std::string> sentences;  // Loss, norms, clipping, alerts.
};

// Judged at the end of the run, the gradient "grows" when that is by more than 1.02 for each time
// step, "explodes" when it is also tenfold over the sequence, "vanishes" when less than a hundredth
// of it gets across the sequence, and otherwise "keeps its size".
//
// Where it was measured, sentences say at the end of the run that successive gradients are opposed
// (kOpposedCosine), a layer saturated (kSaturatedSlope) or blind to its input (kSameState, unless
// the task is solved), that the gradient from the last time step alone vanishes, that no unit keeps
// its state for a tenth of the sequence, that the noise scale passes ten batches, and that the
// advised clip threshold is twice or half of the present one, or further off (unless the task is
// solved).
RunVerdict JudgeRun(const RunFacts& facts);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_VERDICT_H_
