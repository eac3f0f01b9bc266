#include <algorithm>
#include <cmath>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/jobs/errors.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/settings.h"

// Training: one worker takes one job from the queue, runs it until it ends, pauses or the server
// stops, and looks into its mailbox between two steps.

namespace gradwatch::jobs {
namespace {

// Values of alerts that fire change at every step; so often they are published without an event.
constexpr absl::Duration kAlertRefresh = absl::Milliseconds(200);

std::string Describe(const v1::NonFiniteOrigin& origin) {
  std::string text = absl::StrCat("'", origin.tensor(), "'");
  if (origin.has_layer()) absl::StrAppend(&text, ", layer ", origin.layer());
  if (origin.has_time_step()) absl::StrAppend(&text, ", time step ", origin.time_step());
  return text;
}

}  // namespace

// One stay of one job with a worker. Runs on the worker's thread.
class JobManager::Impl::Worker {
 public:
  Worker(Impl* impl, JobPtr job) : impl_(impl), job_(std::move(job)) {}

  void Run() {
    Outcome outcome = Outcome::kFail;
    // The engine takes its memory at once and may not get it; nothing else throws by design, and
    // nothing that does may take the server along.
    try {
      outcome = Train();
    } catch (const std::bad_alloc&) {
      Fail(v1::Failure::REASON_OUT_OF_MEMORY, "the memory that the job needs cannot be had");
    } catch (const std::exception& error) {
      Fail(v1::Failure::REASON_INTERNAL, error.what());
    }
    Leave(outcome);
  }

 private:
  enum class Outcome { kGoOn, kPause, kCancel, kSucceed, kFail, kAbandon };

  // --- Building.

  absl::Status Build() {
    std::shared_ptr<const data::DatasetContent> content;
    std::shared_ptr<const v1::Checkpoint> checkpoint;
    std::shared_ptr<const v1::Job> checkpoint_job;
    {
      MutexLock lock(&impl_->mu_);
      const Life& life = impl_->LifeOf(*job_);
      described_ = life.job;
      content = life.content;
      checkpoint = life.checkpoint;
      checkpoint_job = life.checkpoint_job;
    }
    // A checkpoint fits the settings that it was made with; what was edited since comes after.
    const v1::Job& first = checkpoint != nullptr ? *checkpoint_job : *described_;
    ASSIGN_OR_RETURN(trainer_, impl_->trainers_(first, std::move(content), checkpoint.get()));
    if (checkpoint != nullptr) RETURN_IF_ERROR(trainer_->ApplySettings(*described_));
    seat_ = impl_->cores_.Take(trainer_->threads_useful());
    if (described_->parameters().empty()) {
      MutexLock lock(&impl_->mu_);
      impl_->Edit(*job_, [this](v1::Job* job) {
        for (const v1::ParameterInfo& info : trainer_->parameters()) *job->add_parameters() = info;
      });
      described_ = impl_->LifeOf(*job_).job;
    }
    job_->changes.NotifyAll();
    return BuildRules();
  }

  absl::Status BuildRules() {
    auto rules = std::make_unique<alerts::RuleEngine>(*described_);
    MutexLock rules_lock(&job_->rules_mu);
    std::shared_ptr<const v1::Checkpoint> checkpoint;
    {
      // Somebody may have acknowledged an alert since Build looked.
      MutexLock lock(&impl_->mu_);
      checkpoint = impl_->LifeOf(*job_).checkpoint;
    }
    if (checkpoint != nullptr) RETURN_IF_ERROR(rules->LoadState(checkpoint->rules_state()));
    job_->rules = std::move(rules);
    return absl::OkStatus();
  }

  // --- The loop.

  Outcome Train() {
    if (const absl::Status built = Build(); !built.ok()) {
      return Fail(built.code() == absl::StatusCode::kResourceExhausted
                      ? v1::Failure::REASON_OUT_OF_MEMORY
                      : v1::Failure::REASON_INTERNAL,
                  built.message());
    }
    for (;;) {
      if (job_->mail) {
        const Outcome outcome = ReadMail();
        if (outcome != Outcome::kGoOn) return outcome;
      }
      UseCores();
      if (trainer_->step() >= described_->training().step_limit()) {
        RecordFinalEvaluation();
        return Outcome::kSucceed;
      }
      if (trainer_->step() >= job_->pause_before && TakePause()) return Outcome::kPause;
      Step();
      if (failure_.has_value()) return Outcome::kFail;
      if (!described_->has_ladder() &&
          trainer_->nonfinite_in_a_row() >= described_->training().non_finite().consecutive_max()) {
        return FailNonFinite();
      }
    }
  }

  // As many threads as the job's seat has now.
  void UseCores() {
    const int threads = seat_->threads();
    if (threads != threads_) trainer_->SetThreads(threads);
    threads_ = threads;
  }

  void Step() {
    const absl::Time begin = impl_->clock_->Now();
    trainer_->Step(&stats_);
    const absl::Time now = impl_->clock_->Now();
    const absl::Duration duration = std::max(absl::ZeroDuration(), now - begin);
    SetTimestamp(now, stats_.mutable_time());
    stats_.set_duration_us(absl::ToInt64Microseconds(duration));
    RecordInterventions(now);

    // In this order: who sees the step in the stream finds its alerts and the job's progress.
    ObserveRules(now);
    const auto record = records_.Make(&stats_);
    RecordProgress(record, now);
    if (job_->log.Append(record)) impl_->dispatcher_.Post(job_);
    impl_->CountStep(absl::ToDoubleSeconds(duration));
  }

  void ObserveRules(absl::Time now) {
    MutexLock lock(&job_->rules_mu);
    changed_.clear();
    job_->rules->Observe(stats_, now, &changed_);
    PublishAlerts(now);
  }

  // Into the step's record: edits that came before it, then what the ladder did.
  void RecordInterventions(absl::Time now) {
    auto* const told = stats_.mutable_interventions();
    google::protobuf::RepeatedPtrField<v1::Intervention> actions;
    actions.Swap(told);
    job_->interventions.TakeUntold(told);
    for (v1::Intervention& action : actions) {
      *action.mutable_time() = ToTimestamp(now);
      action.set_author("ladder");
      TakeOver(action);
      *told->Add() = *job_->interventions.Add(described_->name(), std::move(action), true);
    }
  }

  // What the ladder changed in the trainer, for all to see.
  void TakeOver(const v1::Intervention& action) {
    if (action.kind() == v1::Intervention::KIND_STOP) {
      Fail(v1::Failure::REASON_LADDER_EXHAUSTED, action.cause());
      failure_->set_step(action.step());
    }
    if (action.changes().empty()) return;
    std::vector<std::string> paths;
    for (const v1::SettingChange& change : action.changes()) paths.push_back(change.path());
    MutexLock lock(&impl_->mu_);
    Life& life = impl_->LifeOf(*job_);
    impl_->Edit(*job_, [&](v1::Job* job) { ApplyPaths(trainer_->settings(), paths, job); });
    described_ = life.job;
    life.accepted = *life.job;
    for (const auto& waiting : life.requests) {
      ApplyPaths(waiting->settings, waiting->paths, &life.accepted);
    }
  }

  void RecordProgress(const std::shared_ptr<const StepRecord>& record, absl::Time now) {
    if (stats_.has_evaluation()) RecordEvaluation(stats_.evaluation());
    MutexLock lock(&job_->progress_mu);
    Progress& progress = job_->progress;
    ValueRecords& values = job_->values;
    progress.step = trainer_->step();
    progress.updates_applied = trainer_->updates_applied();
    progress.clipped_steps += record->clipped ? 1 : 0;
    progress.nonfinite_steps += record->nonfinite ? 1 : 0;
    progress.nonfinite_entries += stats_.nonfinite_count();
    for (int i = 0; i < stats_.shadow_reports_size(); ++i) {
      const v1::ShadowReport& shadow = stats_.shadow_reports(i);
      progress.shadow_clipped_steps[static_cast<size_t>(i)] += shadow.clipped() ? 1 : 0;
      progress.shadow_coefficients[static_cast<size_t>(i)] += shadow.coefficient();
    }
    progress.latest = record;
    progress.last_step_time = now;
    values.loss.Add(now, record->loss);
    values.norm_before.Add(now, record->norm_before);
    values.norm_after.Add(now, record->norm_after);
    values.growth_factor.Add(now, record->growth_factor);
    values.update_ratio.Add(now, record->update_ratio);
    values.gradient_cosine.Add(now, record->gradient_cosine);
    if (stats_.noise().has_noise_scale()) progress.noise_scale = stats_.noise().noise_scale();
  }

  void RecordFinalEvaluation() {
    if (described_->evaluation().every_steps() == 0) return;
    const v1::EvaluationResult evaluation = trainer_->Evaluate();
    if (evaluation.examples() > 0) RecordEvaluation(evaluation);
  }

  void RecordEvaluation(const v1::EvaluationResult& evaluation) {
    const auto shared = std::make_shared<const v1::EvaluationResult>(evaluation);
    MutexLock lock(&job_->progress_mu);
    Progress& progress = job_->progress;
    progress.latest_evaluation = shared;
    const bool best =
        std::isfinite(evaluation.loss()) && (progress.best_evaluation == nullptr ||
                                             evaluation.loss() < progress.best_evaluation->loss());
    if (best) progress.best_evaluation = shared;
  }

  // Events at once; between them, now and then, the values of what fires or is pending.
  void PublishAlerts(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(job_->rules_mu) {
    if (changed_.empty()) {
      if (now - published_ < kAlertRefresh) return;
      published_ = now;
      if (quiet_ && job_->rules->firing() == 0 && job_->rules->pending().empty()) return;
    }
    PublishAlertsNow(now);
  }

  void PublishAlertsNow(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(job_->rules_mu) {
    published_ = now;
    quiet_ = job_->rules->firing() == 0 && job_->rules->pending().empty();
    impl_->PublishRules(*job_, changed_);
  }

  // --- The mailbox.

  Outcome ReadMail() {
    AnswerRequests();
    MutexLock lock(&impl_->mu_);
    Life& life = impl_->LifeOf(*job_);
    if (impl_->stopping_) return Outcome::kAbandon;
    if (life.cancel_asked) return Outcome::kCancel;
    if (life.pause_asked) {
      life.pause_taken = true;
      return Outcome::kPause;
    }
    job_->mail = !life.requests.empty();
    return Outcome::kGoOn;
  }

  // Whether the steps of Advance are done.
  bool TakePause() {
    MutexLock lock(&impl_->mu_);
    if (trainer_->step() < job_->pause_before) return false;
    Life& life = impl_->LifeOf(*job_);
    life.pause_taken = true;
    if (!life.cancel_asked) impl_->SetState(*job_, v1::Job::STATE_PAUSING);
    return true;
  }

  void AnswerRequests() {
    std::shared_ptr<const v1::Checkpoint> weights;
    while (const auto request = NextRequest()) {
      absl::Status status;
      if (!request->paths.empty()) {
        status = ApplyEdit(request.get());
      } else if (weights == nullptr) {
        weights = std::make_shared<const v1::Checkpoint>(Save());
      }
      MutexLock lock(&impl_->mu_);
      request->done = true;
      request->status = status;
      request->step = trainer_->step();
      request->checkpoint = weights;
    }
  }

  std::shared_ptr<BoundaryRequest> NextRequest() {
    MutexLock lock(&impl_->mu_);
    auto& requests = impl_->LifeOf(*job_).requests;
    if (requests.empty()) return nullptr;
    auto request = requests.front();
    requests.erase(requests.begin());
    return request;
  }

  // All or nothing: the trainer takes the settings first, since it may refuse.
  absl::Status ApplyEdit(BoundaryRequest* edit) {
    const BoundaryRequest& request = *edit;
    edit->step = trainer_->step();
    v1::Job edited;
    {
      MutexLock lock(&impl_->mu_);
      edited = *impl_->LifeOf(*job_).job;
    }
    ApplyPaths(request.settings, request.paths, &edited);
    absl::Status status = CheckStepLimit(edited, trainer_->step());
    if (status.ok()) status = trainer_->ApplySettings(edited);
    if (status.ok() && RulesSee(request.paths)) {
      MutexLock lock(&job_->rules_mu);
      changed_.clear();
      job_->rules->SetRules(edited, impl_->clock_->Now(), &changed_);
      PublishAlertsNow(impl_->clock_->Now());
    }
    {
      MutexLock lock(&impl_->mu_);
      Life& life = impl_->LifeOf(*job_);
      if (status.ok()) {
        const auto before = life.job;
        impl_->Edit(*job_, [&](v1::Job* job) { ApplyPaths(request.settings, request.paths, job); });
        described_ = life.job;
        impl_->RecordEdit(*job_, *before, edit);
      } else {
        life.accepted = *life.job;
        for (const auto& waiting : life.requests) {
          ApplyPaths(waiting->settings, waiting->paths, &life.accepted);
        }
      }
    }
    job_->changes.NotifyAll();
    return status;
  }

  static absl::Status CheckStepLimit(const v1::Job& edited, int64_t done) {
    if (edited.training().step_limit() >= done) return absl::OkStatus();
    return InvalidFields(
        {{"training.step_limit", absl::StrCat(edited.training().step_limit(), " is below the ",
                                              done, " steps that are done")}});
  }

  // --- The end.

  Outcome Fail(v1::Failure::Reason reason, absl::string_view message) {
    failure_.emplace();
    failure_->set_reason(reason);
    failure_->set_message(std::string(message));
    failure_->set_step(job_->GetProgress().step);
    return Outcome::kFail;
  }

  Outcome FailNonFinite() {
    const int rows = trainer_->nonfinite_in_a_row();
    Fail(v1::Failure::REASON_NON_FINITE,
         absl::StrCat(rows, rows == 1 ? " step was" : " steps in a row were",
                      " not finite, the last one step ", stats_.step(), ": first in ",
                      Describe(stats_.nonfinite_origin()),
                      "; try a lower optimizer.learning_rate, or clipping.policies with a lower "
                      "max_norm"));
    failure_->set_step(stats_.step());
    return Outcome::kFail;
  }

  v1::Checkpoint Save() const {
    v1::Checkpoint checkpoint = trainer_->Save();
    for (const auto& entry : job_->interventions.After(0, InterventionLog::kKeptMax).kept) {
      *checkpoint.add_interventions() = *entry;
    }
    return checkpoint;
  }

  // Everything that is needed to continue, or null when there is none.
  std::shared_ptr<const v1::Checkpoint> Checkpoint() ABSL_EXCLUSIVE_LOCKS_REQUIRED(job_->rules_mu) {
    if (trainer_ == nullptr || job_->rules == nullptr) return nullptr;
    try {
      auto checkpoint = std::make_shared<v1::Checkpoint>(Save());
      checkpoint->set_rules_state(job_->rules->SaveState());
      return checkpoint;
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }

  void Leave(Outcome outcome) {
    bool final = false;
    bool deleted = false;
    {
      MutexLock rules_lock(&job_->rules_mu);
      Settle(outcome, &final, &deleted);
      job_->rules.reset();
    }
    if (deleted) {
      impl_->AnnounceForgotten({job_});
    } else if (final) {
      impl_->AnnounceFinal(job_);
    } else {
      job_->changes.NotifyAll();
    }
  }

  // Puts down what stays of the job; who looks for its rules finds them in the checkpoint then.
  void Settle(Outcome outcome, bool* final, bool* deleted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(job_->rules_mu) {
    const auto checkpoint = Checkpoint();
    if (outcome == Outcome::kPause && checkpoint == nullptr) {
      outcome = Fail(v1::Failure::REASON_OUT_OF_MEMORY,
                     "the memory for the checkpoint of the pause cannot be had");
    }
    if (job_->rules != nullptr) {
      changed_.clear();
      PublishAlertsNow(impl_->clock_->Now());
    }
    trainer_.reset();
    seat_.reset();
    MutexLock lock(&impl_->mu_);
    Life& life = impl_->LifeOf(*job_);
    if (checkpoint != nullptr) {
      life.checkpoint = checkpoint;
      life.checkpoint_job = life.job;
    }
    if (outcome == Outcome::kPause && life.cancel_asked) outcome = Outcome::kCancel;
    *final = TakeState(outcome, &life);
    for (const auto& request : std::exchange(life.requests, {})) AnswerLate(request.get(), &life);
    life.with_worker = false;
    life.pause_asked = life.pause_taken = life.cancel_asked = false;
    job_->mail = false;
    *deleted = life.deleted;
  }

  // Whether the job is final now.
  bool TakeState(Outcome outcome, Life* life) ABSL_EXCLUSIVE_LOCKS_REQUIRED(impl_->mu_) {
    switch (outcome) {
      case Outcome::kAbandon:
        return false;
      case Outcome::kPause:
        impl_->ReleaseAdmission(*job_);
        life->stop_step = job_->GetProgress().step;
        ++life->pauses;
        job_->pause_before = HostedJob::kNoPause;
        impl_->SetState(*job_, v1::Job::STATE_PAUSED);
        impl_->CountKept(*job_);
        return false;
      case Outcome::kCancel:
        impl_->MarkFinal(job_, v1::Job::STATE_CANCELLED, nullptr);
        return true;
      case Outcome::kSucceed:
        impl_->MarkFinal(job_, v1::Job::STATE_SUCCEEDED, nullptr);
        return true;
      case Outcome::kFail:
      case Outcome::kGoOn:
        break;
    }
    Log(LogLevel::kWarning, "jobs/%s failed: %s", job_->id, failure_->message());
    impl_->MarkFinal(job_, v1::Job::STATE_FAILED, &*failure_);
    return true;
  }

  // What was asked after the last look into the mailbox: the weights are those of the end, an edit
  // is that of a paused job, or comes too late.
  void AnswerLate(BoundaryRequest* request, Life* life) ABSL_EXCLUSIVE_LOCKS_REQUIRED(impl_->mu_) {
    request->done = true;
    request->step = job_->GetProgress().step;
    if (impl_->stopping_) {
      request->status = ShuttingDown();
    } else if (request->paths.empty()) {
      request->checkpoint = life->checkpoint;
    } else if (life->job->state() != v1::Job::STATE_PAUSED) {
      request->status = StateConflict(life->job->name(), life->job->state(),
                                      "ended before the change could be made", "");
    } else {
      v1::Job edited = *life->job;
      ApplyPaths(request->settings, request->paths, &edited);
      request->status = CheckStepLimit(edited, request->step);
      if (request->status.ok()) impl_->EditStopped(*job_, request);
    }
  }

  Impl* const impl_;
  const JobPtr job_;
  std::shared_ptr<const v1::Job> described_;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<CoreScheduler::Seat> seat_;
  int threads_ = 1;  // What the trainer was told, or has at first.
  std::optional<v1::Failure> failure_;

  // Of the present step.
  v1::StepStats stats_;
  std::vector<v1::Alert> changed_;

  RecordMaker records_;
  absl::Time published_ = absl::InfinitePast();
  bool quiet_ = true;  // Nothing fires or is pending in what was published.
};

JobManager::Impl::JobPtr JobManager::Impl::NextJob() {
  MutexLock lock(&mu_);
  mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !queue_.empty(); });
  if (stopping_) return nullptr;
  JobPtr job = queue_.front();
  queue_.pop_front();
  LifeOf(*job).with_worker = true;
  Edit(*job, [this](v1::Job* edited) {
    edited->set_state(v1::Job::STATE_RUNNING);
    if (!edited->has_start_time()) *edited->mutable_start_time() = ToTimestamp(clock_->Now());
  });
  return job;
}

void JobManager::Impl::Work() {
  while (JobPtr job = NextJob()) {
    job->changes.NotifyAll();
    Worker(this, std::move(job)).Run();
  }
}

}  // namespace gradwatch::jobs
