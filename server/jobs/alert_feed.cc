#include "server/jobs/alert_feed.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "proto/support/errors.h"
#include "server/jobs/errors.h"

namespace gradwatch::jobs {
namespace {

// Whether a changed alert began to fire, or rose, or is no longer silenced while it fires; not when
// something was noted on it.
bool Counts(const v1::Alert& alert, const JobAlerts& before) {
  if (alert.state() != v1::Alert::STATE_FIRING || alert.has_silenced_until()) return false;
  const auto same = std::find_if(before.alerts.begin(), before.alerts.end(),
                                 [&](const auto& old) { return old->name() == alert.name(); });
  if (same == before.alerts.end()) return true;
  const v1::Alert& old = **same;
  return old.state() != alert.state() || old.severity() != alert.severity() ||
         old.count() != alert.count() || old.has_silenced_until();
}

}  // namespace

std::shared_ptr<const JobAlerts> Publication(const alerts::RuleEngine& rules,
                                             const std::vector<v1::Alert>& changed,
                                             const JobAlerts& before) {
  absl::flat_hash_map<absl::string_view, JobAlerts::AlertPtr> settled;
  for (const auto& alert : before.alerts) {
    if (alert->state() == v1::Alert::STATE_RESOLVED) settled.emplace(alert->name(), alert);
  }
  for (const v1::Alert& alert : changed) settled.erase(alert.name());

  auto next = std::make_shared<JobAlerts>();
  next->fired = before.fired;
  for (const v1::Alert& alert : changed) {
    if (Counts(alert, before)) ++next->fired[{alert.rule_name(), alert.severity()}];
  }
  for (const v1::Alert& alert : rules.alerts()) {
    const auto found = settled.find(alert.name());
    next->alerts.push_back(found != settled.end() ? found->second
                                                  : std::make_shared<const v1::Alert>(alert));
  }
  for (v1::Alert& alert : rules.pending()) {
    next->pending.push_back(std::make_shared<const v1::Alert>(std::move(alert)));
  }
  next->silences = rules.silences();
  next->forgotten = rules.forgotten();
  next->firing = rules.firing();
  return next;
}

void AlertFeed::AddJob(int64_t job) {
  MutexLock lock(&shared_->mu);
  shared_->jobs.try_emplace(job);
}

void AlertFeed::Publish(int64_t job, std::shared_ptr<const JobAlerts> alerts,
                        const std::vector<v1::Alert>& changed) {
  {
    MutexLock lock(&shared_->mu);
    const auto found = shared_->jobs.find(job);
    if (found == shared_->jobs.end()) return;
    found->second.alerts = std::move(alerts);
    for (const v1::Alert& alert : changed) {
      if (alert.has_silenced_until()) continue;
      const auto shared_alert = std::make_shared<const v1::Alert>(alert);
      for (const auto& subscription : shared_->subscriptions) {
        if (subscription->job != job && subscription->job != kAllJobs) continue;
        subscription->changes.push_back(shared_alert);
        if (subscription->changes.size() <= kReaderChangesMax) continue;
        subscription->changes.pop_front();
        ++subscription->dropped;
      }
    }
  }
  if (!changed.empty()) Notify(job);
}

void AlertFeed::EndJob(int64_t job) {
  {
    MutexLock lock(&shared_->mu);
    const auto found = shared_->jobs.find(job);
    if (found != shared_->jobs.end()) found->second.ended = true;
  }
  Notify(job);
}

void AlertFeed::RemoveJob(int64_t job) {
  {
    MutexLock lock(&shared_->mu);
    shared_->jobs.erase(job);
  }
  Notify(job);
}

void AlertFeed::Stop() {
  {
    MutexLock lock(&shared_->mu);
    shared_->stopped = true;
  }
  Notify(kAllJobs);
}

// kAllJobs reaches every reader, a job its own and those of all.
void AlertFeed::Notify(int64_t job) {
  std::vector<std::shared_ptr<Subscription>> concerned;
  {
    MutexLock lock(&shared_->mu);
    for (const auto& subscription : shared_->subscriptions) {
      if (job == kAllJobs || subscription->job == job || subscription->job == kAllJobs) {
        concerned.push_back(subscription);
      }
    }
  }
  for (const auto& subscription : concerned) subscription->callback.Run();
}

std::shared_ptr<const JobAlerts> AlertFeed::Of(int64_t job) const {
  MutexLock lock(&shared_->mu);
  const auto found = shared_->jobs.find(job);
  return found != shared_->jobs.end() ? found->second.alerts : std::make_shared<JobAlerts>();
}

std::unique_ptr<AlertFeed::Reader> AlertFeed::Open(int64_t job, absl::AnyInvocable<void()> notify) {
  auto subscription = std::make_shared<Subscription>(job, std::move(notify));
  MutexLock lock(&shared_->mu);
  for (const auto& [number, published] : shared_->jobs) {
    if (job != kAllJobs && job != number) continue;
    for (const auto& alert : published.alerts->alerts) {
      if (alert->state() == v1::Alert::STATE_FIRING) subscription->changes.push_back(alert);
    }
  }
  shared_->subscriptions.push_back(subscription);
  return std::unique_ptr<Reader>(new Reader(shared_, std::move(subscription)));
}

AlertFeed::Reader::~Reader() {
  {
    MutexLock lock(&shared_->mu);
    auto& all = shared_->subscriptions;
    all.erase(std::remove(all.begin(), all.end(), subscription_), all.end());
  }
  subscription_->callback.Cancel();
}

absl::StatusOr<AlertFeed::Reader::Outcome> AlertFeed::Reader::Read(v1::Alert* alert,
                                                                   int64_t* dropped_before) {
  JobAlerts::AlertPtr next;
  {
    MutexLock lock(&shared_->mu);
    if (shared_->stopped) return ShuttingDown();
    const auto job = shared_->jobs.find(subscription_->job);
    const bool all = subscription_->job == kAllJobs;
    if (!all && job == shared_->jobs.end()) return JobDeleted();
    if (subscription_->changes.empty()) {
      return !all && job->second.ended ? Outcome::kEnd : Outcome::kNothing;
    }
    next = std::move(subscription_->changes.front());
    subscription_->changes.pop_front();
    *dropped_before = std::exchange(subscription_->dropped, 0);
  }
  *alert = *next;
  return Outcome::kAlert;
}

}  // namespace gradwatch::jobs
