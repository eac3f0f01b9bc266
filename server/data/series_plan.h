#ifndef GRADWATCH_SERVER_DATA_SERIES_PLAN_H_
#define GRADWATCH_SERVER_DATA_SERIES_PLAN_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradwatch::data {

// How windows are cut from a series (the characters of a text, the rows of a table). A window that
// starts at p reads positions p … p + time_steps - 1; the target of position q is q + horizon. The
// first `training` positions train, the rest are held out: no target of a training window is held
// out, every target that counts in evaluation is, while its inputs may reach back.
struct SeriesSettings {
  int64_t positions = 0;  // Of the whole series.
  int64_t training = 0;   // Of the training part.
  int64_t horizon = 1;
  int64_t time_steps = 1;
  int64_t warmup = 0;  // Targets at the start of a window that do not count.
  int64_t batch_size = 1;
  int64_t examples_max = 1;  // Evaluation windows.
  bool carry_state = true;
};

// Positions that train when a share of them, the last, is held out.
int64_t TrainingPart(int64_t positions, double held_out_share);

// OK if the training part has room for the windows of a batch; otherwise INVALID_ARGUMENT with both
// figures, `unit` being "characters" or "rows".
absl::Status CheckRoom(const SeriesSettings& settings, absl::string_view field,
                       absl::string_view unit);

// One row of a batch.
struct Window {
  int64_t start = 0;
  int64_t counted_from = 0;  // Targets before this position have weight 0.
};

// The places of all windows. With carried state the training part is cut into batch_size streams of
// equal length, read window after window; without, training windows lie anywhere. The held-out part
// is read as streams likewise, or covered by windows so that each of its positions counts once.
// Requires settings that CheckRoom accepts.
class SeriesPlan {
 public:
  explicit SeriesPlan(const SeriesSettings& settings);

  const SeriesSettings& settings() const { return settings_; }

  // Carried state: batches until the streams begin again.
  int64_t batches_per_pass() const { return batches_per_pass_; }
  // Carried state: row `row` of training batch `i`, 0 <= i < batches_per_pass().
  Window TrainingWindow(int64_t i, int64_t row) const;
  // No carried state: training windows start at 0 … random_starts() - 1.
  int64_t random_starts() const;

  int64_t evaluation_batches() const { return evaluation_batches_; }
  int64_t evaluation_rows(int64_t batch) const;
  Window EvaluationWindow(int64_t batch, int64_t row) const;

 private:
  void PlanEvaluationStreams();
  void PlanEvaluationCover();

  const SeriesSettings settings_;
  int64_t stream_length_ = 0;
  int64_t batches_per_pass_ = 0;
  int64_t evaluation_batches_ = 0;
  int64_t evaluation_windows_ = 0;
  int64_t evaluation_rows_ = 0;           // Streams.
  int64_t evaluation_stream_length_ = 0;  // Streams.
  int64_t cover_windows_ = 0;             // What it would take to cover the held-out part.
};

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_SERIES_PLAN_H_
