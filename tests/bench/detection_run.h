#ifndef GRADWATCH_TESTS_BENCH_DETECTION_RUN_H_
#define GRADWATCH_TESTS_BENCH_DETECTION_RUN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/detection_corpus.h"

namespace gradwatch::bench {

// The group of our own rules.
inline constexpr char kOurRules[] = "gradwatch";

// One time that a rule fired.
struct Firing {
  std::string group;  // kOurRules, or a reference rule's.
  std::string rule;
  int64_t step = 0;
  int64_t times = 1;         // With re-openings of the same alert.
  bool alarm = false;        // WARN or CRIT; reference rules know no other.
  std::string message = {};  // Of our own rules.
};

// What became of one run.
struct RunResult {
  const RunFamily* family = nullptr;
  uint64_t seed = 0;
  int64_t steps = 0;     // Made.
  int64_t lost_at = -1;  // The first step whose loss or gradient was not finite; -1 for none.
  std::vector<Firing> firings;
  // For how many steps what the cause leads to could be seen in the loss or the norm by plain
  // arithmetic (see detection_cause.h); absent for causes that are always there.
  std::optional<int64_t> shown = std::nullopt;

  // The label says that the cause acted for at least ten steps.
  bool labelled() const {
    return family->lasts >= 10 && steps - family->onset >= 10 && family->cause != "healthy";
  }
  // And it did.
  bool cause_lasts() const { return labelled() && shown.value_or(10) >= 10; }
};

// Trains one run at level FULL, with our rules as they are by default, gradients compared, and the
// reference rules beside them.
absl::StatusOr<RunResult> RunOne(const RunFamily& family, uint64_t seed);

// All of them, on so many threads; in the order of families and seeds. `seeds` are those that run.
absl::StatusOr<std::vector<RunResult>> RunAll(const std::vector<const RunFamily*>& families,
                                              const std::vector<uint64_t>& seeds, int threads);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_DETECTION_RUN_H_
