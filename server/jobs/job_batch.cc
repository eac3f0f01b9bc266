#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "server/base/check.h"
#include "server/base/status.h"
#include "server/data/faulty_source.h"
#include "server/data/source.h"
#include "server/jobs/errors.h"
#include "server/jobs/job_manager_impl.h"
#include "server/jobs/names.h"
#include "server/jobs/training_batch.h"

// The batch of a recorded step, made again.

namespace gradwatch::jobs {
namespace {

constexpr int kExamplesDefault = 4;
constexpr int kExamplesMax = 1000;
// What every client takes, with room to spare.
constexpr int64_t kExamplesBytesMax = 3 << 20;

absl::Status CheckRequest(const v1::GetBatchRequest& request) {
  std::vector<FieldViolation> violations;
  if (request.step() < 0) {
    violations.push_back(
        {"step", absl::StrCat(request.step(), " is not allowed; steps count from 0")});
  }
  if (request.examples_max() < 0) {
    violations.push_back({"examples_max", absl::StrCat(request.examples_max(),
                                                       " is not allowed; allowed: 0 and up")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

// StepStats.batch_origin of a step.
absl::StatusOr<int64_t> OriginOf(absl::string_view name, int64_t step, const StepLog& log) {
  ASSIGN_OR_RETURN(const StepRecords records,
                   log.Read(step, 1, std::numeric_limits<int64_t>::max()));
  if (records.empty()) {
    const int64_t newest = log.newest_step();
    return ErrorWithReason(
        absl::StatusCode::kOutOfRange,
        absl::StrCat("step ", step, " of ", name, " is not recorded; ",
                     newest < 0 ? "no step is yet" : absl::StrCat("the newest is step ", newest)),
        "STEP_NOT_RECORDED", {{"step", absl::StrCat(step)}, {"newest_step", absl::StrCat(newest)}});
  }
  v1::StepStats stats;
  GRADWATCH_CHECK(ParseScalars(*records.front(), &stats));
  return stats.batch_origin();
}

// How many batches roll backs may have left out before `step`, likeliest first. More than one
// number only where the log has forgotten roll backs of which it is not known when they were.
std::vector<int64_t> LeftOutBefore(int64_t step, const InterventionLog& log, int64_t each) {
  const InterventionLog::View view = log.After(0, InterventionLog::kKeptMax);
  int64_t left_out = 0, kept = 0;
  for (const InterventionLog::Entry& entry : view.kept) {
    if (entry->kind() != v1::Intervention::KIND_ROLL_BACK) continue;
    ++kept;
    if (entry->step() < step) left_out += entry->batches_skipped();
  }
  if (view.forgotten == 0) return {left_out};
  std::vector<int64_t> numbers;
  for (int64_t forgotten = log.CountByKind()[v1::Intervention::KIND_ROLL_BACK] - kept;
       forgotten >= 0; --forgotten) {
    numbers.push_back(left_out + forgotten * each);
  }
  return numbers;
}

using Content = std::shared_ptr<const data::DatasetContent>;

// The batch whose first row comes from `origin`. Throws std::bad_alloc.
absl::StatusOr<v1::TrainingBatch> MakeAgain(const v1::GetBatchRequest& request, int64_t origin,
                                            const v1::Job& job, const Content& content,
                                            const std::vector<int64_t>& left_out) {
  ASSIGN_OR_RETURN(const std::unique_ptr<data::Source> source, data::NewSource(job, content));
  Batch batch;
  for (const int64_t more : left_out) {
    const int64_t number = request.step() + more;
    source->Seek(number);
    source->NextBatch(&batch);
    if (*std::min_element(batch.origins.begin(), batch.origins.end()) != origin) continue;
    v1::TrainingBatch shown;
    shown.set_step(request.step());
    shown.set_batch_origin(origin);
    shown.set_spoilt(job.has_fault_injection() && data::IsSpoilt(job.fault_injection(), number));
    const int examples = request.examples_max() == 0
                             ? kExamplesDefault
                             : std::min(request.examples_max(), kExamplesMax);
    ShowBatch(batch, source->shape(), job.task().has_language() ? content.get() : nullptr, examples,
              kExamplesBytesMax, &shown);
    return shown;
  }
  return absl::InternalError(absl::StrCat("step ", request.step(), " of ", request.name(),
                                          " recorded origin ", origin,
                                          ", which no batch has that it can have read"));
}

}  // namespace

absl::StatusOr<Content> JobManager::Impl::ContentOf(const JobPtr& job) const {
  const std::string name = absl::StrCat("jobs/", job->id);
  std::string dataset, sha256;
  {
    MutexLock lock(&mu_);
    const Life& life = LifeOf(*job);
    if (life.content != nullptr) return life.content;
    dataset = std::string(data::DatasetNameOf(life.job->task()));
    sha256 = life.content_sha256;
  }
  if (dataset.empty()) return nullptr;
  const auto gone = [&](absl::string_view how) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(name, " read ", dataset, ", which ", how,
                     " since; upload what it was under this name to see its batches"),
        "DATASET_GONE", {{"job", name}, {"dataset", dataset}, {"sha256", sha256}});
  };
  auto content = datasets_->Content(dataset);
  const auto now = datasets_->Get(dataset);
  if (!content.ok() || !now.ok()) return gone("was deleted");
  if (now->sha256() != sha256) return gone("was replaced by other data");
  return content;
}

absl::StatusOr<v1::TrainingBatch> JobManager::Impl::GetBatch(const v1::GetBatchRequest& request) {
  ASSIGN_OR_RETURN(const JobPtr hosted, FindJob(request.name(), "name"));
  RETURN_IF_ERROR(CheckRequest(request));
  ASSIGN_OR_RETURN(const int64_t origin, OriginOf(request.name(), request.step(), hosted->log));
  ASSIGN_OR_RETURN(const Content content, ContentOf(hosted));
  std::shared_ptr<const v1::Job> job;
  {
    MutexLock lock(&mu_);
    job = LifeOf(*hosted).job;
  }
  ASSIGN_OR_RETURN(const data::TaskShape shape, data::ShapeOf(*job, content.get()));
  const int64_t bytes = data::SourceMemoryBytes(*job, shape);
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckMemory("the batch", bytes));
    admitted_bytes_ += bytes;
  }
  const std::vector<int64_t> left_out =
      LeftOutBefore(request.step(), hosted->interventions, job->ladder().batches_skipped());
  absl::StatusOr<v1::TrainingBatch> batch =
      absl::ResourceExhaustedError("the memory to make the batch again cannot be had");
  try {
    batch = MakeAgain(request, origin, *job, content, left_out);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  MutexLock lock(&mu_);
  admitted_bytes_ -= bytes;
  return batch;
}

}  // namespace gradwatch::jobs
