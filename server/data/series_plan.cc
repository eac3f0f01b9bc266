#include "server/data/series_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace gradwatch::data {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

int64_t TrainingPart(int64_t positions, double held_out_share) {
  // 1 - share is rounded: without the allowance, 80 % of 10 could come out as 7.
  const double part = static_cast<double>(positions) * (1.0 - held_out_share);
  return std::min(positions, static_cast<int64_t>(std::floor(part + 1e-6)));
}

absl::Status CheckRoom(const SeriesSettings& s, absl::string_view field, absl::string_view unit) {
  const int64_t streams = s.carry_state ? s.batch_size : 1;
  const int64_t needed = streams * s.time_steps + s.horizon;
  if (s.training >= needed) return absl::OkStatus();
  const std::string windows =
      s.carry_state ? absl::StrCat("batch_size ", s.batch_size, " x time_steps ", s.time_steps)
                    : absl::StrCat("time_steps ", s.time_steps);
  return absl::InvalidArgumentError(absl::StrCat(field, ": the training part has ", s.training, " ",
                                                 unit, ", but ", windows, " with targets ",
                                                 s.horizon, " ahead needs at least ", needed));
}

SeriesPlan::SeriesPlan(const SeriesSettings& settings) : settings_(settings) {
  stream_length_ = (settings_.training - settings_.horizon) / settings_.batch_size;
  batches_per_pass_ = stream_length_ / settings_.time_steps;
  if (settings_.positions == settings_.training) return;
  if (settings_.carry_state) {
    PlanEvaluationStreams();
  } else {
    PlanEvaluationCover();
  }
}

Window SeriesPlan::TrainingWindow(int64_t i, int64_t row) const {
  return {row * stream_length_ + i * settings_.time_steps, 0};
}

int64_t SeriesPlan::random_starts() const {
  return settings_.training - settings_.horizon - settings_.time_steps + 1;
}

void SeriesPlan::PlanEvaluationStreams() {
  const int64_t held_out = settings_.positions - settings_.training;
  const int64_t fitting = std::max<int64_t>(1, held_out / settings_.time_steps);
  evaluation_rows_ = std::min({settings_.batch_size, settings_.examples_max, fitting});
  evaluation_stream_length_ = held_out / evaluation_rows_;
  const int64_t windows = std::max<int64_t>(1, evaluation_stream_length_ / settings_.time_steps);
  evaluation_batches_ = std::min(windows, settings_.examples_max / evaluation_rows_);
  evaluation_windows_ = evaluation_batches_ * evaluation_rows_;
}

void SeriesPlan::PlanEvaluationCover() {
  const int64_t held_out = settings_.positions - settings_.training;
  cover_windows_ = CeilDivide(held_out, settings_.time_steps - settings_.warmup);
  evaluation_windows_ = std::min(cover_windows_, settings_.examples_max);
  evaluation_batches_ = CeilDivide(evaluation_windows_, settings_.batch_size);
}

int64_t SeriesPlan::evaluation_rows(int64_t batch) const {
  if (settings_.carry_state) return evaluation_rows_;
  return std::min(settings_.batch_size, evaluation_windows_ - batch * settings_.batch_size);
}

Window SeriesPlan::EvaluationWindow(int64_t batch, int64_t row) const {
  const SeriesSettings& s = settings_;
  const int64_t last_start = s.positions - s.horizon - s.time_steps;
  if (s.carry_state) {
    const int64_t first = s.training - s.horizon;
    const int64_t start = first + row * evaluation_stream_length_ + batch * s.time_steps;
    // A held-out part shorter than a window is the end of one.
    return {std::min(start, last_start), s.training};
  }
  // Fewer windows than it takes to cover are spread evenly.
  const int64_t number = (batch * s.batch_size + row) * cover_windows_ / evaluation_windows_;
  const int64_t counted_from = s.training + number * (s.time_steps - s.warmup);
  return {std::min(counted_from - s.horizon - s.warmup, last_start), counted_from};
}

}  // namespace gradwatch::data
