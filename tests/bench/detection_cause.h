#ifndef GRADWATCH_TESTS_BENCH_DETECTION_CAUSE_H_
#define GRADWATCH_TESTS_BENCH_DETECTION_CAUSE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "gradwatch/v1/stats.pb.h"
#include "tests/bench/detection_corpus.h"

namespace gradwatch::bench {

// Whether a run shows what its label says. Most causes are settings, and always there. But weights
// that should make a gradient explode may only saturate, and a task that should keep a network at
// chance may be learnt from the start. Such a step is
//   explosion  one with a loss that is not finite or above 10 times the first, or a norm that is
//   not
//              finite or above 10 times the median of the first ten (or above 1000)
//   plateau    one where the mean of the last 100 losses is above 0.98 times that of 100 before
class CauseWatch {
 public:
  explicit CauseWatch(const RunFamily& family) : family_(family) {}

  void Observe(const v1::StepStats& stats);
  // How many steps so far; absent for causes that are settings.
  std::optional<int64_t> shown() const;

 private:
  bool Explodes(const v1::StepStats& stats);
  bool StandsStill(const v1::StepStats& stats);

  const RunFamily& family_;
  std::vector<double> losses_;
  std::vector<double> first_norms_;
  int64_t shown_ = 0;
};

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_DETECTION_CAUSE_H_
