#ifndef GRADWATCH_SERVER_JOBS_STEP_RECORD_H_
#define GRADWATCH_SERVER_JOBS_STEP_RECORD_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "gradwatch/v1/stats.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

namespace gradwatch::jobs {

// One recorded step, serialised once and shared by history and every stream. It is neither copied
// nor moved: the views point into `storage`, or into what holds the record (StepBlock).
struct StepRecord {
  StepRecord() = default;
  StepRecord(const StepRecord&) = delete;
  StepRecord& operator=(const StepRecord&) = delete;

  int64_t step = 0;
  // Wire bytes of one entry of StreamStatsResponse.steps: tag, length, `scalars`, `details`.
  absl::string_view wire;
  // Wire bytes of v1::StepStats that together make the whole record (the wire format merges
  // concatenated messages); details hold `tensors` and `layers`.
  absl::string_view scalars;
  absl::string_view details;
  // For folding, without parsing.
  double loss = 0.0;
  double norm_before = 0.0;
  double norm_after = 0.0;     // NaN when absent.
  double growth_factor = 0.0;  // NaN when absent.
  bool clipped = false;
  bool skipped = false;
  bool nonfinite = false;
  bool evaluated = false;  // `scalars` hold an evaluation.

  std::string storage;

  // What it counts for in a log: its bytes and its share of the bookkeeping.
  int64_t bytes() const;
};

// Serialises `stats` once.
std::shared_ptr<const StepRecord> MakeRecord(const v1::StepStats& stats);

// Makes `record` a view of `wire`, which is the wire of a record that MakeRecord made.
void ViewRecord(absl::string_view wire, StepRecord* record);

// Fills `stats` with all but the details.
bool ParseScalars(const StepRecord& record, v1::StepStats* stats);

// Adds `record` to `folded`: extremes, means and counts stay exact.
void Fold(const StepRecord& record, v1::FoldedStats* folded);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_STEP_RECORD_H_
