#ifndef GRADWATCH_SERVER_JOBS_STEP_LOG_H_
#define GRADWATCH_SERVER_JOBS_STEP_LOG_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gradwatch/v1/stats.pb.h"
#include "gradwatch/v1/stats_service.pb.h"
#include "server/base/mutex.h"
#include "server/jobs/notify.h"

namespace gradwatch::jobs {

// One recorded step, serialised once and shared by history and every stream. `scalars` and
// `details` are wire bytes of v1::StepStats that together make the whole record (the wire format
// merges concatenated messages); details hold `tensors` and `layers`.
struct StepRecord {
  int64_t step = 0;
  std::string scalars;
  std::string details;
  // For folding, without parsing.
  double loss = 0.0;
  double norm_before = 0.0;
  double norm_after = 0.0;     // NaN when absent.
  double growth_factor = 0.0;  // NaN when absent.
  bool clipped = false;
  bool skipped = false;
  bool nonfinite = false;
  bool evaluated = false;  // `scalars` hold an evaluation.

  // What it counts for in a log: its bytes and its share of the bookkeeping.
  int64_t bytes() const;
};

// Serialises `stats` once.
std::shared_ptr<const StepRecord> MakeRecord(const v1::StepStats& stats);

// The recorded steps of one job, newest `bytes_max` bytes of them: the only buffer between a
// trainer and all its readers. A reader is a cursor into it, so a slow or dead one costs nothing.
//
// Threads: safe for one writer and many readers.
class StepLog {
 public:
  explicit StepLog(int64_t bytes_max);

  // Appends the next step; steps rise by one. Forgets the oldest beyond bytes_max. Never blocks on
  // a reader. Calls the notifiers of waiting readers (see Listen).
  void Append(const v1::StepStats& stats);
  void Append(std::shared_ptr<const StepRecord> record);

  // No more steps will come (a final state). Notifies.
  void Close();
  bool closed() const;

  // Oldest kept and newest recorded step; newest is -1 and oldest 0 while there is none.
  int64_t oldest_step() const;
  int64_t newest_step() const;
  // Bytes held.
  int64_t bytes() const;

  // Records from `step` on, at most `steps_max` of them and about `bytes_max` bytes (at least one
  // if there is one). Empty when `step` is not recorded yet. OUT_OF_RANGE quoting the oldest kept
  // step when it is no longer kept.
  absl::StatusOr<std::vector<std::shared_ptr<const StepRecord>>> Read(int64_t step,
                                                                      int steps_max,
                                                                      int64_t bytes_max) const;

  // Calls `notify` once at the next Append or Close (at once when `step` is recorded or the log is
  // closed already). It runs on the trainer's thread: it only hands work on. The token cancels
  // when destroyed; after that returns, `notify` does not run and is not running.
  class Waiter;
  std::unique_ptr<Waiter> Listen(int64_t step, absl::AnyInvocable<void()> notify);

 private:
  friend class Waiter;
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

class StepLog::Waiter {
 public:
  ~Waiter();
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

 private:
  friend class StepLog;
  Waiter(std::shared_ptr<Shared> shared, std::shared_ptr<Callback> callback);

  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<Callback> callback_;
};

// Adds `record` to `folded`: extremes, means and counts stay exact.
void Fold(const StepRecord& record, v1::FoldedStats* folded);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_STEP_LOG_H_
