#ifndef GRADWATCH_SERVER_JOBS_STEP_LOG_H_
#define GRADWATCH_SERVER_JOBS_STEP_LOG_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/jobs/notify.h"
#include "server/jobs/step_record.h"

namespace gradwatch::jobs {

// The recorded steps of one job, newest `bytes_max` bytes of them: the only buffer between a
// trainer and all its readers. A reader is a cursor into it, so a slow or dead one costs nothing.
//
// What is older than the live window is kept in compressed blocks once Compact was called; bytes
// are counted as they are kept, so a log that is compacted reaches back further.
//
// Threads: safe for one writer, one that compacts, and many readers.
class StepLog {
 public:
  // The live window: so many steps, or the newest eighth of bytes_max if that is less.
  static constexpr int kLiveSteps = 1280;
  // A block holds so many steps, or fewer from so many bytes on.
  static constexpr int kBlockSteps = 256;
  static constexpr int64_t kBlockBytes = int64_t{256} << 10;
  static constexpr int kBlockStepsMin = 16;

  explicit StepLog(int64_t bytes_max);

  // Appends the next step; steps rise by one. Forgets the oldest (of compressed ones a block)
  // beyond bytes_max. Waits for readers no longer than it takes to copy a few pointers. True: Serve
  // is due, soon and on any other thread.
  [[nodiscard]] bool Append(std::shared_ptr<const StepRecord> record);

  // Wakes readers and compresses what is due.
  void Serve();

  // No more steps will come (a final state). Wakes readers. Serve is due, since nothing is live
  // now.
  void Close();
  bool closed() const;

  // Oldest kept and newest recorded step; newest is -1 and oldest 0 while there is none.
  int64_t oldest_step() const;
  int64_t newest_step() const;
  // Bytes held.
  int64_t bytes() const;

  // Records from `step` on, at most `steps_max` of them and about `bytes_max` bytes (at least one
  // if there is one); of compressed ones not beyond the block. Empty when `step` is not recorded
  // yet. OUT_OF_RANGE quoting the oldest kept step when it is no longer kept.
  absl::StatusOr<StepRecords> Read(int64_t step, int steps_max, int64_t bytes_max) const;

  // Calls `notify` once when a later step was appended and Serve called, or at Close (at once when
  // `step` is recorded or the log is closed already). It only hands work on. The token cancels when
  // destroyed; after that returns, `notify` does not run and is not running.
  class Waiter;
  std::unique_ptr<Waiter> Listen(int64_t step, absl::AnyInvocable<void()> notify);

 private:
  friend class Waiter;
  struct Shared;
  void Wake();
  void Compact();
  bool CompactOldest();

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

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_STEP_LOG_H_
