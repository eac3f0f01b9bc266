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
RunVerdict JudgeRun(const RunFacts& facts);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_VERDICT_H_
