#ifndef GRADWATCH_SERVER_JOBS_JOB_MANAGER_IMPL_H_
#define GRADWATCH_SERVER_JOBS_JOB_MANAGER_IMPL_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/alerts/rule_engine.h"
#include "server/jobs/alert_feed.h"
#include "server/jobs/core_scheduler.h"
#include "server/jobs/dispatcher.h"
#include "server/jobs/hosted_job.h"
#include "server/jobs/job_manager.h"
#include "server/jobs/timer.h"

namespace gradwatch::jobs {

// How the manager works. One lock guards the life-cycle of all jobs; what changes at each step
// (StepLog, Progress, AlertFeed) has locks of its own, so that training never waits for a list.
// Lock order: a job's rules_mu, then mu_, then any leaf lock. Callbacks of readers run with no lock
// of ours held, but for those of alerts, which may hold the first two.
//
// job_manager.cc: creation, queue, shutdown · job_control.cc: pause, resume, cancel, update,
// delete · job_queries.cc: reading · job_advice.cc: advice · job_batch.cc: batches made again ·
// job_alerts.cc: acknowledgements, silences, rules, replays, stalls · job_worker.cc: training.
class JobManager::Impl : public std::enable_shared_from_this<JobManager::Impl> {
 public:
  Impl(JobLimits limits, DatasetStore* datasets, const Clock* clock, TrainerFactory trainers);
  void Start();
  void Shutdown();

  absl::StatusOr<v1::Job> Create(const v1::CreateJobRequest& request);
  absl::StatusOr<v1::Job> Get(absl::string_view name);
  absl::StatusOr<v1::ListJobsResponse> List(const v1::ListJobsRequest& request);
  absl::StatusOr<v1::UpdateJobResponse> Update(const v1::UpdateJobRequest& request);
  absl::Status Delete(const v1::DeleteJobRequest& request);
  absl::StatusOr<v1::JobActionResponse> Pause(absl::string_view name);
  absl::StatusOr<v1::JobActionResponse> Resume(absl::string_view name);
  absl::StatusOr<v1::JobActionResponse> Cancel(absl::string_view name);
  absl::StatusOr<v1::JobActionResponse> Advance(const v1::AdvanceJobRequest& request);
  absl::StatusOr<v1::ListInterventionsResponse> ListInterventions(
      const v1::ListInterventionsRequest& request);
  absl::StatusOr<v1::QueryStatsResponse> QueryStats(const v1::QueryStatsRequest& request);
  absl::StatusOr<v1::ClipAdvice> GetClipAdvice(const v1::GetClipAdviceRequest& request);
  absl::StatusOr<v1::ListAlertsResponse> ListAlerts(const v1::ListAlertsRequest& request);
  absl::StatusOr<v1::ListRulesResponse> ListRules(const v1::ListRulesRequest& request);
  absl::StatusOr<v1::TrainingBatch> GetBatch(const v1::GetBatchRequest& request);
  absl::StatusOr<v1::Alert> AcknowledgeAlert(const v1::AcknowledgeAlertRequest& request);
  absl::StatusOr<v1::Silence> SilenceRule(const v1::SilenceRuleRequest& request);
  absl::StatusOr<v1::ListSilencesResponse> ListSilences(const v1::ListSilencesRequest& request);
  absl::Status DeleteSilence(const v1::DeleteSilenceRequest& request);
  absl::StatusOr<v1::EvaluateRulesResponse> EvaluateRules(const v1::EvaluateRulesRequest& request);
  absl::StatusOr<Weights> GetWeights(absl::string_view name);
  absl::StatusOr<v1::CheckGradientsResponse> CheckGradients(
      const v1::CheckGradientsRequest& request);
  absl::StatusOr<std::unique_ptr<StatsReader>> OpenStats(const v1::StreamStatsRequest& request,
                                                         absl::AnyInvocable<void()> notify);
  absl::StatusOr<std::unique_ptr<JobReader>> OpenJob(absl::string_view name,
                                                     absl::AnyInvocable<void()> notify);
  absl::StatusOr<std::unique_ptr<AlertReader>> OpenAlerts(absl::string_view parent,
                                                          absl::AnyInvocable<void()> notify);
  std::vector<JobSnapshot> Snapshots();
  std::vector<int64_t> CountByState();
  Totals GetTotals();

 private:
  using JobPtr = std::shared_ptr<HostedJob>;
  using Life = HostedJob::Life;
  class Worker;
  class StateReader;

  // A job as it stands at one moment; what it points to never changes.
  struct View {
    JobPtr hosted;
    std::shared_ptr<const v1::Job> job;
    int queue_position = 0;
  };
  // What the door found out about a job.
  struct Admission {
    std::shared_ptr<const data::DatasetContent> content;
    int64_t bytes = 0;
  };

  Life& LifeOf(HostedJob& job) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return job.life; }

  // --- Creation, queue, end.
  absl::StatusOr<Admission> CheckAtDoor(const v1::Job& job,
                                        std::vector<FieldViolation> violations) const;
  // The job that the same request made before; null when there is none; ALREADY_EXISTS when that
  // request was another one.
  absl::StatusOr<JobPtr> Replay(const v1::CreateJobRequest& request, const v1::Job& wanted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // RESOURCE_EXHAUSTED unless there is room to queue and to run.
  absl::Status CheckFree(int64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // RESOURCE_EXHAUSTED unless there is room for the bytes that `what` needs.
  absl::Status CheckMemory(absl::string_view what, int64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Forgets the oldest final jobs until `more` others fit; they go to `forgotten`.
  absl::Status MakeRoom(int more, std::vector<JobPtr>* forgotten)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string FreeId() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  JobPtr Insert(const v1::CreateJobRequest& body, v1::Job job, const Admission& admission)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enqueue(const JobPtr& job, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Dequeue(const JobPtr& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReleaseAdmission(HostedJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReleaseData(HostedJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Counts what a job that does not train holds.
  void CountKept(HostedJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes it from every list. Whoever still looks at it finds it deleted.
  void Forget(const JobPtr& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Changes what others see of a job: new version, etag and update time.
  void Edit(HostedJob& job, absl::FunctionRef<void(v1::Job*)> change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetState(HostedJob& job, v1::Job::State state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkFinal(const JobPtr& job, v1::Job::State state, const v1::Failure* failure)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What follows once the final state is visible: streams end, old jobs make room.
  void AnnounceFinal(const JobPtr& job) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the streams of jobs that were forgotten.
  void AnnounceForgotten(const std::vector<JobPtr>& jobs) ABSL_LOCKS_EXCLUDED(mu_);

  // --- Alerts of jobs without a worker.
  using RulesAction = absl::FunctionRef<void(alerts::RuleEngine*, std::vector<v1::Alert>*)>;
  // Wakes the rules of a stopped job, which `job` describes, from `checkpoint`; publishes what
  // `action` changes and returns their state.
  std::string WithStoredRules(const HostedJob& hosted, const v1::Job& job,
                              const v1::Checkpoint& checkpoint, RulesAction action);
  // Puts the state of the rules into the checkpoint.
  void StoreRules(std::string state, Life* life) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndAlerts(const JobPtr& job) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the alerts of the jobs whose grace period is over.
  void ExpireGrace() ABSL_LOCKS_EXCLUDED(mu_);

  // --- Alerts of any job.
  using RulesChange = absl::FunctionRef<absl::Status(alerts::RuleEngine*, std::vector<v1::Alert>*)>;
  // Runs `change` on the rules of a job, wherever they are, and publishes what it changes.
  // FAILED_PRECONDITION when the job has none because it has not run yet.
  absl::Status WithRules(const JobPtr& job, RulesChange change) ABSL_LOCKS_EXCLUDED(mu_);
  void PublishRules(const HostedJob& job, const std::vector<v1::Alert>& changed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(job.rules_mu);
  // Looks for jobs that finish no step, every second.
  void ScheduleProgressCheck();
  void CheckProgress() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<JobPtr> FindJob(absl::string_view name, absl::string_view field) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // --- Control.
  absl::StatusOr<JobPtr> Find(absl::string_view name, absl::string_view field = "name") const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckAlive(const Life& life) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<v1::JobActionResponse> AwaitPause(const JobPtr& job, int64_t pauses_before);
  absl::StatusOr<v1::JobActionResponse> AwaitCancel(const JobPtr& job);
  absl::StatusOr<v1::JobActionResponse> AwaitAdvance(const JobPtr& job, int64_t pause_before,
                                                     int64_t pauses_before);
  absl::StatusOr<v1::JobActionResponse> Requeue(const JobPtr& job);
  v1::JobActionResponse Answer(const JobPtr& job, int64_t effective_step);
  void CancelStopped(const JobPtr& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<v1::Job> Edited(HostedJob& job, const v1::UpdateJobRequest& request,
                                 const std::vector<std::string>& paths) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Applies the edit of a job without a worker and records it.
  void EditStopped(HostedJob& job, BoundaryRequest* edit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Notes what `edit`, in force from edit->step on, changed since `before`.
  void RecordEdit(HostedJob& job, const v1::Job& before, BoundaryRequest* edit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // --- Reading.
  View Look(const JobPtr& job) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::Job Assemble(const View& view) const;
  v1::Job Assemble(const View& view, const Progress& progress) const;
  v1::Job AssembleNow(const JobPtr& job) const ABSL_LOCKS_EXCLUDED(mu_);
  // What it says of steps is of one moment.
  JobSnapshot Snapshot(const View& view) const;
  // What the job reads or has read; null for generated tasks. FAILED_PRECONDITION when it is gone.
  absl::StatusOr<std::shared_ptr<const data::DatasetContent>> ContentOf(const JobPtr& job) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // --- Training.
  void Work();
  JobPtr NextJob();
  void CountStep(double seconds);

  // Constant after construction.
  const JobLimits limits_;
  DatasetStore* const datasets_;
  const Clock* const clock_;
  const TrainerFactory trainers_;

  // Lock for themselves.
  Dispatcher dispatcher_;
  CoreScheduler cores_;
  AlertFeed feed_;
  const std::shared_ptr<Timer> timer_;

  mutable Mutex mu_;
  absl::flat_hash_map<std::string, JobPtr> jobs_ ABSL_GUARDED_BY(mu_);  // By id.
  std::map<int64_t, JobPtr, std::greater<>> newest_first_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, JobPtr> request_ids_ ABSL_GUARDED_BY(mu_);
  std::deque<JobPtr> queue_ ABSL_GUARDED_BY(mu_);
  std::deque<JobPtr> final_ ABSL_GUARDED_BY(mu_);  // In order of their end.
  std::deque<JobPtr> grace_ ABSL_GUARDED_BY(mu_);  // Final, with alerts that may still fire.
  int64_t next_number_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t next_queue_number_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t admitted_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t kept_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int checks_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;

  // Totals, counted by all workers at every step.
  std::vector<std::atomic<uint64_t>> step_duration_counts_;
  std::atomic<double> step_duration_sum_seconds_{0.0};

  std::vector<std::thread> workers_;  // Filled by Start, joined by Shutdown.
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_JOB_MANAGER_IMPL_H_
