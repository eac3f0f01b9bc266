#ifndef GRADWATCH_SERVER_JOBS_HOSTED_JOB_H_
#define GRADWATCH_SERVER_JOBS_HOSTED_JOB_H_

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gradwatch/v1/checkpoint.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/job_service.pb.h"
#include "server/alerts/rule_engine.h"
#include "server/base/mutex.h"
#include "server/clip/shadow_clips.h"
#include "server/data/dataset_content.h"
#include "server/jobs/dispatcher.h"
#include "server/jobs/intervention_log.h"
#include "server/jobs/notify.h"
#include "server/jobs/step_log.h"
#include "server/jobs/value_record.h"

namespace gradwatch::jobs {

// What changes at every step. Small: it is copied whole.
struct Progress {
  int64_t step = 0;
  int64_t updates_applied = 0;
  int64_t clipped_steps = 0;
  int64_t nonfinite_steps = 0;
  int64_t nonfinite_entries = 0;
  // Of each shadow clip: steps that it would have clipped, and the sum of its coefficients.
  std::array<int64_t, clip::kShadowsMax> shadow_clipped_steps{};
  std::array<double, clip::kShadowsMax> shadow_coefficients{};
  std::shared_ptr<const StepRecord> latest;
  std::shared_ptr<const v1::EvaluationResult> latest_evaluation;
  std::shared_ptr<const v1::EvaluationResult> best_evaluation;
  absl::Time last_step_time = absl::InfinitePast();
  std::optional<double> noise_scale;  // The newest.
};

// How single numbers went, for metrics. Some kilobytes: read in place.
struct ValueRecords {
  ValueRecord loss;
  ValueRecord norm_before;
  ValueRecord norm_after;
  ValueRecord growth_factor;
  ValueRecord update_ratio;
  ValueRecord gradient_cosine;
};

// Something that is wanted of a running job at its next step boundary, and the answer.
struct BoundaryRequest {
  // An edit when `paths` are not empty, the weights otherwise.
  std::vector<std::string> paths;
  v1::Job settings;
  std::string author;

  bool done = false;
  absl::Status status;
  int64_t step = 0;                     // The first step with the new settings.
  InterventionLog::Entry intervention;  // Of an edit that changed something.
  std::shared_ptr<const v1::Checkpoint> checkpoint;
};

// One job. Shared by the manager, its worker and its readers, so that it may be deleted while they
// look at it.
struct HostedJob final : Dispatcher::Item {
  HostedJob(std::string job_id, std::string job_uid, int64_t job_number,
            v1::CreateJobRequest request, int64_t history_bytes_max)
      : id(std::move(job_id)),
        uid(std::move(job_uid)),
        number(job_number),
        body(std::move(request)),
        log(history_bytes_max) {}

  // Constant after construction.
  const std::string id;
  const std::string uid;
  const int64_t number;  // Order of creation, from 1.
  const v1::CreateJobRequest body;

  // What its steps bring about.
  void Serve() override { log.Serve(); }

  // Lock for themselves.
  StepLog log;
  InterventionLog interventions;
  NotifyHub changes;
  // Something waits for the next step boundary. Set with the manager's lock held.
  std::atomic<bool> mail{false};
  // The job pauses before this step (JobManager::Advance). Changed with the manager's lock held.
  static constexpr int64_t kNoPause = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> pause_before{kNoPause};

  // Held for the rules of one step and what they publish; taken before the manager's lock.
  mutable Mutex rules_mu;
  // While a worker has the job. Otherwise their state is in the checkpoint.
  std::unique_ptr<alerts::RuleEngine> rules ABSL_GUARDED_BY(rules_mu);

  // Leaf lock, held for the copy of a small struct or a look at the values only.
  mutable Mutex progress_mu;
  Progress progress ABSL_GUARDED_BY(progress_mu);
  ValueRecords values ABSL_GUARDED_BY(progress_mu);

  Progress GetProgress() const {
    MutexLock lock(&progress_mu);
    return progress;
  }

  // Guarded by the manager's lock: reached only through JobManager::Impl::LifeOf.
  struct Life {
    // Settings, state, failure, times: all but what Progress and the alerts say. Replaced, never
    // changed, so that it can be read without the lock.
    std::shared_ptr<const v1::Job> job;
    // `job` with the edits that were accepted and wait for the step boundary.
    v1::Job accepted;
    int64_t version = 1;  // Counts changes that a watcher wants to see.

    bool deleted = false;
    bool with_worker = false;
    bool pause_asked = false;
    bool cancel_asked = false;
    bool pause_taken = false;  // The worker is about to leave: too late to take it back.
    int64_t pauses = 0;        // Pauses that took effect.
    int64_t stop_step = 0;     // The first step that was not run, of the last pause or cancel.
    std::vector<std::shared_ptr<BoundaryRequest>> requests;

    std::shared_ptr<const data::DatasetContent> content;
    std::string content_sha256;  // Of what it read, once it is final.
    std::shared_ptr<const v1::Checkpoint> checkpoint;
    std::shared_ptr<const v1::Job> checkpoint_job;  // With the settings of the checkpoint.
    int64_t queue_number = 0;                       // Rises along the queue.
    int64_t admitted_bytes = 0;                     // Counted against total_bytes_max.
    int64_t kept_bytes = 0;                         // Counted against kept_bytes_max.
    absl::Time grace_end = absl::InfiniteFuture();
  };
  Life life;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_HOSTED_JOB_H_
