#include "server/jobs/stats_reader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/status.h"

namespace gradwatch::jobs {
namespace {

absl::StatusOr<absl::Duration> IntervalOf(const v1::StreamStatsRequest& request) {
  if (!request.has_min_interval()) return absl::ZeroDuration();
  const google::protobuf::Duration& asked = request.min_interval();
  const absl::Duration interval = FromDuration(asked);
  if (interval < absl::ZeroDuration() || interval > LogReader::kIntervalMax) {
    return InvalidFields(
        {{"min_interval",
          absl::StrCat(absl::FormatDuration(interval), " is not allowed; allowed: 0 to ",
                       absl::FormatDuration(LogReader::kIntervalMax))}});
  }
  return interval;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LogReader>> LogReader::Open(const v1::StreamStatsRequest& request,
                                                           Source source,
                                                           absl::AnyInvocable<void()> notify) {
  ASSIGN_OR_RETURN(const absl::Duration interval, IntervalOf(request));
  if (request.has_from_step() && request.from_step() < 0) {
    return InvalidFields(
        {{"from_step", absl::StrCat(request.from_step(), " is not allowed; steps count from 0")}});
  }
  if (request.has_from_step()) {
    RETURN_IF_ERROR(source.log->Read(request.from_step(), 1, 1).status());
  }
  return std::unique_ptr<LogReader>(
      new LogReader(request, interval, std::move(source), std::move(notify)));
}

LogReader::LogReader(const v1::StreamStatsRequest& request, absl::Duration min_interval,
                     Source source, absl::AnyInvocable<void()> notify)
    : lossless_(request.lossless()),
      history_only_(request.history_only()),
      min_interval_(min_interval),
      source_(std::move(source)),
      history_end_(source_.log->newest_step()),
      notify_(std::make_shared<Callback>(std::move(notify))) {
  next_ = request.has_from_step() ? request.from_step() : history_end_ + 1;
  registration_ = source_.changes->Add([callback = notify_] { callback->Run(); });
}

LogReader::~LogReader() {
  registration_.reset();
  alarm_.reset();
  waiter_.reset();
  notify_->Cancel();
}

absl::StatusOr<bool> LogReader::Read(JobManager::StatsPortion* portion) {
  *portion = JobManager::StatsPortion();
  if (done_) return false;
  RETURN_IF_ERROR(source_.alive());
  // In this order: nothing is appended after the log was closed.
  const bool ends = history_only_ || source_.log->closed();
  const int64_t last = history_only_ ? history_end_ : source_.log->newest_step();
  const bool has_steps = next_ <= last;
  if (!has_steps && !ends) {
    AwaitStep();
    return false;
  }
  if (has_steps && decimates() && !ends && source_.clock->Now() < due_) {
    AwaitInterval();
    return false;
  }
  if (has_steps) {
    RETURN_IF_ERROR(decimates() ? FoldSteps(last, portion) : ReadSteps(last, portion));
    if (decimates()) due_ = source_.clock->Now() + min_interval_;
  }
  if (ends && next_ > last) {
    portion->final_job = std::make_unique<v1::Job>(source_.job_now());
    done_ = true;
  }
  return true;
}

absl::Status LogReader::ReadSteps(int64_t last, JobManager::StatsPortion* portion) {
  const bool live = next_ > history_end_;
  if (live && !lossless_ && last - next_ >= kLagMax) {
    const int64_t resume = last + 1 - kResumeSteps;
    portion->dropped_before += resume - next_;
    next_ = resume;
  }
  const auto wanted = static_cast<int>(std::min<int64_t>(kPortionSteps, last - next_ + 1));
  ASSIGN_OR_RETURN(portion->steps, ReadKept(wanted, portion));
  next_ += static_cast<int64_t>(portion->steps.size());
  return absl::OkStatus();
}

absl::Status LogReader::FoldSteps(int64_t last, JobManager::StatsPortion* portion) {
  std::shared_ptr<const StepRecord> newest;
  while (next_ <= last) {
    const auto wanted = static_cast<int>(std::min<int64_t>(kPortionSteps, last - next_ + 1));
    ASSIGN_OR_RETURN(const auto records, ReadKept(wanted, portion));
    if (records.empty()) break;
    if (newest != nullptr) Fold(*newest, &portion->folded);
    for (size_t i = 0; i + 1 < records.size(); ++i) Fold(*records[i], &portion->folded);
    newest = records.Share(records.size() - 1);
    next_ += static_cast<int64_t>(records.size());
  }
  if (newest != nullptr) portion->steps.Add(std::move(newest));
  return absl::OkStatus();
}

// From next_ on. What is no longer kept is an error for a lossless reader and counted as dropped
// for another.
absl::StatusOr<StepRecords> LogReader::ReadKept(int steps_max, JobManager::StatsPortion* portion) {
  for (;;) {
    auto records = source_.log->Read(next_, steps_max, kPortionBytes);
    if (records.ok() || lossless_) return records;
    const int64_t oldest = source_.log->oldest_step();
    portion->dropped_before += oldest - next_;
    next_ = oldest;
  }
}

void LogReader::AwaitStep() {
  if (listening_.exchange(true)) return;
  waiter_.reset();
  waiter_ = source_.log->Listen(next_, [this] {
    listening_ = false;
    notify_->Run();
  });
}

void LogReader::AwaitInterval() {
  alarm_ = source_.timer->At(due_, [callback = notify_] { callback->Run(); });
}

}  // namespace gradwatch::jobs
