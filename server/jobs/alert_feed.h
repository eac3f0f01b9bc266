#ifndef GRADWATCH_SERVER_JOBS_ALERT_FEED_H_
#define GRADWATCH_SERVER_JOBS_ALERT_FEED_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/alert.pb.h"
#include "server/alerts/rule_engine.h"
#include "server/base/mutex.h"
#include "server/jobs/notify.h"

namespace gradwatch::jobs {

// The alerts of one job as they were published last. Immutable.
struct JobAlerts {
  using AlertPtr = std::shared_ptr<const v1::Alert>;

  std::vector<AlertPtr> alerts;   // Firing and resolved, oldest first.
  std::vector<AlertPtr> pending;  // Without names.
  std::vector<v1::Silence> silences;
  int64_t forgotten = 0;
  int firing = 0;
  // Fired so far by name of the rule, also those that were forgotten, but not what is silenced.
  std::map<std::pair<std::string, v1::Severity>, int64_t> fired;
};

// The state of `rules` as a new publication: what did not change is shared with `before`.
// `changed` is what the rules reported since.
std::shared_ptr<const JobAlerts> Publication(const alerts::RuleEngine& rules,
                                             const std::vector<v1::Alert>& changed,
                                             const JobAlerts& before);

// Where workers publish alerts and readers find them. Jobs are known by number. Thread-safe;
// readers may outlive it.
class AlertFeed {
 public:
  // Changes that a reader keeps; beyond, the oldest are dropped and counted.
  static constexpr size_t kReaderChangesMax = 1000;
  // For Open: all jobs.
  static constexpr int64_t kAllJobs = 0;

  AlertFeed() : shared_(std::make_shared<Shared>()) {}

  void AddJob(int64_t job);
  // Replaces what is published and passes `changed` on, but for what is silenced. No effect for an
  // unknown job.
  void Publish(int64_t job, std::shared_ptr<const JobAlerts> alerts,
               const std::vector<v1::Alert>& changed);
  // The job is final: its own readers end after what they have.
  void EndJob(int64_t job);
  // The job is gone: its own readers end with NOT_FOUND.
  void RemoveJob(int64_t job);
  // Every reader ends with UNAVAILABLE.
  void Stop();

  // Never null.
  std::shared_ptr<const JobAlerts> Of(int64_t job) const;

  class Reader;
  // From now on, what fires now first. `job` is known, or kAllJobs.
  std::unique_ptr<Reader> Open(int64_t job, absl::AnyInvocable<void()> notify);

 private:
  struct Subscription {
    explicit Subscription(int64_t number, absl::AnyInvocable<void()> notify)
        : job(number), callback(std::move(notify)) {}

    const int64_t job;
    Callback callback;
    // Guarded by Shared::mu.
    std::deque<JobAlerts::AlertPtr> changes;
    int64_t dropped = 0;
  };
  struct Job {
    std::shared_ptr<const JobAlerts> alerts = std::make_shared<JobAlerts>();
    bool ended = false;
  };
  struct Shared {
    // Leaf lock; callbacks run after it is released.
    mutable Mutex mu;
    std::map<int64_t, Job> jobs ABSL_GUARDED_BY(mu);
    std::vector<std::shared_ptr<Subscription>> subscriptions ABSL_GUARDED_BY(mu);
    bool stopped ABSL_GUARDED_BY(mu) = false;
  };
  void Notify(int64_t job);

  const std::shared_ptr<Shared> shared_;
};

// One thread at a time.
class AlertFeed::Reader {
 public:
  enum class Outcome { kNothing, kAlert, kEnd };

  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // NOT_FOUND: the job is gone. UNAVAILABLE: the feed stopped.
  absl::StatusOr<Outcome> Read(v1::Alert* alert, int64_t* dropped_before);

 private:
  friend class AlertFeed;
  Reader(std::shared_ptr<Shared> shared, std::shared_ptr<Subscription> subscription)
      : shared_(std::move(shared)), subscription_(std::move(subscription)) {}

  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<Subscription> subscription_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_ALERT_FEED_H_
