#include "server/jobs/step_log.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "proto/support/errors.h"
#include "server/base/check.h"

namespace gradwatch::jobs {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Allocation, deque slot and reference counts of one record, generously.
constexpr int64_t kRecordOverheadBytes = sizeof(StepRecord) + 64;

// Parts the wire bytes of a StepStats by top-level field.
void Split(const std::string& wire, StepRecord* record) {
  CodedInputStream input(reinterpret_cast<const uint8_t*>(wire.data()),
                         static_cast<int>(wire.size()));
  int begin = 0;
  while (const uint32_t tag = input.ReadTag()) {
    GRADWATCH_CHECK(WireFormatLite::SkipField(&input, tag));
    const int end = input.CurrentPosition();
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    const bool detail =
        field == v1::StepStats::kTensorsFieldNumber || field == v1::StepStats::kLayersFieldNumber;
    (detail ? record->details : record->scalars)
        .append(wire, static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    begin = end;
  }
}

void FoldValue(double value, v1::Range* range) {
  if (!std::isfinite(value)) return;
  const int64_t count = range->count() + 1;
  range->set_minimum(count == 1 ? value : std::min(range->minimum(), value));
  range->set_maximum(count == 1 ? value : std::max(range->maximum(), value));
  // In parts, so that values near the largest double do not overflow their sum.
  const double share = 1.0 / static_cast<double>(count);
  range->set_mean(range->mean() * (1.0 - share) + value * share);
  range->set_last(value);
  range->set_count(count);
}

}  // namespace

int64_t StepRecord::bytes() const {
  return kRecordOverheadBytes + static_cast<int64_t>(scalars.capacity() + details.capacity());
}

std::shared_ptr<const StepRecord> MakeRecord(const v1::StepStats& stats) {
  constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
  auto record = std::make_shared<StepRecord>();
  record->step = stats.step();
  Split(stats.SerializeAsString(), record.get());
  record->scalars.shrink_to_fit();
  record->details.shrink_to_fit();
  record->loss = stats.loss();
  record->norm_before = stats.norm_before();
  record->norm_after = stats.has_norm_after() ? stats.norm_after() : kAbsent;
  record->growth_factor = stats.has_growth() ? stats.growth().growth_factor() : kAbsent;
  record->clipped = stats.clipped();
  record->skipped = stats.skipped();
  record->nonfinite = stats.nonfinite_count() > 0 || stats.has_nonfinite_origin() ||
                      !std::isfinite(stats.loss()) || !std::isfinite(stats.norm_before());
  record->evaluated = stats.has_evaluation();
  return record;
}

struct StepLog::Shared {
  explicit Shared(int64_t max) : bytes_max(max) {}

  const int64_t bytes_max;
  // Leaf lock; callbacks run after it is released.
  mutable Mutex mu;
  std::deque<std::shared_ptr<const StepRecord>> records ABSL_GUARDED_BY(mu);
  int64_t bytes ABSL_GUARDED_BY(mu) = 0;
  bool closed ABSL_GUARDED_BY(mu) = false;
  std::vector<std::shared_ptr<Callback>> waiting ABSL_GUARDED_BY(mu);
};

StepLog::StepLog(int64_t bytes_max) : shared_(std::make_shared<Shared>(bytes_max)) {}

void StepLog::Append(const v1::StepStats& stats) { Append(MakeRecord(stats)); }

void StepLog::Append(std::shared_ptr<const StepRecord> record) {
  std::vector<std::shared_ptr<Callback>> waiting;
  // Freed after the lock is released.
  std::vector<std::shared_ptr<const StepRecord>> forgotten;
  {
    MutexLock lock(&shared_->mu);
    auto& records = shared_->records;
    GRADWATCH_CHECK(!shared_->closed);
    GRADWATCH_CHECK(records.empty() || record->step == records.back()->step + 1);
    shared_->bytes += record->bytes();
    records.push_back(std::move(record));
    while (shared_->bytes > shared_->bytes_max && records.size() > 1) {
      shared_->bytes -= records.front()->bytes();
      forgotten.push_back(std::move(records.front()));
      records.pop_front();
    }
    waiting.swap(shared_->waiting);
  }
  for (const auto& callback : waiting) callback->Run();
}

void StepLog::Close() {
  std::vector<std::shared_ptr<Callback>> waiting;
  {
    MutexLock lock(&shared_->mu);
    shared_->closed = true;
    waiting.swap(shared_->waiting);
  }
  for (const auto& callback : waiting) callback->Run();
}

bool StepLog::closed() const {
  MutexLock lock(&shared_->mu);
  return shared_->closed;
}

int64_t StepLog::oldest_step() const {
  MutexLock lock(&shared_->mu);
  return shared_->records.empty() ? 0 : shared_->records.front()->step;
}

int64_t StepLog::newest_step() const {
  MutexLock lock(&shared_->mu);
  return shared_->records.empty() ? -1 : shared_->records.back()->step;
}

int64_t StepLog::bytes() const {
  MutexLock lock(&shared_->mu);
  return shared_->bytes;
}

absl::StatusOr<std::vector<std::shared_ptr<const StepRecord>>> StepLog::Read(
    int64_t step, int steps_max, int64_t bytes_max) const {
  std::vector<std::shared_ptr<const StepRecord>> result;
  Shared& shared = *shared_;
  MutexLock lock(&shared.mu);
  const int64_t oldest = shared.records.empty() ? 0 : shared.records.front()->step;
  if (step < oldest) {
    return ErrorWithReason(
        absl::StatusCode::kOutOfRange,
        absl::StrCat("step ", step, " is no longer kept; the oldest kept step is ", oldest),
        "STEP_NOT_KEPT", {{"step", absl::StrCat(step)}, {"oldest_step", absl::StrCat(oldest)}});
  }
  int64_t bytes = 0;
  for (auto i = static_cast<size_t>(step - oldest); i < shared.records.size(); ++i) {
    if (static_cast<int64_t>(result.size()) >= steps_max) break;
    bytes +=
        static_cast<int64_t>(shared.records[i]->scalars.size() + shared.records[i]->details.size());
    if (bytes > bytes_max && !result.empty()) break;
    result.push_back(shared.records[i]);
  }
  return result;
}

std::unique_ptr<StepLog::Waiter> StepLog::Listen(int64_t step, absl::AnyInvocable<void()> notify) {
  auto callback = std::make_shared<Callback>(std::move(notify));
  bool at_once = false;
  {
    Shared& shared = *shared_;
    MutexLock lock(&shared.mu);
    at_once = shared.closed || (!shared.records.empty() && step <= shared.records.back()->step);
    if (!at_once) shared.waiting.push_back(callback);
  }
  if (at_once) callback->Run();
  return std::unique_ptr<Waiter>(new Waiter(shared_, std::move(callback)));
}

StepLog::Waiter::Waiter(std::shared_ptr<Shared> shared, std::shared_ptr<Callback> callback)
    : shared_(std::move(shared)), callback_(std::move(callback)) {}

StepLog::Waiter::~Waiter() {
  {
    MutexLock lock(&shared_->mu);
    auto& all = shared_->waiting;
    all.erase(std::remove(all.begin(), all.end(), callback_), all.end());
  }
  callback_->Cancel();
}

void Fold(const StepRecord& record, v1::FoldedStats* folded) {
  if (folded->count() == 0) folded->set_first_step(record.step);
  folded->set_last_step(record.step);
  folded->set_count(folded->count() + 1);
  FoldValue(record.loss, folded->mutable_loss());
  FoldValue(record.norm_before, folded->mutable_norm_before());
  FoldValue(record.norm_after, folded->mutable_norm_after());
  FoldValue(record.growth_factor, folded->mutable_growth_factor());
  folded->set_clipped_steps(folded->clipped_steps() + (record.clipped ? 1 : 0));
  folded->set_skipped_steps(folded->skipped_steps() + (record.skipped ? 1 : 0));
  folded->set_nonfinite_steps(folded->nonfinite_steps() + (record.nonfinite ? 1 : 0));
}

}  // namespace gradwatch::jobs
