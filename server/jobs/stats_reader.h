#ifndef GRADWATCH_SERVER_JOBS_STATS_READER_H_
#define GRADWATCH_SERVER_JOBS_STATS_READER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/jobs/notify.h"
#include "server/jobs/step_log.h"
#include "server/jobs/timer.h"

namespace gradwatch::jobs {

// A cursor into a job's step log: history first, then live. It holds no step of its own, so a
// reader that nobody reads costs nothing.
class LogReader final : public JobManager::StatsReader {
 public:
  // How far a reader that is not lossless may fall behind once it is live, and how many of the
  // newest steps it goes on with when it fell further.
  static constexpr int64_t kLagMax = 1024;
  static constexpr int64_t kResumeSteps = 256;
  // Bounds of one portion.
  static constexpr int kPortionSteps = 256;
  static constexpr int64_t kPortionBytes = int64_t{512} << 10;
  static constexpr absl::Duration kIntervalMax = absl::Hours(1);

  // What a reader needs of a job. All of it may be called from any thread.
  struct Source {
    StepLog* log;
    NotifyHub* changes;
    std::function<absl::Status()> alive;  // Why there is no more to read, or OK.
    std::function<v1::Job()> job_now;
    std::shared_ptr<void> owner;  // Keeps the above.
    std::shared_ptr<Timer> timer;
    const Clock* clock;
  };

  // INVALID_ARGUMENT, OUT_OF_RANGE as OpenStats.
  static absl::StatusOr<std::unique_ptr<LogReader>> Open(const v1::StreamStatsRequest& request,
                                                         Source source,
                                                         absl::AnyInvocable<void()> notify);
  ~LogReader() override;

  absl::StatusOr<bool> Read(JobManager::StatsPortion* portion) override;

 private:
  LogReader(const v1::StreamStatsRequest& request, absl::Duration min_interval, Source source,
            absl::AnyInvocable<void()> notify);

  bool decimates() const { return min_interval_ > absl::ZeroDuration(); }
  absl::Status ReadSteps(int64_t last, JobManager::StatsPortion* portion);
  absl::Status FoldSteps(int64_t last, JobManager::StatsPortion* portion);
  absl::StatusOr<StepRecords> ReadKept(
      int steps_max, JobManager::StatsPortion* portion);
  void AwaitStep();
  void AwaitInterval();

  // Constant after construction.
  const bool lossless_;
  const bool history_only_;
  const absl::Duration min_interval_;
  const Source source_;
  int64_t history_end_ = -1;  // The newest step when it was opened.

  int64_t next_ = 0;  // The next step to read.
  bool done_ = false;
  absl::Time due_ = absl::InfinitePast();  // When the next message may go.

  // Whatever calls the callback goes before it.
  std::shared_ptr<Callback> notify_;
  std::atomic<bool> listening_ = false;
  std::unique_ptr<StepLog::Waiter> waiter_;
  std::unique_ptr<Timer::Handle> alarm_;
  std::unique_ptr<NotifyHub::Registration> registration_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_STATS_READER_H_
