#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/check.h"
#include "server/base/status.h"
#include "server/jobs/errors.h"
#include "server/jobs/job_filter.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/names.h"
#include "server/jobs/shadow_summary.h"
#include "server/jobs/stats_reader.h"

// Reading: single jobs, lists, history, alerts, streams, and what the metrics show.

namespace gradwatch::jobs {

const std::vector<double>& StepDurationBounds() {
  static const auto* const bounds =
      new std::vector<double>{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05,
                              0.1,  0.25,   0.5,  1.0,  2.5,    5.0,  10.0, 30.0};
  return *bounds;
}

// --- Jobs.

JobManager::Impl::View JobManager::Impl::Look(const JobPtr& job) const {
  const Life& life = LifeOf(*job);
  View view{job, life.job, 0};
  if (life.job->state() != v1::Job::STATE_QUEUED) return view;
  const auto place = std::lower_bound(
      queue_.begin(), queue_.end(), life.queue_number,
      [this](const JobPtr& queued, int64_t number)
          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return LifeOf(*queued).queue_number < number; });
  view.queue_position = static_cast<int>(place - queue_.begin()) + 1;
  return view;
}

v1::Job JobManager::Impl::Assemble(const View& view) const {
  return Assemble(view, view.hosted->GetProgress());
}

v1::Job JobManager::Impl::Assemble(const View& view, const Progress& progress) const {
  v1::Job job = *view.job;
  job.set_step(progress.step);
  job.set_updates_applied(progress.updates_applied);
  job.set_nonfinite_steps(progress.nonfinite_steps);
  if (progress.step > 0) {
    job.set_clip_rate(static_cast<double>(progress.clipped_steps) /
                      static_cast<double>(progress.step));
  }
  for (int i = 0; i < job.shadow_clips_size(); ++i) {
    const auto at = static_cast<size_t>(i);
    *job.add_shadow_summaries() =
        ShadowSummaryOf(job.shadow_clips(i), progress.shadow_clipped_steps[at],
                        progress.shadow_coefficients[at], progress.step);
  }
  if (progress.latest != nullptr) {
    GRADWATCH_CHECK(ParseScalars(*progress.latest, job.mutable_latest_stats()));
  }
  if (progress.latest_evaluation != nullptr) {
    *job.mutable_latest_evaluation() = *progress.latest_evaluation;
  }
  if (progress.best_evaluation != nullptr) {
    *job.mutable_best_evaluation() = *progress.best_evaluation;
  }
  job.set_alerts_firing(feed_.Of(view.hosted->number)->firing);
  job.set_queue_position(view.queue_position);
  job.set_interventions(view.hosted->interventions.total());
  if (const auto newest = view.hosted->interventions.newest()) {
    *job.mutable_latest_intervention() = *newest;
  }
  return job;
}

v1::Job JobManager::Impl::AssembleNow(const JobPtr& job) const {
  View view;
  {
    MutexLock lock(&mu_);
    view = Look(job);
  }
  return Assemble(view);
}

absl::StatusOr<v1::Job> JobManager::Impl::Get(absl::string_view name) {
  ExpireGrace();
  View view;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const JobPtr job, Find(name));
    view = Look(job);
  }
  return Assemble(view);
}

absl::StatusOr<v1::ListJobsResponse> JobManager::Impl::List(const v1::ListJobsRequest& request) {
  const std::string query = absl::StrCat("jobs?filter=", request.filter());
  ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  ASSIGN_OR_RETURN(const JobFilter filter, JobFilter::Parse(request.filter()));
  ASSIGN_OR_RETURN(const std::vector<int64_t> position,
                   PagePosition(request.page_token(), query, 1));
  ExpireGrace();
  std::vector<View> views;
  bool more = false;
  {
    MutexLock lock(&mu_);
    // Newest first, so what follows has lower numbers.
    auto next = position.empty() ? newest_first_.begin() : newest_first_.upper_bound(position[0]);
    for (; next != newest_first_.end() && !more; ++next) {
      if (!filter.Matches(*LifeOf(*next->second).job)) continue;
      if (static_cast<int>(views.size()) < size) {
        views.push_back(Look(next->second));
      } else {
        more = true;
      }
    }
  }
  v1::ListJobsResponse response;
  for (const View& view : views) *response.add_jobs() = Assemble(view);
  if (more) response.set_next_page_token(PageToken(query, {views.back().hosted->number}));
  return response;
}

// --- History.

absl::StatusOr<v1::QueryStatsResponse> JobManager::Impl::QueryStats(
    const v1::QueryStatsRequest& request) {
  constexpr int kPointsDefault = 200;
  constexpr int kPointsMax = 10'000;
  constexpr int kChunkSteps = 4096;
  std::vector<FieldViolation> violations;
  const int points = request.has_points() ? request.points() : kPointsDefault;
  if (points < 1 || points > kPointsMax) {
    violations.push_back(
        {"points", absl::StrCat(points, " is not allowed; allowed: 1 to ", kPointsMax)});
  }
  if (request.from_step() < 0) {
    violations.push_back(
        {"from_step", absl::StrCat(request.from_step(), " is not allowed; steps count from 0")});
  }
  if (request.has_to_step() && request.to_step() < request.from_step()) {
    violations.push_back(
        {"to_step", absl::StrCat(request.to_step(), " is below from_step, ", request.from_step())});
  }
  JobPtr job;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(job, Find(request.name()));
  }
  if (!violations.empty()) return InvalidFields(violations);

  v1::QueryStatsResponse response;
  const int64_t newest = job->log.newest_step();
  const int64_t oldest = job->log.oldest_step();
  response.set_oldest_step(oldest);
  response.set_newest_step(newest);
  const int64_t asked_to =
      request.has_to_step() ? request.to_step() : std::numeric_limits<int64_t>::max();
  const int64_t from = std::max(request.from_step(), oldest);
  const int64_t to = std::min(asked_to, newest);
  const int64_t width = to >= from ? (to - from) / points + 1 : 1;

  int64_t bucket = -1;
  for (int64_t next = from; next <= to;) {
    const auto wanted = static_cast<int>(std::min<int64_t>(kChunkSteps, to - next + 1));
    const auto records = job->log.Read(next, wanted, std::numeric_limits<int64_t>::max());
    if (!records.ok()) {
      // Forgotten meanwhile: go on with what is kept.
      next = job->log.oldest_step();
      response.set_oldest_step(next);
      continue;
    }
    if (records->empty()) break;
    for (const auto& record : *records) {
      const int64_t index = (record->step - from) / width;
      if (index != bucket) response.add_buckets();
      bucket = index;
      Fold(*record, response.mutable_buckets(response.buckets_size() - 1));
      if (!record->evaluated) continue;
      v1::StepStats stats;
      GRADWATCH_CHECK(ParseScalars(*record, &stats));
      *response.add_evaluations() = stats.evaluation();
    }
    next = records->back()->step + 1;
  }
  // The one at the end belongs to no step.
  const Progress progress = job->GetProgress();
  const auto& last = progress.latest_evaluation;
  if (last != nullptr && last->step() > newest && last->step() >= request.from_step() &&
      last->step() <= asked_to) {
    *response.add_evaluations() = *last;
  }
  return response;
}

// --- Interventions.

absl::StatusOr<v1::ListInterventionsResponse> JobManager::Impl::ListInterventions(
    const v1::ListInterventionsRequest& request) {
  const std::string query = absl::StrCat("interventions?parent=", request.parent());
  ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  ASSIGN_OR_RETURN(const std::vector<int64_t> position,
                   PagePosition(request.page_token(), query, 1));
  JobPtr job;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(job, Find(request.parent(), "parent"));
  }
  const int64_t after = position.empty() ? 0 : position[0];
  // One more tells whether there is a next page.
  const auto view = job->interventions.After(after, static_cast<size_t>(size) + 1);
  v1::ListInterventionsResponse response;
  response.set_forgotten(view.forgotten);
  const size_t shown = std::min(view.kept.size(), static_cast<size_t>(size));
  for (size_t i = 0; i < shown; ++i) *response.add_interventions() = *view.kept[i];
  if (shown < view.kept.size()) {
    const int64_t last = std::max(after, view.forgotten) + static_cast<int64_t>(shown);
    response.set_next_page_token(PageToken(query, {last}));
  }
  return response;
}

// --- Alerts.

namespace {

// An alert's place in a list: when it fired, its job, its number within the job.
using AlertPlace = std::tuple<int64_t, int64_t, int64_t>;

AlertPlace PlaceOf(const v1::Alert& alert, int64_t job) {
  int64_t number = 0;
  const std::vector<absl::string_view> parts = absl::StrSplit(alert.name(), '/');
  if (!absl::SimpleAtoi(parts.back(), &number)) number = 0;
  return {absl::ToUnixNanos(FromTimestamp(alert.fire_time())), job, number};
}

bool IsAsked(const v1::Alert& alert, v1::Alert::State asked) {
  return asked == v1::Alert::STATE_UNSPECIFIED || alert.state() == asked;
}

}  // namespace

absl::StatusOr<v1::ListAlertsResponse> JobManager::Impl::ListAlerts(
    const v1::ListAlertsRequest& request) {
  const std::string query =
      absl::StrCat("alerts?parent=", request.parent(), "&state=", request.state());
  ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  if (!v1::Alert::State_IsValid(request.state())) {
    return InvalidFields({{"state", absl::StrCat(static_cast<int>(request.state()),
                                                 " is not allowed; allowed: STATE_PENDING, "
                                                 "STATE_FIRING, STATE_RESOLVED")}});
  }
  ASSIGN_OR_RETURN(const std::vector<int64_t> position,
                   PagePosition(request.page_token(), query, 3));
  ExpireGrace();
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    if (request.parent() == "jobs/-") {
      for (const auto& [number, job] : newest_first_) jobs.push_back(job);
    } else {
      ASSIGN_OR_RETURN(JobPtr job, Find(request.parent(), "parent"));
      jobs.push_back(std::move(job));
    }
  }

  v1::ListAlertsResponse response;
  std::vector<std::pair<AlertPlace, JobAlerts::AlertPtr>> found;
  for (const JobPtr& job : jobs) {
    const auto published = feed_.Of(job->number);
    response.set_forgotten(response.forgotten() + published->forgotten);
    const bool pending = request.state() == v1::Alert::STATE_PENDING;
    for (const auto& alert : pending ? published->pending : published->alerts) {
      const AlertPlace place = PlaceOf(*alert, job->number);
      if (!IsAsked(*alert, request.state())) continue;
      if (!position.empty() && place >= AlertPlace(position[0], position[1], position[2])) continue;
      found.emplace_back(place, alert);
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const size_t shown = std::min(found.size(), static_cast<size_t>(size));
  for (size_t i = 0; i < shown; ++i) *response.add_alerts() = *found[i].second;
  if (shown < found.size()) {
    const auto& [time, job, number] = found[shown - 1].first;
    response.set_next_page_token(PageToken(query, {time, job, number}));
  }
  return response;
}

// --- Streams.

absl::StatusOr<std::unique_ptr<JobManager::StatsReader>> JobManager::Impl::OpenStats(
    const v1::StreamStatsRequest& request, absl::AnyInvocable<void()> notify) {
  JobPtr job;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(request.name()));
  }
  // The reader keeps both alive.
  const auto impl = shared_from_this();
  LogReader::Source source;
  source.log = &job->log;
  source.changes = &job->changes;
  source.alive = [impl, job] {
    MutexLock lock(&impl->mu_);
    return impl->CheckAlive(impl->LifeOf(*job));
  };
  source.job_now = [impl, job] { return impl->AssembleNow(job); };
  source.owner = job;
  source.timer = timer_;
  source.clock = clock_;
  return LogReader::Open(request, std::move(source), std::move(notify));
}

// Shows a job whenever its version changed.
class JobManager::Impl::StateReader final : public JobManager::JobReader {
 public:
  StateReader(std::shared_ptr<Impl> impl, JobPtr job, absl::AnyInvocable<void()> notify)
      : impl_(std::move(impl)),
        job_(std::move(job)),
        registration_(job_->changes.Add(std::move(notify))) {}

  absl::StatusOr<bool> Read(v1::Job* job) override {
    View view;
    {
      MutexLock lock(&impl_->mu_);
      const Life& life = impl_->LifeOf(*job_);
      RETURN_IF_ERROR(impl_->CheckAlive(life));
      if (life.version == seen_) return false;
      seen_ = life.version;
      view = impl_->Look(job_);
    }
    *job = impl_->Assemble(view);
    return true;
  }

 private:
  const std::shared_ptr<Impl> impl_;
  const JobPtr job_;
  int64_t seen_ = 0;
  const std::unique_ptr<NotifyHub::Registration> registration_;
};

absl::StatusOr<std::unique_ptr<JobManager::JobReader>> JobManager::Impl::OpenJob(
    absl::string_view name, absl::AnyInvocable<void()> notify) {
  JobPtr job;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    ASSIGN_OR_RETURN(job, Find(name));
  }
  return std::make_unique<StateReader>(shared_from_this(), std::move(job), std::move(notify));
}

namespace {

class FeedReader final : public JobManager::AlertReader {
 public:
  explicit FeedReader(std::unique_ptr<AlertFeed::Reader> reader) : reader_(std::move(reader)) {}

  absl::StatusOr<Outcome> Read(v1::Alert* alert, int64_t* dropped_before) override {
    ASSIGN_OR_RETURN(const AlertFeed::Reader::Outcome outcome,
                     reader_->Read(alert, dropped_before));
    switch (outcome) {
      case AlertFeed::Reader::Outcome::kAlert:
        return Outcome::kAlert;
      case AlertFeed::Reader::Outcome::kEnd:
        return Outcome::kEnd;
      case AlertFeed::Reader::Outcome::kNothing:
        break;
    }
    return Outcome::kNothing;
  }

 private:
  const std::unique_ptr<AlertFeed::Reader> reader_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<JobManager::AlertReader>> JobManager::Impl::OpenAlerts(
    absl::string_view parent, absl::AnyInvocable<void()> notify) {
  int64_t number = AlertFeed::kAllJobs;
  {
    MutexLock lock(&mu_);
    if (stopping_) return ShuttingDown();
    if (parent != "jobs/-") {
      ASSIGN_OR_RETURN(const JobPtr job, Find(parent, "parent"));
      number = job->number;
    }
  }
  return std::make_unique<FeedReader>(feed_.Open(number, std::move(notify)));
}

// --- Metrics.

JobSnapshot JobManager::Impl::Snapshot(const View& view) const {
  const absl::Time now = clock_->Now();
  const HostedJob& hosted = *view.hosted;
  JobSnapshot snapshot;
  Progress progress;
  {
    MutexLock lock(&hosted.progress_mu);
    progress = hosted.progress;
    const ValueRecords& values = hosted.values;
    snapshot.loss = values.loss.At(now);
    snapshot.norm_before = values.norm_before.At(now);
    snapshot.norm_after = values.norm_after.At(now);
    snapshot.growth_factor = values.growth_factor.At(now);
    snapshot.update_ratio = values.update_ratio.At(now);
    snapshot.gradient_cosine = values.gradient_cosine.At(now);
  }
  snapshot.job = Assemble(view, progress);
  snapshot.noise_scale = progress.noise_scale;
  snapshot.clipped_steps = progress.clipped_steps;
  snapshot.nonfinite_entries = progress.nonfinite_entries;
  snapshot.last_step_time = progress.last_step_time;
  const auto published = feed_.Of(hosted.number);
  for (const auto& alert : published->alerts) {
    const bool recent = alert->state() == v1::Alert::STATE_FIRING ||
                        now - FromTimestamp(alert->resolve_time()) < limits_.grace_period;
    const bool silenced =
        alert->has_silenced_until() && now < FromTimestamp(alert->silenced_until());
    if (recent && !silenced) snapshot.alerts.push_back(*alert);
  }
  for (const auto& [key, count] : published->fired) {
    snapshot.alerts_total.push_back({key.first, key.second, count});
  }
  snapshot.interventions_total = hosted.interventions.CountByKind();
  return snapshot;
}

std::vector<JobSnapshot> JobManager::Impl::Snapshots() {
  ExpireGrace();
  std::vector<View> running, others;
  {
    MutexLock lock(&mu_);
    const absl::Time now = clock_->Now();
    for (const auto& [number, job] : newest_first_) {
      const Life& life = LifeOf(*job);
      if (life.grace_end <= now) continue;
      (life.with_worker ? running : others).push_back(Look(job));
    }
  }
  std::vector<JobSnapshot> snapshots;
  snapshots.reserve(running.size() + others.size());
  for (const View& view : running) snapshots.push_back(Snapshot(view));
  for (const View& view : others) snapshots.push_back(Snapshot(view));
  return snapshots;
}

std::vector<int64_t> JobManager::Impl::CountByState() {
  std::vector<int64_t> counts(v1::Job::State_ARRAYSIZE, 0);
  MutexLock lock(&mu_);
  for (const auto& [number, job] : newest_first_) {
    ++counts[static_cast<size_t>(LifeOf(*job).job->state())];
  }
  return counts;
}

Totals JobManager::Impl::GetTotals() {
  Totals totals;
  for (const auto& count : step_duration_counts_) totals.step_duration_counts.push_back(count);
  totals.step_duration_sum_seconds = step_duration_sum_seconds_;
  return totals;
}

void JobManager::Impl::CountStep(double seconds) {
  const std::vector<double>& bounds = StepDurationBounds();
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), seconds) - bounds.begin();
  step_duration_counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  step_duration_sum_seconds_.fetch_add(seconds, std::memory_order_relaxed);
}

}  // namespace gradwatch::jobs
