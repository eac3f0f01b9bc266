#ifndef GRADWATCH_SERVER_JOBS_JOB_MANAGER_H_
#define GRADWATCH_SERVER_JOBS_JOB_MANAGER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gradwatch/v1/alert_service.pb.h"
#include "gradwatch/v1/checkpoint.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/job_service.pb.h"
#include "gradwatch/v1/model_service.pb.h"
#include "gradwatch/v1/stats_service.pb.h"
#include "server/base/clock.h"
#include "server/jobs/dataset_store.h"
#include "server/jobs/step_log.h"
#include "server/jobs/trainer_factory.h"
#include "server/jobs/value_record.h"

namespace gradwatch::jobs {

// Bounds of one server. What a request passes is refused with the limit quoted.
struct JobLimits {
  int cores = 0;          // That training shares (core_scheduler.h); 0: all of the machine.
  int running_max = 0;    // Jobs that train at once; 0: one for each core.
  int queued_max = 1000;  // Beyond: RESOURCE_EXHAUSTED.
  int kept_max = 10'000;  // Jobs in all; the oldest final one makes room, else RESOURCE_EXHAUSTED.
  // History and checkpoints of jobs that do not train. Beyond: as kept_max.
  int64_t kept_bytes_max = int64_t{4} << 30;
  int64_t job_bytes_max = int64_t{4} << 30;  // Of one job. Beyond: INVALID_ARGUMENT.
  int64_t total_bytes_max = int64_t{8}
                            << 30;  // Of running and queued ones. Beyond: RESOURCE_EXHAUSTED.
  int64_t history_bytes_max = int64_t{64} << 20;  // Kept statistics of one job.
  // Multiply-adds of one CheckGradients, and how many of them at once. Beyond: INVALID_ARGUMENT,
  // RESOURCE_EXHAUSTED.
  int64_t check_work_max = 100'000'000'000;
  int checks_max = 2;
  absl::Duration step_boundary_wait = absl::Seconds(5);  // How long control calls wait.
  absl::Duration grace_period = absl::Minutes(5);  // How long a final job stays in the metrics.
};

// What the metrics show of one job; cheap to take, never blocks a trainer.
struct JobSnapshot {
  v1::Job job;  // With latest_stats.
  // Of the fields of StepStats with these names.
  ValueSummary loss;
  ValueSummary norm_before;
  ValueSummary norm_after;
  ValueSummary growth_factor;
  ValueSummary update_ratio;
  ValueSummary gradient_cosine;
  std::optional<double> noise_scale;  // The newest that was measured.
  int64_t clipped_steps = 0;
  int64_t nonfinite_entries = 0;  // NaN or infinite gradient entries, all steps.
  absl::Time last_step_time = absl::InfinitePast();
  // Firing, and resolved within the grace period; not what is silenced.
  std::vector<v1::Alert> alerts;
  // Fired so far, by rule and severity.
  struct AlertCount {
    std::string rule_name;
    v1::Severity severity;
    int64_t count;
  };
  std::vector<AlertCount> alerts_total;
  std::map<v1::Intervention::Kind, int64_t> interventions_total;
};

// Upper bounds, in seconds, of the step-duration histogram.
const std::vector<double>& StepDurationBounds();

// Sums over all jobs that ever ran.
struct Totals {
  // Steps in each bucket, not cumulative: one for each bound, and one beyond.
  std::vector<uint64_t> step_duration_counts;
  double step_duration_sum_seconds = 0.0;
};

// The hosted jobs: their life-cycle, queue, workers, settings, history and alerts.
//
// First in, first out; at most running_max train at once, each on one worker thread, and share the
// cores; a paused job holds no worker and no trainer. Control of a running job goes through its
// mailbox, read between two steps. Training waits for nobody.
//
// Errors carry google.rpc details as payloads (proto/support/errors.h).
// Threads: every method may be called from any thread; those marked "waits" may block up to
// step_boundary_wait, so they are not for gRPC reactions.
class JobManager {
 public:
  // `datasets` and `clock` outlive it. Readers may outlive it: they end with UNAVAILABLE.
  JobManager(JobLimits limits, DatasetStore* datasets, const Clock* clock,
             TrainerFactory trainers = EngineTrainers());
  // Stops every worker at its next step boundary.
  ~JobManager();

  absl::StatusOr<v1::Job> Create(const v1::CreateJobRequest& request);
  absl::StatusOr<v1::Job> Get(absl::string_view name) const;
  absl::StatusOr<v1::ListJobsResponse> List(const v1::ListJobsRequest& request) const;
  absl::StatusOr<v1::UpdateJobResponse> Update(const v1::UpdateJobRequest& request);    // Waits.
  absl::Status Delete(const v1::DeleteJobRequest& request);                             // Waits.
  absl::StatusOr<v1::JobActionResponse> Pause(absl::string_view name);                  // Waits.
  absl::StatusOr<v1::JobActionResponse> Resume(absl::string_view name);                 // Waits.
  absl::StatusOr<v1::JobActionResponse> Cancel(absl::string_view name);                 // Waits.
  absl::StatusOr<v1::JobActionResponse> Advance(const v1::AdvanceJobRequest& request);  // Waits.

  absl::StatusOr<v1::ListInterventionsResponse> ListInterventions(
      const v1::ListInterventionsRequest& request) const;

  absl::StatusOr<v1::QueryStatsResponse> QueryStats(const v1::QueryStatsRequest& request) const;
  // Reads the whole history: milliseconds for 100,000 steps.
  absl::StatusOr<v1::ClipAdvice> GetClipAdvice(const v1::GetClipAdviceRequest& request) const;
  absl::StatusOr<v1::ListAlertsResponse> ListAlerts(const v1::ListAlertsRequest& request) const;
  // As AlertService.ListRules.
  absl::StatusOr<v1::ListRulesResponse> ListRules(const v1::ListRulesRequest& request) const;
  // As JobService.GetBatch; runs on the calling thread. RESOURCE_EXHAUSTED when its memory is more
  // than what jobs leave free.
  absl::StatusOr<v1::TrainingBatch> GetBatch(const v1::GetBatchRequest& request);

  // As the methods of AlertService of the same names.
  absl::StatusOr<v1::Alert> AcknowledgeAlert(const v1::AcknowledgeAlertRequest& request);
  absl::StatusOr<v1::Silence> SilenceRule(const v1::SilenceRuleRequest& request);
  absl::StatusOr<v1::ListSilencesResponse> ListSilences(
      const v1::ListSilencesRequest& request) const;
  absl::Status DeleteSilence(const v1::DeleteSilenceRequest& request);
  // Runs on the calling thread and takes as long as the history is.
  absl::StatusOr<v1::EvaluateRulesResponse> EvaluateRules(
      const v1::EvaluateRulesRequest& request) const;

  // The weights now: of a running job those of the next step boundary. Waits.
  // FAILED_PRECONDITION when the job has not run yet.
  struct Weights {
    v1::Job job;
    std::shared_ptr<const v1::Checkpoint> checkpoint;
  };
  absl::StatusOr<Weights> GetWeights(absl::string_view name);

  // Both run on the calling thread and take as long as they take.
  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request);
  absl::StatusOr<v1::CheckGradientsResponse> CheckGradients(
      const v1::CheckGradientsRequest& request);

  // --- Streams. A reader pulls; `notify` says that a Read that gave nothing is worth repeating.
  // `notify` may run on a trainer's thread and must only hand work on; it does not run any more
  // once the reader's destructor has returned. A reader is used by one thread at a time.

  // One portion of a job's statistics.
  struct StatsPortion {
    StepRecords steps;
    int64_t dropped_before = 0;
    v1::FoldedStats folded;              // With count 0 when nothing was folded.
    std::unique_ptr<v1::Job> final_job;  // Set in the last portion.
  };
  class StatsReader {
   public:
    virtual ~StatsReader() = default;
    // OK and true: `portion` is filled. OK and false: nothing yet; `notify` will be called (with
    // min_interval, at the latest when it is over). OUT_OF_RANGE: a lossless reader was overtaken.
    // NOT_FOUND: the job was deleted.
    virtual absl::StatusOr<bool> Read(StatsPortion* portion) = 0;
  };
  // INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE as StatsService.StreamStats says. A reader that is
  // not lossless, has read what was recorded when it was opened, and falls more than 1024 steps
  // behind continues at the newest 256. With min_interval nothing is dropped but what history
  // forgets, and the last portion comes at once when the job ends.
  absl::StatusOr<std::unique_ptr<StatsReader>> OpenStats(const v1::StreamStatsRequest& request,
                                                         absl::AnyInvocable<void()> notify);

  class JobReader {
   public:
    virtual ~JobReader() = default;
    // The job when it changed since the last Read (the first gives it as it is); false when not.
    virtual absl::StatusOr<bool> Read(v1::Job* job) = 0;
  };
  absl::StatusOr<std::unique_ptr<JobReader>> OpenJob(absl::string_view name,
                                                     absl::AnyInvocable<void()> notify);

  class AlertReader {
   public:
    virtual ~AlertReader() = default;
    // kAlert: `alert` is filled, with the changes lost before it (a reader keeps at most 1000).
    // kEnd: the one job that is watched is final and everything was read.
    enum class Outcome { kNothing, kAlert, kEnd };
    virtual absl::StatusOr<Outcome> Read(v1::Alert* alert, int64_t* dropped_before) = 0;
  };
  // `parent` as in WatchAlertsRequest.
  absl::StatusOr<std::unique_ptr<AlertReader>> OpenAlerts(absl::string_view parent,
                                                          absl::AnyInvocable<void()> notify);

  // --- For metrics, health and shutdown.
  // Jobs that are not final or ended within the grace period, running ones first, then newest.
  std::vector<JobSnapshot> Snapshots() const;
  std::vector<int64_t> CountByState() const;  // Indexed by v1::Job::State.
  Totals GetTotals() const;

  // Refuses new jobs (UNAVAILABLE), stops running ones at their next step boundary and waits for
  // that. Readers see their streams end with UNAVAILABLE. Idempotent.
  void Shutdown();

 private:
  class Impl;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_JOB_MANAGER_H_
