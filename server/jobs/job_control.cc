#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/status.h"
#include "server/jobs/errors.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/names.h"
#include "server/jobs/settings.h"
#include "server/jobs/validate.h"

// Control of jobs by their users: pause, resume, cancel, update, delete, weights. A job that
// trains is asked through its mailbox and answers at its next step boundary.

namespace gradwatch::jobs {
namespace {

constexpr absl::Duration kRetryDelay = absl::Seconds(5);

absl::Status NotStarted(absl::string_view name) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         absl::StrCat(name, " has not run yet, so it has no weights"),
                         "JOB_NOT_STARTED", {{"job", std::string(name)}});
}

absl::Status CheckAuthor(const std::string& author) {
  std::vector<FieldViolation> violations;
  CheckDisplayName(author, "author", &violations);
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

}  // namespace

absl::StatusOr<JobManager::Impl::JobPtr> JobManager::Impl::Find(absl::string_view name,
                                                                absl::string_view field) const {
  ASSIGN_OR_RETURN(const std::string id, IdOf(name, "jobs", field));
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return NoSuchJob(name);
  return found->second;
}

absl::Status JobManager::Impl::CheckAlive(const Life& life) const {
  if (stopping_) return ShuttingDown();
  if (life.deleted) return JobDeleted();
  return absl::OkStatus();
}

v1::JobActionResponse JobManager::Impl::Answer(const JobPtr& job, int64_t effective_step) {
  v1::JobActionResponse response;
  *response.mutable_job() = AssembleNow(job);
  response.set_effective_step(effective_step);
  return response;
}

// --- Pause.

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::Pause(absl::string_view name) {
  JobPtr job;
  int64_t pauses = 0;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(name));
    Life& life = LifeOf(*job);
    pauses = life.pauses;
    const v1::Job::State state = life.job->state();
    if (state == v1::Job::STATE_QUEUED) {
      Dequeue(job);
      life.stop_step = job->GetProgress().step;
      ++life.pauses;
      SetState(*job, v1::Job::STATE_PAUSED);
    } else if (state == v1::Job::STATE_RUNNING) {
      life.pause_asked = true;
      job->mail = true;
      SetState(*job, v1::Job::STATE_PAUSING);
    } else if (state == v1::Job::STATE_PAUSED) {
      --pauses;  // It is in effect already.
    } else if (state != v1::Job::STATE_PAUSING) {
      return StateConflict(name, state, "cannot be paused", "only QUEUED and RUNNING jobs can");
    }
  }
  job->changes.NotifyAll();
  return AwaitPause(job, pauses);
}

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::AwaitPause(const JobPtr& job,
                                                                   int64_t pauses_before) {
  int64_t step = 0;
  {
    MutexLock lock(&mu_);
    Life& life = LifeOf(*job);
    mu_.AwaitFor(
        [&, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
          return stopping_ || life.deleted || life.pauses != pauses_before ||
                 life.job->state() != v1::Job::STATE_PAUSING;
        },
        limits_.step_boundary_wait);
    RETURN_IF_ERROR(CheckAlive(life));
    const v1::Job::State state = life.job->state();
    const bool paused = life.pauses != pauses_before;
    if (!paused && IsFinal(state)) {
      return StateConflict(life.job->name(), state, "ended before it could be paused", "");
    }
    if (!paused && state != v1::Job::STATE_PAUSING) {
      return ErrorWithReason(absl::StatusCode::kAborted,
                             absl::StrCat(life.job->name(), " is ", StateName(state),
                                          ": another request came before the pause took effect"),
                             "JOB_STATE_CONFLICT",
                             {{"job", life.job->name()}, {"state", StateName(state)}});
    }
    step = paused ? life.stop_step : job->GetProgress().step;
  }
  return Answer(job, step);
}

// --- Resume.

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::Resume(absl::string_view name) {
  JobPtr job;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(name));
    Life& life = LifeOf(*job);
    if (life.job->state() == v1::Job::STATE_PAUSING && !life.pause_taken) {
      life.pause_asked = false;
      SetState(*job, v1::Job::STATE_RUNNING);
    }
    // Otherwise the worker is leaving: what it left is queued.
    mu_.AwaitFor(
        [&, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
          return stopping_ || life.deleted || life.job->state() != v1::Job::STATE_PAUSING;
        },
        limits_.step_boundary_wait);
    RETURN_IF_ERROR(CheckAlive(life));
  }
  return Requeue(job);
}

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::Requeue(const JobPtr& job) {
  int64_t step = 0;
  {
    MutexLock lock(&mu_);
    Life& life = LifeOf(*job);
    RETURN_IF_ERROR(CheckAlive(life));
    const v1::Job::State state = life.job->state();
    step = job->GetProgress().step;
    if (state == v1::Job::STATE_PAUSING) {
      return WithRetryDelay(
          ErrorWithReason(absl::StatusCode::kUnavailable,
                          absl::StrCat(life.job->name(), " is about to be PAUSED; try again"),
                          "JOB_STATE_CONFLICT",
                          {{"job", life.job->name()}, {"state", StateName(state)}}),
          kRetryDelay);
    }
    job->pause_before = HostedJob::kNoPause;
    if (state == v1::Job::STATE_PAUSED) {
      const int64_t bytes = life.job->memory_bytes();
      RETURN_IF_ERROR(CheckFree(bytes));
      Enqueue(job, bytes);
    } else if (state != v1::Job::STATE_QUEUED && state != v1::Job::STATE_RUNNING) {
      return StateConflict(life.job->name(), state, "cannot be resumed", "only PAUSED jobs can");
    }
  }
  job->changes.NotifyAll();
  return Answer(job, step);
}

// --- Advance.

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::Advance(
    const v1::AdvanceJobRequest& request) {
  const int64_t steps = request.has_steps() ? request.steps() : 1;
  if (steps < 1 || steps > kStepLimitMax) {
    return InvalidFields(
        {{"steps", absl::StrCat(steps, " is not allowed; allowed: 1 to ", kStepLimitMax)}});
  }
  JobPtr job;
  int64_t pause_before = 0;
  int64_t pauses = 0;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(request.name()));
    const Life& life = LifeOf(*job);
    const v1::Job::State state = life.job->state();
    if (state != v1::Job::STATE_PAUSED) {
      return StateConflict(request.name(), state, "cannot be advanced", "only PAUSED jobs can");
    }
    const int64_t bytes = life.job->memory_bytes();
    RETURN_IF_ERROR(CheckFree(bytes));
    pauses = life.pauses;
    pause_before = job->GetProgress().step + steps;
    job->pause_before = pause_before;
    Enqueue(job, bytes);
  }
  job->changes.NotifyAll();
  return AwaitAdvance(job, pause_before, pauses);
}

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::AwaitAdvance(const JobPtr& job,
                                                                     int64_t pause_before,
                                                                     int64_t pauses_before) {
  {
    MutexLock lock(&mu_);
    const Life& life = LifeOf(*job);
    // Also over when another request lets it run on.
    mu_.AwaitFor(
        [&, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
          return stopping_ || life.deleted || life.pauses != pauses_before ||
                 job->pause_before != pause_before || IsFinal(life.job->state());
        },
        limits_.step_boundary_wait);
    RETURN_IF_ERROR(CheckAlive(life));
  }
  return Answer(job, pause_before);
}

// --- Cancel.

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::Cancel(absl::string_view name) {
  JobPtr job;
  bool stopped = false;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(name));
    Life& life = LifeOf(*job);
    const v1::Job::State state = life.job->state();
    if (state == v1::Job::STATE_QUEUED || state == v1::Job::STATE_PAUSED) {
      CancelStopped(job);
      stopped = true;
    } else if (state == v1::Job::STATE_RUNNING || state == v1::Job::STATE_PAUSING) {
      life.cancel_asked = true;
      job->mail = true;
      SetState(*job, v1::Job::STATE_CANCELLING);
    } else if (state == v1::Job::STATE_SUCCEEDED || state == v1::Job::STATE_FAILED) {
      return StateConflict(name, state, "cannot be cancelled", "it has ended");
    }
  }
  if (stopped) AnnounceFinal(job);
  job->changes.NotifyAll();
  return AwaitCancel(job);
}

void JobManager::Impl::CancelStopped(const JobPtr& job) {
  Dequeue(job);
  MarkFinal(job, v1::Job::STATE_CANCELLED, nullptr);
}

absl::StatusOr<v1::JobActionResponse> JobManager::Impl::AwaitCancel(const JobPtr& job) {
  int64_t step = 0;
  {
    MutexLock lock(&mu_);
    Life& life = LifeOf(*job);
    mu_.AwaitFor([&, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                     mu_) { return stopping_ || life.deleted || IsFinal(life.job->state()); },
                 limits_.step_boundary_wait);
    RETURN_IF_ERROR(CheckAlive(life));
    const v1::Job::State state = life.job->state();
    if (state == v1::Job::STATE_SUCCEEDED || state == v1::Job::STATE_FAILED) {
      return StateConflict(life.job->name(), state, "ended before it could be cancelled", "");
    }
    step = IsFinal(state) ? life.stop_step : job->GetProgress().step;
  }
  return Answer(job, step);
}

// --- Update.

// The accepted settings with this edit, checked as a whole.
absl::StatusOr<v1::Job> JobManager::Impl::Edited(HostedJob& job,
                                                 const v1::UpdateJobRequest& request,
                                                 const std::vector<std::string>& paths) const {
  const Life& life = LifeOf(job);
  v1::Job edited = life.accepted;
  ApplyPaths(request.job(), paths, &edited);
  std::vector<FieldViolation> violations;
  CheckJobSettings(edited, &violations);
  const int64_t done = job.GetProgress().step;
  if (violations.empty() && edited.training().step_limit() < done) {
    violations.push_back(
        {"training.step_limit",
         absl::StrCat(edited.training().step_limit(), " is below the ", done,
                      " steps that are done; allowed: ", done, " to ", kStepLimitMax)});
  }
  if (!violations.empty()) return InvalidFields(violations);
  return edited;
}

void JobManager::Impl::RecordEdit(HostedJob& job, const v1::Job& before, BoundaryRequest* edit) {
  v1::Intervention intervention;
  for (v1::SettingChange& change : ChangesBetween(before, *LifeOf(job).job, edit->paths)) {
    intervention.add_changes()->Swap(&change);
  }
  if (intervention.changes().empty()) return;
  intervention.set_kind(v1::Intervention::KIND_EDIT);
  intervention.set_step(edit->step);
  *intervention.mutable_time() = ToTimestamp(clock_->Now());
  intervention.set_author(edit->author);
  edit->intervention = job.interventions.Add(before.name(), std::move(intervention), false);
}

void JobManager::Impl::EditStopped(HostedJob& job, BoundaryRequest* edit) {
  Life& life = LifeOf(job);
  const auto before = life.job;
  Edit(job, [&](v1::Job* edited) { ApplyPaths(edit->settings, edit->paths, edited); });
  edit->step = job.GetProgress().step;
  RecordEdit(job, *before, edit);
  if (life.checkpoint == nullptr || !RulesSee(edit->paths)) return;
  const v1::Job& after = *life.job;
  StoreRules(
      WithStoredRules(job, *before, *life.checkpoint,
                      [this, &after](alerts::RuleEngine* rules, std::vector<v1::Alert>* changed) {
                        rules->SetRules(after, clock_->Now(), changed);
                      }),
      &life);
}

absl::StatusOr<v1::UpdateJobResponse> JobManager::Impl::Update(
    const v1::UpdateJobRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<std::string> paths, UpdatePaths(request));
  RETURN_IF_ERROR(CheckAuthor(request.author()));
  const bool seen_by_steps = StepsSee(paths);
  const auto edit = std::make_shared<BoundaryRequest>();
  edit->paths = paths;
  edit->settings = RequestedPart(request.job());
  edit->author = request.author();
  v1::UpdateJobResponse response;
  JobPtr job;
  bool waits = false;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(request.job().name(), "job.name"));
    Life& life = LifeOf(*job);
    const v1::Job::State state = life.job->state();
    if (IsFinal(state) || state == v1::Job::STATE_CANCELLING) {
      return StateConflict(life.job->name(), state, "cannot be changed any more", "");
    }
    if (!request.etag().empty() && request.etag() != life.job->etag()) {
      return ErrorWithReason(absl::StatusCode::kAborted,
                             absl::StrCat("etag: ", life.job->name(),
                                          " changed since; get it again and repeat the change"),
                             "ETAG_MISMATCH",
                             {{"job", life.job->name()}, {"etag", life.job->etag()}});
    }
    ASSIGN_OR_RETURN(life.accepted, Edited(*job, request, paths));
    waits = life.with_worker && seen_by_steps;
    if (waits) {
      life.requests.push_back(edit);
      job->mail = true;
    } else {
      EditStopped(*job, edit.get());
      edit->done = true;
    }
  }
  if (!waits) job->changes.NotifyAll();
  {
    MutexLock lock(&mu_);
    Life& life = LifeOf(*job);
    mu_.AwaitFor([&, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                     mu_) { return edit->done || stopping_ || life.deleted; },
                 limits_.step_boundary_wait);
    if (edit->done) {
      RETURN_IF_ERROR(edit->status);
      if (seen_by_steps) response.set_effective_step(edit->step);
      if (edit->intervention != nullptr) *response.mutable_intervention() = *edit->intervention;
    } else {
      RETURN_IF_ERROR(CheckAlive(life));
      response.set_pending(true);
    }
  }
  *response.mutable_job() = AssembleNow(job);
  return response;
}

// --- Delete.

absl::Status JobManager::Impl::Delete(const v1::DeleteJobRequest& request) {
  JobPtr job;
  bool with_worker = false;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(request.name()));
    Life& life = LifeOf(*job);
    const v1::Job::State state = life.job->state();
    if (!IsFinal(state) && !request.force()) {
      return StateConflict(request.name(), state, "cannot be deleted",
                           "cancel it first, or ask with force");
    }
    with_worker = life.with_worker;
    Forget(job);
    if (with_worker) {
      life.cancel_asked = true;
      job->mail = true;
    } else if (!IsFinal(state)) {
      CancelStopped(job);
    }
  }
  if (with_worker) {
    // Its streams end now, its memory comes back at the step boundary.
    job->changes.NotifyAll();
    MutexLock lock(&mu_);
    Life& life = LifeOf(*job);
    mu_.AwaitFor([&, this]()
                     ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !life.with_worker; },
                 limits_.step_boundary_wait);
    return absl::OkStatus();
  }
  AnnounceForgotten({job});
  return absl::OkStatus();
}

// --- Weights.

absl::StatusOr<JobManager::Weights> JobManager::Impl::GetWeights(absl::string_view name) {
  Weights weights;
  JobPtr job;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(job, Find(name));
    Life& life = LifeOf(*job);
    if (life.with_worker && !stopping_) {
      const auto boundary = std::make_shared<BoundaryRequest>();
      life.requests.push_back(boundary);
      job->mail = true;
      mu_.AwaitFor([&, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                       mu_) { return boundary->done || stopping_ || life.deleted; },
                   limits_.step_boundary_wait);
      if (!boundary->done) {
        RETURN_IF_ERROR(CheckAlive(life));
        return WithRetryDelay(
            ErrorWithReason(absl::StatusCode::kUnavailable,
                            absl::StrCat(name, " took longer than ",
                                         absl::FormatDuration(limits_.step_boundary_wait),
                                         " to reach a step boundary; try again"),
                            "STEP_BOUNDARY_TIMEOUT", {{"job", std::string(name)}}),
            kRetryDelay);
      }
      RETURN_IF_ERROR(boundary->status);
      weights.checkpoint = boundary->checkpoint;
    } else {
      weights.checkpoint = life.checkpoint;
    }
    if (weights.checkpoint == nullptr) return NotStarted(name);
  }
  weights.job = AssembleNow(job);
  return weights;
}

}  // namespace gradwatch::jobs
