#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/alerts/custom_rule.h"
#include "server/alerts/job_rules.h"
#include "server/alerts/rule_catalogue.h"
#include "server/base/check.h"
#include "server/base/status.h"
#include "server/jobs/errors.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/names.h"

// Alerts of jobs in any state: who looks after them, what is silenced, what other rules would have
// raised, and jobs that finish no step.

namespace gradwatch::jobs {
namespace {

constexpr absl::Duration kProgressCheck = absl::Seconds(1);
constexpr absl::Duration kNoteDurationMax = absl::Hours(24 * 366);
constexpr size_t kAuthorMax = 128;
constexpr size_t kCommentMax = 500;

void CheckText(const std::string& text, absl::string_view field, size_t least, size_t most,
               std::vector<FieldViolation>* violations) {
  if (text.size() >= least && text.size() <= most) return;
  violations->push_back({std::string(field), absl::StrCat("has ", text.size(), " bytes; allowed: ",
                                                          least, " to ", most)});
}

void CheckDuration(const google::protobuf::Duration& duration, absl::string_view field,
                   std::vector<FieldViolation>* violations) {
  const absl::Duration given = FromDuration(duration);
  if (given > absl::ZeroDuration() && given <= kNoteDurationMax) return;
  violations->push_back(
      {std::string(field), absl::StrCat(absl::FormatDuration(given),
                                        " is not allowed; allowed: above 0 and at most 366 days")});
}

// When something that is noted now and holds for `duration` ends.
google::protobuf::Timestamp EndOf(absl::Time now, const google::protobuf::Duration& duration) {
  return ToTimestamp(now + FromDuration(duration));
}

// The job and the number in "jobs/{job}/alerts/{n}".
absl::StatusOr<std::pair<std::string, int64_t>> ParseAlertName(absl::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  int64_t number = 0;
  const bool good = parts.size() == 4 && parts[0] == "jobs" && parts[2] == "alerts" &&
                    absl::SimpleAtoi(parts[3], &number);
  if (good) return std::pair(absl::StrCat(parts[0], "/", parts[1]), number);
  return InvalidFields({{"name", absl::StrCat(Quoted(name), " is not \"jobs/{job}/alerts/{n}\"")}});
}

// What the rules say, with a reason that a program can act on.
absl::Status WithReason(const absl::Status& status) {
  if (status.ok()) return status;
  const bool missing = status.code() == absl::StatusCode::kNotFound;
  return ErrorWithReason(status.code(), std::string(status.message()),
                         missing ? "ALERT_NOT_FOUND" : "ALERT_STATE_CONFLICT", {});
}

// Warm-up and the rest count as they did in the job, so the rules see the steps as they came.
void ReplaySteps(const StepRecords& records, int64_t to_step, alerts::RuleEngine* rules,
                 v1::EvaluateRulesResponse* response) {
  v1::StepStats stats;
  std::vector<v1::Alert> changed;
  for (const StepRecord* record : records) {
    if (record->step > to_step) return;
    GRADWATCH_CHECK(ParseRecord(*record, &stats));
    changed.clear();
    rules->Observe(stats, FromTimestamp(stats.time()), &changed);
    if (response->steps() == 0) response->set_first_step(record->step);
    response->set_last_step(record->step);
    response->set_steps(response->steps() + 1);
  }
}

}  // namespace

absl::StatusOr<JobManager::Impl::JobPtr> JobManager::Impl::FindJob(absl::string_view name,
                                                                   absl::string_view field) const {
  MutexLock lock(&mu_);
  if (stopping_) return ShuttingDown();
  return Find(name, field);
}

void JobManager::Impl::PublishRules(const HostedJob& job, const std::vector<v1::Alert>& changed) {
  const auto before = feed_.Of(job.number);
  feed_.Publish(job.number, Publication(*job.rules, changed, *before), changed);
}

absl::Status JobManager::Impl::WithRules(const JobPtr& job, RulesChange change) {
  MutexLock rules_lock(&job->rules_mu);
  if (job->rules != nullptr) {
    std::vector<v1::Alert> changed;
    RETURN_IF_ERROR(change(job->rules.get(), &changed));
    PublishRules(*job, changed);
    return absl::OkStatus();
  }
  MutexLock lock(&mu_);
  Life& life = LifeOf(*job);
  RETURN_IF_ERROR(CheckAlive(life));
  if (life.checkpoint == nullptr) {
    return StateConflict(life.job->name(), life.job->state(), "has no alerts",
                         "it has not run yet");
  }
  absl::Status status;
  std::string state =
      WithStoredRules(*job, *life.job, *life.checkpoint,
                      [&](alerts::RuleEngine* rules, std::vector<v1::Alert>* changed) {
                        status = change(rules, changed);
                      });
  if (status.ok()) StoreRules(std::move(state), &life);
  return status;
}

// --- Notes on alerts.

absl::StatusOr<v1::Alert> JobManager::Impl::AcknowledgeAlert(
    const v1::AcknowledgeAlertRequest& request) {
  std::vector<FieldViolation> violations;
  CheckText(request.author(), "author", 1, kAuthorMax, &violations);
  CheckText(request.comment(), "comment", 0, kCommentMax, &violations);
  if (request.has_duration()) CheckDuration(request.duration(), "duration", &violations);
  if (!violations.empty()) return InvalidFields(violations);
  ASSIGN_OR_RETURN(const auto parsed, ParseAlertName(request.name()));
  ASSIGN_OR_RETURN(const JobPtr job, FindJob(parsed.first, "name"));
  const absl::Time now = clock_->Now();
  v1::Acknowledgement note;
  note.set_author(request.author());
  note.set_comment(request.comment());
  *note.mutable_create_time() = ToTimestamp(now);
  if (request.has_duration()) *note.mutable_expire_time() = EndOf(now, request.duration());
  v1::Alert alert;
  const absl::Status status =
      WithRules(job, [&](alerts::RuleEngine* rules, std::vector<v1::Alert>* changed) {
        auto noted = rules->Acknowledge(parsed.second, note, changed);
        if (noted.ok()) alert = *std::move(noted);
        return WithReason(noted.status());
      });
  RETURN_IF_ERROR(status);
  return alert;
}

absl::StatusOr<v1::Silence> JobManager::Impl::SilenceRule(const v1::SilenceRuleRequest& request) {
  std::vector<FieldViolation> violations;
  CheckText(request.author(), "author", 1, kAuthorMax, &violations);
  CheckText(request.comment(), "comment", 0, kCommentMax, &violations);
  CheckDuration(request.duration(), "duration", &violations);
  if (!violations.empty()) return InvalidFields(violations);
  ASSIGN_OR_RETURN(const JobPtr job, FindJob(request.job(), "job"));
  const absl::Time now = clock_->Now();
  v1::Silence silence;
  silence.set_job(request.job());
  silence.set_rule_name(request.rule_name());
  silence.set_author(request.author());
  silence.set_comment(request.comment());
  *silence.mutable_create_time() = ToTimestamp(now);
  *silence.mutable_expire_time() = EndOf(now, request.duration());
  RETURN_IF_ERROR(WithRules(job, [&](alerts::RuleEngine* rules, std::vector<v1::Alert>* changed) {
    return WithReason(rules->Silence(silence, changed));
  }));
  return silence;
}

absl::Status JobManager::Impl::DeleteSilence(const v1::DeleteSilenceRequest& request) {
  ASSIGN_OR_RETURN(const JobPtr job, FindJob(request.job(), "job"));
  return WithRules(job, [&](alerts::RuleEngine* rules, std::vector<v1::Alert>* changed) {
    return WithReason(rules->Unsilence(request.rule_name(), changed));
  });
}

absl::StatusOr<v1::ListSilencesResponse> JobManager::Impl::ListSilences(
    const v1::ListSilencesRequest& request) {
  std::vector<JobPtr> jobs;
  if (request.parent() != "jobs/-") {
    ASSIGN_OR_RETURN(JobPtr job, FindJob(request.parent(), "parent"));
    jobs.push_back(std::move(job));
  } else {
    MutexLock lock(&mu_);
    for (const auto& [number, job] : newest_first_) jobs.push_back(job);
  }
  const absl::Time now = clock_->Now();
  v1::ListSilencesResponse response;
  for (const JobPtr& job : jobs) {
    for (const v1::Silence& silence : feed_.Of(job->number)->silences) {
      if (FromTimestamp(silence.expire_time()) > now) *response.add_silences() = silence;
    }
  }
  return response;
}

// --- Rules.

absl::StatusOr<v1::ListRulesResponse> JobManager::Impl::ListRules(
    const v1::ListRulesRequest& request) {
  std::vector<v1::Rule> rules = alerts::RuleCatalogue();
  if (!request.job().empty()) {
    ASSIGN_OR_RETURN(const JobPtr job, FindJob(request.job(), "job"));
    MutexLock lock(&mu_);
    rules = alerts::RulesOf(*LifeOf(*job).job);
  }
  v1::ListRulesResponse response;
  for (v1::Rule& rule : rules) *response.add_rules() = std::move(rule);
  return response;
}

// --- Replay.

absl::StatusOr<v1::EvaluateRulesResponse> JobManager::Impl::EvaluateRules(
    const v1::EvaluateRulesRequest& request) {
  constexpr int kChunkSteps = 4096;
  ASSIGN_OR_RETURN(const JobPtr hosted, FindJob(request.name(), "name"));
  v1::Job job;
  {
    MutexLock lock(&mu_);
    job = *LifeOf(*hosted).job;
  }
  *job.mutable_rules() = request.rules();
  *job.mutable_custom_rules() = request.custom_rules();
  std::vector<alerts::SettingsProblem> problems;
  alerts::CheckRuleSettings(job.rules(), "rules", &problems);
  alerts::CheckCustomRules(job, "custom_rules", &problems);
  std::vector<FieldViolation> violations;
  for (const auto& problem : problems) violations.push_back({problem.field, problem.description});
  if (request.from_step() < 0) {
    violations.push_back(
        {"from_step", absl::StrCat(request.from_step(), " is not allowed; steps count from 0")});
  }
  if (request.has_to_step() && request.to_step() < request.from_step()) {
    violations.push_back(
        {"to_step", absl::StrCat(request.to_step(), " is below from_step, ", request.from_step())});
  }
  if (!violations.empty()) return InvalidFields(violations);

  alerts::RuleEngine rules(job);
  v1::EvaluateRulesResponse response;
  const StepLog& log = hosted->log;
  const int64_t newest = log.newest_step();
  const int64_t to = request.has_to_step() ? std::min(request.to_step(), newest) : newest;
  for (int64_t next = std::max(request.from_step(), log.oldest_step()); next <= to;) {
    const auto records = log.Read(next, kChunkSteps, std::numeric_limits<int64_t>::max());
    if (records.ok() && records->empty()) break;
    if (records.ok()) ReplaySteps(*records, to, &rules, &response);
    // What was forgotten meanwhile is left out.
    next = records.ok() ? records->back()->step + 1 : log.oldest_step();
  }
  for (v1::Alert alert : rules.alerts()) {
    alert.clear_name();
    *response.add_alerts() = std::move(alert);
  }
  response.set_forgotten(rules.forgotten());
  return response;
}

// --- Jobs that finish no step.

void JobManager::Impl::ScheduleProgressCheck() {
  timer_->Schedule(clock_->Now() + kProgressCheck, [weak = weak_from_this()] {
    const auto impl = weak.lock();
    if (impl == nullptr) return;
    impl->CheckProgress();
    impl->ScheduleProgressCheck();
  });
}

void JobManager::Impl::CheckProgress() {
  std::vector<JobPtr> jobs;
  {
    MutexLock lock(&mu_);
    for (const auto& [number, job] : newest_first_) {
      if (LifeOf(*job).with_worker) jobs.push_back(job);
    }
  }
  std::vector<v1::Alert> changed;
  for (const JobPtr& job : jobs) {
    MutexLock lock(&job->rules_mu);
    if (job->rules == nullptr) continue;
    changed.clear();
    job->rules->CheckProgress(clock_->Now(), &changed);
    if (!changed.empty()) PublishRules(*job, changed);
  }
}

}  // namespace gradwatch::jobs
