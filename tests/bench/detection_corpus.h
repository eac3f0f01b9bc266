#ifndef GRADWATCH_TESTS_BENCH_DETECTION_CORPUS_H_
#define GRADWATCH_TESTS_BENCH_DETECTION_CORPUS_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::bench {

// What may be said of runs with one cause of trouble. Names are those of rules: "NON_FINITE", or a
// reference rule's.
struct Cause {
  std::set<std::string> expected;  // Any of these finds the cause.
  std::set<std::string> allowed;   // These are true of such runs, too, or follow from the cause.
};

// Runs that differ in their seed only. They are labelled by the cause that is built into them.
struct RunFamily {
  std::string name;
  std::string cause;  // A key of Corpus::causes.
  int64_t steps = 0;  // The run ends here, or after five steps in a row that are not finite.
  int64_t onset = 0;  // The step from which the cause acts.
  int64_t lasts = 0;  // For how many steps it acts; to the end of the run where there is no fault.
  v1::Job job;        // As a client would submit it.
};

struct Corpus {
  std::map<std::string, Cause> causes;
  std::vector<RunFamily> families;
  int64_t seeds = 0;  // Each family runs with seeds 0 … seeds - 1.
};

// Reads detection_runs.json. INVALID_ARGUMENT names the family and what is wrong with it; NOT_FOUND
// where there is no such file.
absl::StatusOr<Corpus> ReadCorpus(const std::string& path);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_DETECTION_CORPUS_H_
