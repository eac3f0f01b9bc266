#include "server/jobs/step_log.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "server/base/check.h"
#include "server/base/mutex.h"
#include "server/jobs/step_block.h"

namespace gradwatch::jobs {
namespace {

using Record = std::shared_ptr<const StepRecord>;
using Block = std::shared_ptr<const StepBlock>;

absl::Status NotKept(int64_t step, int64_t oldest) {
  return ErrorWithReason(
      absl::StatusCode::kOutOfRange,
      absl::StrCat("step ", step, " is no longer kept; the oldest kept step is ", oldest),
      "STEP_NOT_KEPT", {{"step", absl::StrCat(step)}, {"oldest_step", absl::StrCat(oldest)}});
}

}  // namespace

struct StepLog::Shared {
  explicit Shared(int64_t max) : bytes_max(max) {}

  // What the lock releases, freed after it.
  struct Forgotten {
    std::vector<Record> records;
    std::vector<Block> blocks;
  };

  int64_t Oldest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (!blocks.empty()) return blocks.front()->first_step();
    return live.empty() ? 0 : live.front()->step;
  }

  bool CompactionIsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const auto steps = static_cast<int>(live.size());
    if (steps >= kLiveSteps + kBlockSteps) return true;
    return (closed || live_bytes > bytes_max / 8 + kBlockBytes) && steps > 2 * kBlockStepsMin;
  }

  void ForgetBeyondBound(Forgotten* forgotten) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    while (live_bytes + block_bytes > bytes_max && !blocks.empty()) {
      block_bytes -= blocks.front()->bytes();
      forgotten->blocks.push_back(std::move(blocks.front()));
      blocks.pop_front();
    }
    while (live_bytes + block_bytes > bytes_max && live.size() > 1) PopLive(&forgotten->records);
  }

  void PopLive(std::vector<Record>* popped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    live_bytes -= live.front()->bytes();
    popped->push_back(std::move(live.front()));
    live.pop_front();
  }

  // Passes the live records from `step` on to `take` until it has enough; the lock is held for a
  // few at a time, so that the writer never waits long. Stops where one was forgotten meanwhile.
  template <typename Take>
  void ForEachLive(int64_t step, Take take) const ABSL_LOCKS_EXCLUDED(mu) {
    constexpr size_t kAtOnce = 16;
    for (;;) {
      MutexLock lock(&mu);
      if (live.empty() || step < live.front()->step) return;
      auto next = static_cast<size_t>(step - live.front()->step);
      const size_t end = std::min(next + kAtOnce, live.size());
      if (next >= end) return;
      for (; next < end; ++next, ++step) {
        if (!take(live[next])) return;
      }
    }
  }

  const int64_t bytes_max;
  // Without the lock, for readers that only look whether there is something.
  std::atomic<int64_t> newest{-1};
  std::atomic<bool> closed{false};
  // Leaf lock; callbacks run after it is released.
  mutable Mutex mu;
  // Without a gap: first all blocks, then the live records.
  std::deque<Block> blocks ABSL_GUARDED_BY(mu);
  std::deque<Record> live ABSL_GUARDED_BY(mu);
  int64_t block_bytes ABSL_GUARDED_BY(mu) = 0;
  int64_t live_bytes ABSL_GUARDED_BY(mu) = 0;
  std::vector<std::shared_ptr<Callback>> waiting ABSL_GUARDED_BY(mu);
};

StepLog::StepLog(int64_t bytes_max) : shared_(std::make_shared<Shared>(bytes_max)) {}

bool StepLog::Append(Record record) {
  Shared& shared = *shared_;
  Shared::Forgotten forgotten;
  MutexLock lock(&shared.mu);
  GRADWATCH_CHECK(!shared.closed);
  GRADWATCH_CHECK(shared.live.empty() || record->step == shared.live.back()->step + 1);
  shared.live_bytes += record->bytes();
  shared.newest = record->step;
  shared.live.push_back(std::move(record));
  shared.ForgetBeyondBound(&forgotten);
  return !shared.waiting.empty() || shared.CompactionIsDue();
}

void StepLog::Serve() {
  Wake();
  Compact();
}

void StepLog::Wake() {
  std::vector<std::shared_ptr<Callback>> waiting;
  {
    MutexLock lock(&shared_->mu);
    waiting.swap(shared_->waiting);
  }
  for (const auto& callback : waiting) callback->Run();
}

void StepLog::Compact() {
  while (CompactOldest()) {
  }
}

// Makes one block of the oldest live records. False: there is nothing to do any more.
bool StepLog::CompactOldest() {
  Shared& shared = *shared_;
  int64_t first = 0;
  int steps_max = 0;
  {
    MutexLock lock(&shared.mu);
    if (!shared.CompactionIsDue()) return false;
    first = shared.live.front()->step;
    steps_max = std::min(kBlockSteps, static_cast<int>(shared.live.size()) - kBlockStepsMin);
  }
  std::vector<Record> records;
  int64_t bytes = 0;
  shared.ForEachLive(first, [&](const Record& record) {
    records.push_back(record);
    bytes += static_cast<int64_t>(record->wire.size());
    const auto steps = static_cast<int>(records.size());
    return steps < steps_max && (steps < kBlockStepsMin || bytes < kBlockBytes);
  });
  if (records.empty()) return true;  // Forgotten meanwhile.
  auto block = std::make_shared<const StepBlock>(records);

  Shared::Forgotten forgotten;
  forgotten.records.reserve(records.size());
  MutexLock lock(&shared.mu);
  if (shared.live.front()->step != first) return true;
  for (size_t i = 0; i < records.size(); ++i) shared.PopLive(&forgotten.records);
  shared.block_bytes += block->bytes();
  shared.blocks.push_back(std::move(block));
  shared.ForgetBeyondBound(&forgotten);
  return true;
}

void StepLog::Close() {
  {
    MutexLock lock(&shared_->mu);
    shared_->closed = true;
  }
  Wake();
}

bool StepLog::closed() const { return shared_->closed; }

int64_t StepLog::oldest_step() const {
  MutexLock lock(&shared_->mu);
  return shared_->Oldest();
}

int64_t StepLog::newest_step() const { return shared_->newest; }

int64_t StepLog::bytes() const {
  MutexLock lock(&shared_->mu);
  return shared_->live_bytes + shared_->block_bytes;
}

absl::StatusOr<StepRecords> StepLog::Read(int64_t step, int steps_max, int64_t bytes_max) const {
  Shared& shared = *shared_;
  for (;;) {
    Block block;
    {
      MutexLock lock(&shared.mu);
      if (step < shared.Oldest()) return NotKept(step, shared.Oldest());
      const auto after = std::upper_bound(
          shared.blocks.begin(), shared.blocks.end(), step,
          [](int64_t wanted, const Block& other) { return wanted < other->first_step(); });
      if (after != shared.blocks.begin()) block = *std::prev(after);
    }
    PortionLimit limit(steps_max, bytes_max);
    if (block != nullptr && step <= block->last_step()) return block->Unpack(step, limit);
    StepRecords records;
    shared.ForEachLive(step, [&](const Record& record) {
      if (!limit.Admits(*record)) return false;
      records.Add(record);
      return true;
    });
    // Unless it was compressed or forgotten between the two locks.
    if (!records.empty() || step > shared.newest) return records;
  }
}

std::unique_ptr<StepLog::Waiter> StepLog::Listen(int64_t step, absl::AnyInvocable<void()> notify) {
  auto callback = std::make_shared<Callback>(std::move(notify));
  bool at_once = false;
  {
    Shared& shared = *shared_;
    MutexLock lock(&shared.mu);
    at_once = shared.closed || step <= shared.newest;
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

}  // namespace gradwatch::jobs
