#include "server/jobs/job_manager.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/version.h"
#include "server/data/source.h"
#include "server/jobs/errors.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/names.h"
#include "server/jobs/settings.h"
#include "server/jobs/validate.h"
#include "server/nn/engine_level.h"
#include "server/train/model_tools.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {
namespace {

constexpr size_t kRequestIdLengthMax = 64;
constexpr int kWorkersMax = 1024;

int CoresOf(const JobLimits& limits) {
  if (limits.cores > 0) return limits.cores;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int WorkersOf(const JobLimits& limits) {
  return std::min(limits.running_max > 0 ? limits.running_max : CoresOf(limits), kWorkersMax);
}

std::string NameOf(const HostedJob& job) { return absl::StrCat("jobs/", job.id); }

// What is needed of a final job: the weights, and the rules for the end of the grace period.
std::shared_ptr<const v1::Checkpoint> WithoutTraining(const v1::Checkpoint& checkpoint) {
  auto kept = std::make_shared<v1::Checkpoint>();
  kept->set_step(checkpoint.step());
  kept->set_updates_applied(checkpoint.updates_applied());
  kept->set_weights(checkpoint.weights());
  *kept->mutable_parameters() = checkpoint.parameters();
  kept->set_precision(checkpoint.precision());
  kept->set_rules_state(checkpoint.rules_state());
  *kept->mutable_interventions() = checkpoint.interventions();
  return kept;
}

}  // namespace

// --- The interface.

JobManager::JobManager(JobLimits limits, DatasetStore* datasets, const Clock* clock,
                       TrainerFactory trainers)
    : impl_(std::make_shared<Impl>(limits, datasets, clock, std::move(trainers))) {
  impl_->Start();
}

JobManager::~JobManager() { impl_->Shutdown(); }

absl::StatusOr<v1::Job> JobManager::Create(const v1::CreateJobRequest& request) {
  return impl_->Create(request);
}
absl::StatusOr<v1::Job> JobManager::Get(absl::string_view name) const { return impl_->Get(name); }
absl::StatusOr<v1::ListJobsResponse> JobManager::List(const v1::ListJobsRequest& request) const {
  return impl_->List(request);
}
absl::StatusOr<v1::UpdateJobResponse> JobManager::Update(const v1::UpdateJobRequest& request) {
  return impl_->Update(request);
}
absl::Status JobManager::Delete(const v1::DeleteJobRequest& request) {
  return impl_->Delete(request);
}
absl::StatusOr<v1::JobActionResponse> JobManager::Pause(absl::string_view name) {
  return impl_->Pause(name);
}
absl::StatusOr<v1::JobActionResponse> JobManager::Resume(absl::string_view name) {
  return impl_->Resume(name);
}
absl::StatusOr<v1::JobActionResponse> JobManager::Cancel(absl::string_view name) {
  return impl_->Cancel(name);
}
absl::StatusOr<v1::JobActionResponse> JobManager::Advance(const v1::AdvanceJobRequest& request) {
  return impl_->Advance(request);
}
absl::StatusOr<v1::ListInterventionsResponse> JobManager::ListInterventions(
    const v1::ListInterventionsRequest& request) const {
  return impl_->ListInterventions(request);
}
absl::StatusOr<v1::ClipAdvice> JobManager::GetClipAdvice(
    const v1::GetClipAdviceRequest& request) const {
  return impl_->GetClipAdvice(request);
}
absl::StatusOr<v1::QueryStatsResponse> JobManager::QueryStats(
    const v1::QueryStatsRequest& request) const {
  return impl_->QueryStats(request);
}
absl::StatusOr<v1::TrainingBatch> JobManager::GetBatch(const v1::GetBatchRequest& request) {
  return impl_->GetBatch(request);
}
absl::StatusOr<v1::ListRulesResponse> JobManager::ListRules(
    const v1::ListRulesRequest& request) const {
  return impl_->ListRules(request);
}
absl::StatusOr<v1::ListAlertsResponse> JobManager::ListAlerts(
    const v1::ListAlertsRequest& request) const {
  return impl_->ListAlerts(request);
}
absl::StatusOr<v1::Alert> JobManager::AcknowledgeAlert(const v1::AcknowledgeAlertRequest& request) {
  return impl_->AcknowledgeAlert(request);
}
absl::StatusOr<v1::Silence> JobManager::SilenceRule(const v1::SilenceRuleRequest& request) {
  return impl_->SilenceRule(request);
}
absl::StatusOr<v1::ListSilencesResponse> JobManager::ListSilences(
    const v1::ListSilencesRequest& request) const {
  return impl_->ListSilences(request);
}
absl::Status JobManager::DeleteSilence(const v1::DeleteSilenceRequest& request) {
  return impl_->DeleteSilence(request);
}
absl::StatusOr<v1::EvaluateRulesResponse> JobManager::EvaluateRules(
    const v1::EvaluateRulesRequest& request) const {
  return impl_->EvaluateRules(request);
}
absl::StatusOr<JobManager::Weights> JobManager::GetWeights(absl::string_view name) {
  return impl_->GetWeights(name);
}
absl::StatusOr<v1::CheckGradientsResponse> JobManager::CheckGradients(
    const v1::CheckGradientsRequest& request) {
  return impl_->CheckGradients(request);
}
absl::StatusOr<std::unique_ptr<JobManager::StatsReader>> JobManager::OpenStats(
    const v1::StreamStatsRequest& request, absl::AnyInvocable<void()> notify) {
  return impl_->OpenStats(request, std::move(notify));
}
absl::StatusOr<std::unique_ptr<JobManager::JobReader>> JobManager::OpenJob(
    absl::string_view name, absl::AnyInvocable<void()> notify) {
  return impl_->OpenJob(name, std::move(notify));
}
absl::StatusOr<std::unique_ptr<JobManager::AlertReader>> JobManager::OpenAlerts(
    absl::string_view parent, absl::AnyInvocable<void()> notify) {
  return impl_->OpenAlerts(parent, std::move(notify));
}
std::vector<JobSnapshot> JobManager::Snapshots() const { return impl_->Snapshots(); }
std::vector<int64_t> JobManager::CountByState() const { return impl_->CountByState(); }
Totals JobManager::GetTotals() const { return impl_->GetTotals(); }
void JobManager::Shutdown() { impl_->Shutdown(); }

absl::StatusOr<v1::GenerateResponse> JobManager::Generate(const v1::GenerateRequest& request) {
  ASSIGN_OR_RETURN(const Weights weights, impl_->GetWeights(request.name()));
  v1::GenerateResponse response;
  ASSIGN_OR_RETURN(*response.mutable_text(),
                   train::GenerateText(weights.job, *weights.checkpoint, request));
  response.set_step(weights.checkpoint->step());
  return response;
}

// --- Start and end.

JobManager::Impl::Impl(JobLimits limits, DatasetStore* datasets, const Clock* clock,
                       TrainerFactory trainers)
    : limits_(limits),
      datasets_(datasets),
      clock_(clock),
      trainers_(std::move(trainers)),
      cores_(CoresOf(limits)),
      timer_(std::make_shared<Timer>(clock)),
      step_duration_counts_(StepDurationBounds().size() + 1) {}

void JobManager::Impl::Start() {
  const int workers = WorkersOf(limits_);
  for (int i = 0; i < workers; ++i) workers_.emplace_back([this] { Work(); });
  ScheduleProgressCheck();
}

void JobManager::Impl::Shutdown() {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    if (stopping_) {
      // Another thread does it.
      mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopped_; });
      return;
    }
    stopping_ = true;
    for (const auto& [number, job] : newest_first_) {
      job->mail = true;
      jobs.push_back(job);
    }
  }
  for (std::thread& worker : workers_) worker.join();
  dispatcher_.Stop();
  feed_.Stop();
  for (const JobPtr& job : jobs) job->changes.NotifyAll();
  timer_->Stop();
  MutexLock lock(&mu_);
  stopped_ = true;
}

// --- Creation.

absl::StatusOr<JobManager::Impl::Admission> JobManager::Impl::CheckAtDoor(
    const v1::Job& job, std::vector<FieldViolation> violations) const {
  Admission admission;
  const absl::string_view dataset = data::DatasetNameOf(job.task());
  if (!dataset.empty() && IdOf(dataset, "datasets", "dataset").ok()) {
    auto content = datasets_->Content(dataset);
    if (!content.ok()) {
      CheckJobSettings(job, &violations);
      return violations.empty() ? content.status() : InvalidFields(violations);
    }
    admission.content = *std::move(content);
  }
  ASSIGN_OR_RETURN(admission.bytes, ValidateJob(job, admission.content.get(), limits_.job_bytes_max,
                                                std::move(violations)));
  return admission;
}

absl::StatusOr<JobManager::Impl::JobPtr> JobManager::Impl::Replay(
    const v1::CreateJobRequest& request, const v1::Job& wanted) const {
  const auto found = request_ids_.find(request.request_id());
  if (request.request_id().empty() || found == request_ids_.end()) return JobPtr();
  const HostedJob& before = *found->second;
  std::vector<std::string> differing;
  for (const std::string& field : DifferingFields(before.body.job(), wanted)) {
    differing.push_back(absl::StrCat("job.", field));
  }
  if (before.body.job_id() != request.job_id()) differing.push_back("job_id");
  if (differing.empty()) return found->second;
  return ErrorWithReason(
      absl::StatusCode::kAlreadyExists,
      absl::StrCat("request_id ", Quoted(request.request_id()), " made ", NameOf(before),
                   " with another body; these differ: ", absl::StrJoin(differing, ", "),
                   "; use a new request_id for a new job"),
      "REQUEST_ID_REUSED",
      {{"request_id", request.request_id()},
       {"job", NameOf(before)},
       {"differing", absl::StrJoin(differing, ",")}});
}

absl::Status JobManager::Impl::CheckFree(int64_t bytes) const {
  if (static_cast<int64_t>(queue_.size()) >= limits_.queued_max) {
    return Exhausted(absl::StrCat(queue_.size(), " jobs are queued; at most ", limits_.queued_max,
                                  " may be; try again when some have run"),
                     "QUEUE_FULL", limits_.queued_max);
  }
  return CheckMemory("the job", bytes);
}

absl::Status JobManager::Impl::CheckMemory(absl::string_view what, int64_t bytes) const {
  if (bytes <= limits_.total_bytes_max - admitted_bytes_) return absl::OkStatus();
  return Exhausted(absl::StrCat(what, " needs about ", bytes,
                                " bytes; running and queued jobs hold ", admitted_bytes_, " of ",
                                limits_.total_bytes_max, "; try again when some have ended"),
                   "MEMORY_EXHAUSTED", limits_.total_bytes_max);
}

absl::Status JobManager::Impl::MakeRoom(int more, std::vector<JobPtr>* forgotten) {
  const auto full = [this, more]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<int64_t>(jobs_.size()) + more > limits_.kept_max ||
           kept_bytes_ > limits_.kept_bytes_max;
  };
  while (full() && !final_.empty()) {
    forgotten->push_back(final_.front());
    Forget(forgotten->back());
  }
  if (!full()) return absl::OkStatus();
  return Exhausted(absl::StrCat("the server keeps ", jobs_.size(),
                                " jobs that are not final (at "
                                "most ",
                                limits_.kept_max, ") with ", kept_bytes_,
                                " bytes of history and checkpoints (at most ",
                                limits_.kept_bytes_max, "); end or delete some"),
                   "TOO_MANY_JOBS", limits_.kept_max);
}

std::string JobManager::Impl::FreeId() const {
  std::string id = NewId("job");
  while (jobs_.contains(id)) id = NewId("job");
  return id;
}

absl::StatusOr<v1::Job> JobManager::Impl::Create(const v1::CreateJobRequest& request) {
  std::vector<FieldViolation> violations;
  if (!request.job_id().empty()) CheckId(request.job_id(), "job_id", &violations);
  if (request.request_id().size() > kRequestIdLengthMax) {
    violations.push_back(
        {"request_id", absl::StrCat("has ", request.request_id().size(), " characters; at most ",
                                    kRequestIdLengthMax, " are allowed")});
  }
  v1::Job job = RequestedPart(request.job());
  v1::CreateJobRequest body;  // What is kept of the request.
  if (!request.validate_only()) {
    *body.mutable_job() = job;
    body.set_job_id(request.job_id());
    body.set_request_id(request.request_id());
  }
  train::FillDefaults(&job);
  const auto admission = CheckAtDoor(job, std::move(violations));

  std::vector<JobPtr> forgotten;
  absl::StatusOr<v1::Job> created = absl::UnavailableError("");
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    // Before everything else that may have changed since the request came first.
    if (!request.validate_only()) {
      ASSIGN_OR_RETURN(const JobPtr before, Replay(request, body.job()));
      if (before != nullptr) return Assemble(Look(before));
    }
    RETURN_IF_ERROR(admission.status());
    if (jobs_.contains(request.job_id())) {
      return ErrorWithReason(absl::StatusCode::kAlreadyExists,
                             absl::StrCat("jobs/", request.job_id(),
                                          " exists already; choose another job_id, or delete it"),
                             "JOB_EXISTS", {{"job", absl::StrCat("jobs/", request.job_id())}});
    }
    RETURN_IF_ERROR(CheckFree(admission->bytes));
    job.set_memory_bytes(admission->bytes);
    if (request.validate_only()) {
      if (!request.job_id().empty()) {
        job.set_name(absl::StrCat("jobs/", request.job_id()));
        if (!job.has_seed()) job.set_seed(SeedOf(request.job_id()));
      }
      return job;
    }
    const absl::Status room = MakeRoom(1, &forgotten);
    const std::string dataset(data::DatasetNameOf(job.task()));
    const absl::Status used = dataset.empty() ? absl::OkStatus() : datasets_->AddUse(dataset);
    if (!room.ok()) {
      if (used.ok() && !dataset.empty()) datasets_->DropUse(dataset);
      created = room;
    } else if (!used.ok()) {
      created = used;
    } else {
      created = Assemble(Look(Insert(body, std::move(job), *admission)));
    }
  }
  AnnounceForgotten(forgotten);
  return created;
}

JobManager::Impl::JobPtr JobManager::Impl::Insert(const v1::CreateJobRequest& body, v1::Job job,
                                                  const Admission& admission) {
  const std::string id = body.job_id().empty() ? FreeId() : body.job_id();
  const auto hosted =
      std::make_shared<HostedJob>(id, NewUid(), next_number_++, body, limits_.history_bytes_max);
  job.set_name(NameOf(*hosted));
  job.set_uid(hosted->uid);
  job.set_server_build(
      absl::StrCat(Version(), " (commit ", Revision(), ", engine ", nn::EngineLevel(), ")"));
  if (!job.has_seed()) job.set_seed(SeedOf(id));
  *job.mutable_create_time() = ToTimestamp(clock_->Now());
  if (admission.content != nullptr) {
    for (const char32_t character : admission.content->vocabulary) job.add_vocabulary(character);
  }
  Life& life = LifeOf(*hosted);
  life.job = std::make_shared<const v1::Job>(std::move(job));
  life.content = admission.content;
  jobs_.emplace(id, hosted);
  newest_first_.emplace(hosted->number, hosted);
  if (!body.request_id().empty()) request_ids_.emplace(body.request_id(), hosted);
  feed_.AddJob(hosted->number);
  Enqueue(hosted, admission.bytes);
  life.accepted = *life.job;
  return hosted;
}

// --- Queue and end.

void JobManager::Impl::Enqueue(const JobPtr& job, int64_t bytes) {
  Life& life = LifeOf(*job);
  life.admitted_bytes = bytes;
  admitted_bytes_ += bytes;
  life.queue_number = next_queue_number_++;
  queue_.push_back(job);
  SetState(*job, v1::Job::STATE_QUEUED);
}

void JobManager::Impl::Dequeue(const JobPtr& job) {
  queue_.erase(std::remove(queue_.begin(), queue_.end(), job), queue_.end());
  ReleaseAdmission(*job);
}

void JobManager::Impl::ReleaseAdmission(HostedJob& job) {
  admitted_bytes_ -= std::exchange(LifeOf(job).admitted_bytes, 0);
}

void JobManager::Impl::ReleaseData(HostedJob& job) {
  Life& life = LifeOf(job);
  if (life.content == nullptr) return;
  life.content.reset();
  const absl::string_view name = data::DatasetNameOf(life.job->task());
  // There is one as long as it is in use.
  if (const auto dataset = datasets_->Get(name); dataset.ok()) {
    life.content_sha256 = dataset->sha256();
  }
  datasets_->DropUse(name);
}

void JobManager::Impl::CountKept(HostedJob& job) {
  Life& life = LifeOf(job);
  kept_bytes_ -= life.kept_bytes;
  life.kept_bytes = job.log.bytes();
  if (life.checkpoint != nullptr) {
    life.kept_bytes += static_cast<int64_t>(life.checkpoint->ByteSizeLong());
  }
  kept_bytes_ += life.kept_bytes;
}

void JobManager::Impl::Forget(const JobPtr& job) {
  Life& life = LifeOf(*job);
  life.deleted = true;
  jobs_.erase(job->id);
  newest_first_.erase(job->number);
  if (!job->body.request_id().empty()) request_ids_.erase(job->body.request_id());
  final_.erase(std::remove(final_.begin(), final_.end(), job), final_.end());
  grace_.erase(std::remove(grace_.begin(), grace_.end(), job), grace_.end());
  kept_bytes_ -= std::exchange(life.kept_bytes, 0);
}

void JobManager::Impl::Edit(HostedJob& job, absl::FunctionRef<void(v1::Job*)> change) {
  Life& life = LifeOf(job);
  auto next = std::make_shared<v1::Job>(*life.job);
  change(next.get());
  ++life.version;
  *next->mutable_update_time() = ToTimestamp(clock_->Now());
  next->set_etag(absl::StrCat(absl::Hex(Fingerprint(absl::StrCat(job.uid, ":", life.version)))));
  life.job = std::move(next);
}

void JobManager::Impl::SetState(HostedJob& job, v1::Job::State state) {
  Edit(job, [state](v1::Job* edited) { edited->set_state(state); });
}

void JobManager::Impl::MarkFinal(const JobPtr& job, v1::Job::State state,
                                 const v1::Failure* failure) {
  Life& life = LifeOf(*job);
  const absl::Time now = clock_->Now();
  Edit(*job, [&](v1::Job* edited) {
    edited->set_state(state);
    *edited->mutable_end_time() = ToTimestamp(now);
    if (failure != nullptr) *edited->mutable_failure() = *failure;
  });
  if (life.checkpoint != nullptr) life.checkpoint = WithoutTraining(*life.checkpoint);
  life.stop_step = job->GetProgress().step;
  ReleaseAdmission(*job);
  ReleaseData(*job);
  if (life.deleted) return;
  CountKept(*job);
  life.grace_end = now + limits_.grace_period;
  final_.push_back(job);
  grace_.push_back(job);
  timer_->Schedule(life.grace_end, [weak = weak_from_this()] {
    if (const auto impl = weak.lock()) impl->ExpireGrace();
  });
}

void JobManager::Impl::AnnounceFinal(const JobPtr& job) {
  feed_.EndJob(job->number);
  job->log.Close();
  dispatcher_.Post(job);
  job->changes.NotifyAll();
  std::vector<JobPtr> forgotten;
  {
    MutexLock lock(&mu_);
    // Over the limit with no final job left is the next creation's problem.
    MakeRoom(0, &forgotten).IgnoreError();
  }
  AnnounceForgotten(forgotten);
}

void JobManager::Impl::AnnounceForgotten(const std::vector<JobPtr>& jobs) {
  for (const JobPtr& job : jobs) {
    EndAlerts(job);
    feed_.RemoveJob(job->number);
    job->changes.NotifyAll();
  }
}

// --- Alerts of jobs without a worker.

std::string JobManager::Impl::WithStoredRules(const HostedJob& hosted, const v1::Job& job,
                                              const v1::Checkpoint& checkpoint,
                                              RulesAction action) {
  alerts::RuleEngine rules(job);
  GRADWATCH_CHECK(rules.LoadState(checkpoint.rules_state()).ok());
  std::vector<v1::Alert> changed;
  action(&rules, &changed);
  const auto before = feed_.Of(hosted.number);
  feed_.Publish(hosted.number, Publication(rules, changed, *before), changed);
  return rules.SaveState();
}

void JobManager::Impl::EndAlerts(const JobPtr& job) {
  MutexLock rules_lock(&job->rules_mu);
  if (feed_.Of(job->number)->firing == 0) return;
  MutexLock lock(&mu_);
  Life& life = LifeOf(*job);
  if (life.checkpoint == nullptr) return;
  StoreRules(WithStoredRules(*job, *life.job, *life.checkpoint,
                             [this](alerts::RuleEngine* rules, std::vector<v1::Alert>* changed) {
                               rules->EndJob(clock_->Now(), changed);
                             }),
             &life);
}

void JobManager::Impl::StoreRules(std::string state, Life* life) {
  auto checkpoint = std::make_shared<v1::Checkpoint>(*life->checkpoint);
  checkpoint->set_rules_state(std::move(state));
  life->checkpoint = std::move(checkpoint);
}

void JobManager::Impl::ExpireGrace() {
  std::vector<JobPtr> due;
  {
    MutexLock lock(&mu_);
    const absl::Time now = clock_->Now();
    while (!grace_.empty() && LifeOf(*grace_.front()).grace_end <= now) {
      due.push_back(grace_.front());
      grace_.pop_front();
    }
  }
  for (const JobPtr& job : due) EndAlerts(job);
}

// --- What runs on its own.

absl::StatusOr<v1::CheckGradientsResponse> JobManager::Impl::CheckGradients(
    const v1::CheckGradientsRequest& request) {
  constexpr int kEntriesDefault = 20;
  constexpr int kEntriesMax = 1000;
  constexpr double kDifferenceDefault = 1e-5;
  const int entries =
      request.has_entries_per_tensor() ? request.entries_per_tensor() : kEntriesDefault;
  const double difference = request.has_difference() ? request.difference() : kDifferenceDefault;
  std::vector<FieldViolation> violations;
  if (entries < 1 || entries > kEntriesMax) {
    violations.push_back({"entries_per_tensor",
                          absl::StrCat(entries, " is not allowed; allowed: 1 to ", kEntriesMax)});
  }
  if (!(difference >= 1e-8 && difference <= 1e-2)) {
    violations.push_back(
        {"difference", absl::StrCat(difference, " is not allowed; allowed: 1e-08 to 0.01")});
  }
  v1::Job job = RequestedPart(request.job());
  job.mutable_training()->set_precision(v1::Training::PRECISION_FLOAT64);
  if (!job.has_seed()) job.set_seed(SeedOf(""));
  train::FillDefaults(&job);
  ASSIGN_OR_RETURN(const Admission admission, CheckAtDoor(job, std::move(violations)));
  const double work = GradientCheckWork(job, admission.content.get(), entries);
  if (work > static_cast<double>(limits_.check_work_max)) {
    return InvalidFields(
        {{"entries_per_tensor",
          absl::StrCat("the check would take about ", work, " multiply-adds; at most ",
                       static_cast<double>(limits_.check_work_max),
                       " are allowed; lower it, training.batch_size, model.hidden_units or the "
                       "task's time steps")}});
  }
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    if (checks_ >= limits_.checks_max) {
      return Exhausted(
          absl::StrCat(checks_, " gradient checks run; at most ", limits_.checks_max, " may"),
          "TOO_MANY_CHECKS", limits_.checks_max);
    }
    RETURN_IF_ERROR(CheckFree(admission.bytes));
    ++checks_;
    admitted_bytes_ += admission.bytes;
  }
  auto response = train::CheckJobGradients(job, admission.content, entries, difference);
  MutexLock lock(&mu_);
  --checks_;
  admitted_bytes_ -= admission.bytes;
  return response;
}

}  // namespace gradwatch::jobs
