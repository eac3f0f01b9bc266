#ifndef GRADWATCH_SERVER_JOBS_STEP_RECORD_H_
#define GRADWATCH_SERVER_JOBS_STEP_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradwatch/v1/stats.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

namespace gradwatch::jobs {

// One recorded step, serialised once and shared by history and every stream. It is neither copied
// nor moved: the views point into what holds the record (RecordMaker, StepBlock).
struct StepRecord {
  StepRecord() = default;
  StepRecord(const StepRecord&) = delete;
  StepRecord& operator=(const StepRecord&) = delete;

  int64_t step = 0;
  // Wire bytes of one entry of StreamStatsResponse.steps: tag, length, `scalars`, `details`.
  absl::string_view wire;
  // Wire bytes of v1::StepStats that together make the whole record (the wire format merges
  // concatenated messages); details hold `tensors`, `layers`, `recurrent`,
  // `probe` and `lengths`.
  absl::string_view scalars;
  absl::string_view details;
  // For folding, without parsing.
  double loss = 0.0;
  double norm_before = 0.0;
  double norm_after = 0.0;       // NaN when absent.
  double growth_factor = 0.0;    // NaN when absent.
  double update_ratio = 0.0;     // The same.
  double gradient_cosine = 0.0;  // The same.
  double distance_ratio = 0.0;   // The same.
  bool clipped = false;
  bool skipped = false;
  bool nonfinite = false;
  bool evaluated = false;       // `scalars` hold an evaluation.
  bool intervened = false;      // `scalars` hold interventions.
  uint8_t shadows = 0;          // Shadow clips that reported.
  uint8_t shadows_clipped = 0;  // Bit i: the i-th would have clipped.

  // What it counts for in a log: its bytes and its share of the bookkeeping.
  int64_t bytes() const;
};

// Records that somebody reads, in order, and what keeps them: one owner for each, or one for all,
// which spares a count for each.
class StepRecords {
 public:
  StepRecords() = default;
  explicit StepRecords(std::shared_ptr<const void> owner_of_all) {
    owners_.push_back(std::move(owner_of_all));
  }

  // Without an owner of all.
  void Add(std::shared_ptr<const StepRecord> record) {
    records_.push_back(record.get());
    owners_.push_back(std::move(record));
  }
  // With an owner of all.
  void Add(const StepRecord* record) { records_.push_back(record); }

  size_t size() const { return records_.size(); }
  bool empty() const { return records_.empty(); }
  const StepRecord* operator[](size_t i) const { return records_[i]; }
  const StepRecord* front() const { return records_.front(); }
  const StepRecord* back() const { return records_.back(); }
  auto begin() const { return records_.begin(); }
  auto end() const { return records_.end(); }

  const std::shared_ptr<const void>& owner(size_t i) const {
    return owners_[owners_.size() == 1 ? 0 : i];
  }
  std::shared_ptr<const StepRecord> Share(size_t i) const { return {owner(i), records_[i]}; }

 private:
  std::vector<const StepRecord*> records_;
  std::vector<std::shared_ptr<const void>> owners_;
};

// How many records are read at once: at most `steps_max`, and about `bytes_max` bytes, but at
// least one.
class PortionLimit {
 public:
  PortionLimit(int steps_max, int64_t bytes_max) : steps_left_(steps_max), bytes_left_(bytes_max) {}

  // Whether the next record is part of it.
  bool Admits(const StepRecord& record) {
    const auto bytes = static_cast<int64_t>(record.wire.size());
    if (steps_left_ == 0 || (bytes > bytes_left_ && !first_)) return false;
    first_ = false;
    --steps_left_;
    bytes_left_ -= bytes;
    return true;
  }

 private:
  int steps_left_;
  int64_t bytes_left_;
  bool first_ = true;
};

// Makes the records of one job. Some share a slab, so that the trainer seldom allocates: another
// thread frees records, and with one block for each both waited for one lock of the allocator.
//
// Threads: one at a time; the records belong to whoever keeps them.
class RecordMaker {
 public:
  // A slab, which is kept as long as any record in it; above a quarter a record has its own.
  static constexpr size_t kSlabBytes = size_t{8} << 10;

  // Serialises `stats`, which are the same again afterwards unless it throws std::bad_alloc.
  std::shared_ptr<const StepRecord> Make(v1::StepStats* stats);

 private:
  std::shared_ptr<StepRecord> Room(size_t wire_size);

  v1::StepStats details_;  // While they are serialised; empty otherwise.
  std::shared_ptr<std::byte[]> slab_;
  size_t used_ = 0;  // Bytes of the slab.
};

// Makes `record` a view of `wire`, which is the wire of a record that a RecordMaker made.
void ViewRecord(absl::string_view wire, StepRecord* record);

// Fills `stats` with all but the details.
bool ParseScalars(const StepRecord& record, v1::StepStats* stats);

// Fills `stats` with all of it.
bool ParseRecord(const StepRecord& record, v1::StepStats* stats);

// Adds `record` to `folded`: extremes, means and counts stay exact.
void Fold(const StepRecord& record, v1::FoldedStats* folded);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_STEP_RECORD_H_
