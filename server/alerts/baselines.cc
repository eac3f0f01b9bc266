#include "server/alerts/baselines.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace gradwatch::alerts {

bool IsNonFinite(const v1::StepStats& stats) {
  return !std::isfinite(stats.loss()) || !std::isfinite(stats.norm_before()) ||
         stats.nonfinite_count() > 0 || stats.has_nonfinite_origin() || stats.skipped();
}

void Baselines::Observe(const v1::StepStats& stats) {
  if (IsNonFinite(stats)) {
    ++nonfinite_in_a_row;
    return;
  }
  nonfinite_in_a_row = 0;

  if (!first_loss) first_loss = stats.loss();
  loss_ema.Add(stats.loss());
  best_loss_ema = std::min(best_loss_ema, loss_ema.value());

  // A window that held the norm itself would hide how far it stands out.
  NormScore& score = scores[static_cast<size_t>(score_next)];
  score = {};
  if (norms.size() >= kNormSamplesMin && stats.norm_before() > 0.0) {
    score.z = norms.RobustZ(stats.norm_before());
    score.over_median = stats.norm_before() / norms.median();
  }
  score_next = (score_next + 1) % kSpikeWindow;
  norms.Add(stats.norm_before());

  if (stats.has_growth()) log_growth.Add(std::log(stats.growth().growth_factor()));
}

const NormScore& Baselines::latest_score() const {
  return scores[static_cast<size_t>((score_next + kSpikeWindow - 1) % kSpikeWindow)];
}

void Baselines::SaveState(stats::StateWriter* writer) const {
  writer->Int(nonfinite_in_a_row);
  writer->Int(first_loss.has_value() ? 1 : 0);
  writer->Double(first_loss.value_or(0.0));
  loss_ema.SaveState(writer);
  writer->Double(best_loss_ema);
  norms.SaveState(writer);
  for (const NormScore& score : scores) {
    writer->Double(score.z);
    writer->Double(score.over_median);
  }
  writer->Int(score_next);
  log_growth.SaveState(writer);
}

void Baselines::LoadState(stats::StateReader* reader) {
  nonfinite_in_a_row = reader->Int();
  const bool has_first_loss = reader->Int() != 0;
  const double loss = reader->Double();
  first_loss = has_first_loss ? std::optional<double>(loss) : std::nullopt;
  loss_ema.LoadState(reader);
  best_loss_ema = reader->Double();
  norms.LoadState(reader);
  for (NormScore& score : scores) {
    score.z = reader->Double();
    score.over_median = reader->Double();
  }
  const int64_t next = reader->Int();
  if (next < 0 || next >= kSpikeWindow) reader->Fail();
  score_next = reader->ok() ? static_cast<int>(next) : 0;
  log_growth.LoadState(reader);
}

}  // namespace gradwatch::alerts
