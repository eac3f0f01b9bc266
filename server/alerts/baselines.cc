#include "server/alerts/baselines.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/container/inlined_vector.h"

namespace gradwatch::alerts {
namespace {

// Of a moving average as long as that: the n-th step back weighs about 1/e of the newest.
double BetaOf(int window) { return 1.0 - 1.0 / window; }

}  // namespace

bool IsNonFinite(const v1::StepStats& stats) {
  return !std::isfinite(stats.loss()) || !std::isfinite(stats.norm_before()) ||
         stats.nonfinite_count() > 0 || stats.has_nonfinite_origin() || stats.skipped();
}

// --- SpikeWatch.

void SpikeWatch::Observe(double value) {
  // A window that held the value itself would hide how far it stands out.
  Score& score = scores_[static_cast<size_t>(next_)];
  score = {};
  if (values_.size() >= SamplesMin() && value > 0.0) {
    score.over_median = value / values_.median();
    // What does not stand out by its size needs no score; that saves most steps the search.
    if (score.over_median > 1.0) score.z = values_.RobustZ(value);
  }
  next_ = (next_ + 1) % kSpikeWindow;
  values_.Add(value);
}

const Score& SpikeWatch::latest() const {
  return scores_[static_cast<size_t>((next_ + kSpikeWindow - 1) % kSpikeWindow)];
}

Score SpikeWatch::largest() const {
  Score largest = scores_[0];
  for (const Score& score : scores_) {
    largest.z = std::max(largest.z, score.z);
    largest.over_median = std::max(largest.over_median, score.over_median);
  }
  return largest;
}

int SpikeWatch::Count(double z, double over_median) const {
  int count = 0;
  for (const Score& score : scores_) {
    count += score.z > z && score.over_median > over_median ? 1 : 0;
  }
  return count;
}

void SpikeWatch::SaveState(stats::StateWriter* writer) const {
  values_.SaveState(writer);
  for (const Score& score : scores_) {
    writer->Double(score.z);
    writer->Double(score.over_median);
  }
  writer->Int(next_);
}

void SpikeWatch::LoadState(stats::StateReader* reader) {
  values_.LoadState(reader);
  for (Score& score : scores_) {
    score.z = reader->Double();
    score.over_median = reader->Double();
  }
  const int64_t next = reader->Int();
  if (next < 0 || next >= kSpikeWindow) reader->Fail();
  next_ = reader->ok() ? static_cast<int>(next) : 0;
}

// --- Baselines.

Baselines::Baselines(const Windows& windows)
    : loss_ema(BetaOf(windows.loss_divergence)),
      recent_losses(windows.loss_plateau / 2),
      earlier_losses(windows.loss_plateau / 2),
      norms(windows.exploding_rel),
      updates(windows.update_spike),
      clipped(windows.clip_saturated),
      clip_coefficients(windows.clip_saturated),
      loosely_clipped(windows.clip_too_loose),
      spiked(windows.clip_too_loose),
      log_growth(BetaOf(windows.recurrent_expansion)),
      log_vanishing(BetaOf(windows.vanishing_through_time)),
      log_update_ratio(BetaOf(windows.update_ratio)),
      gradient_cosine(BetaOf(windows.oscillation)) {}

void Baselines::SetWindows(const Windows& windows) {
  loss_ema.SetBeta(BetaOf(windows.loss_divergence));
  ResizeLosses(windows.loss_plateau);
  norms.Resize(windows.exploding_rel);
  updates.Resize(windows.update_spike);
  clipped.Resize(windows.clip_saturated);
  clip_coefficients.Resize(windows.clip_saturated);
  loosely_clipped.Resize(windows.clip_too_loose);
  spiked.Resize(windows.clip_too_loose);
  log_growth.SetBeta(BetaOf(windows.recurrent_expansion));
  log_vanishing.SetBeta(BetaOf(windows.vanishing_through_time));
  log_update_ratio.SetBeta(BetaOf(windows.update_ratio));
  gradient_cosine.SetBeta(BetaOf(windows.oscillation));
}

void Baselines::ResizeLosses(int window) {
  const int half = window / 2;
  if (half == recent_losses.capacity()) return;
  std::vector<double> losses = earlier_losses.OldestFirst();
  for (const double loss : recent_losses.OldestFirst()) losses.push_back(loss);
  recent_losses = stats::Window(half);
  earlier_losses = stats::Window(half);
  for (const double loss : losses) AddLoss(loss);
}

void Baselines::Observe(const v1::StepStats& stats, const Layout& layout) {
  if (IsNonFinite(stats)) {
    ++nonfinite_in_a_row;
    return;
  }
  nonfinite_in_a_row = 0;
  ObserveLoss(stats.loss());
  ObserveNorm(stats);
  ObserveTensors(stats, layout);
  ObserveSpectra(stats);
  if (stats.has_gradient_cosine()) gradient_cosine.Add(stats.gradient_cosine());
  if (stats.has_growth()) {
    const double log_factor = std::log(stats.growth().growth_factor());
    log_growth.Add(log_factor);
    log_vanishing.Add(log_factor);
  }
}

bool Baselines::LearnsWell() const { return LossIsBelow(kFallsFastPart); }

bool Baselines::Learns() const { return LossIsBelow(kFallsPart); }

bool Baselines::LossIsBelow(double share_of_median) const {
  if (!first_loss.has_value()) return false;
  return learning_ema_.value() < kLearntPart * *first_loss ||
         learning_ema_.value() < share_of_median * learning_losses_.Quantile(0.5);
}

void Baselines::ObserveLoss(double loss) {
  if (!first_loss) first_loss = loss;
  loss_ema.Add(loss);
  best_loss_ema = std::min(best_loss_ema, loss_ema.value());
  learning_ema_.Add(loss);
  learning_losses_.Add(loss);
  AddLoss(loss);
}

void Baselines::AddLoss(double loss) {
  if (recent_losses.full()) earlier_losses.Add(recent_losses.oldest());
  recent_losses.Add(loss);
}

void Baselines::ObserveNorm(const v1::StepStats& stats) {
  norms.Observe(stats.norm_before());
  spiked.Add(!stats.clipped() && norms.latest().z > kNormZ &&
             norms.latest().over_median > kNormOverMedian);
  clipped.Add(stats.clipped());
  loosely_clipped.Add(stats.clipped());
  if (stats.has_clip_coefficient()) clip_coefficients.Add(stats.clip_coefficient());
  if (stats.has_update_norm() && stats.learning_rate() > 0.0) {
    updates.Observe(stats.update_norm() / stats.learning_rate());
  }
}

void Baselines::ObserveTensors(const v1::StepStats& stats, const Layout& layout) {
  const auto count = static_cast<size_t>(stats.tensors_size());
  if (weights.empty()) weights.resize(count);
  absl::InlinedVector<double, 16> ratios;
  for (size_t i = 0; i < std::min(count, weights.size()); ++i) {
    const v1::TensorStats& tensor = stats.tensors(static_cast<int>(i));
    WeightNorm& norm = weights[i];
    if (norm.first == 0.0) norm.first = norm.latest = tensor.weight_norm();
    norm.previous = norm.latest;
    norm.latest = tensor.weight_norm();
    const bool is_matrix = i < layout.is_matrix.size() && layout.is_matrix[i];
    if (is_matrix && tensor.has_update_ratio()) ratios.push_back(tensor.update_ratio());
  }
  if (ratios.empty()) return;
  const auto middle = ratios.begin() + std::ssize(ratios) / 2;
  std::nth_element(ratios.begin(), middle, ratios.end());
  if (*middle > 0.0) log_update_ratio.Add(std::log(*middle));
}

void Baselines::ObserveSpectra(const v1::StepStats& stats) {
  if (spectra.empty()) spectra.resize(static_cast<size_t>(stats.recurrent_size()));
  for (int layer = 0; layer < std::min<int>(stats.recurrent_size(), std::ssize(spectra)); ++layer) {
    const auto& sigmas = stats.recurrent(layer).sigma_max();
    if (sigmas.empty()) continue;
    Spectrum& spectrum = spectra[static_cast<size_t>(layer)];
    spectrum.latest = *std::max_element(sigmas.begin(), sigmas.end());
    if (spectrum.first == 0.0) spectrum.first = spectrum.latest;
  }
}

void Baselines::SaveState(stats::StateWriter* writer) const {
  writer->Int(nonfinite_in_a_row);
  writer->Int(first_loss.has_value() ? 1 : 0);
  writer->Double(first_loss.value_or(0.0));
  loss_ema.SaveState(writer);
  writer->Double(best_loss_ema);
  recent_losses.SaveState(writer);
  earlier_losses.SaveState(writer);
  learning_ema_.SaveState(writer);
  learning_losses_.SaveState(writer);
  norms.SaveState(writer);
  updates.SaveState(writer);
  clipped.SaveState(writer);
  clip_coefficients.SaveState(writer);
  loosely_clipped.SaveState(writer);
  spiked.SaveState(writer);
  log_growth.SaveState(writer);
  log_vanishing.SaveState(writer);
  log_update_ratio.SaveState(writer);
  writer->Int(std::ssize(weights));
  for (const WeightNorm& norm : weights) {
    writer->Double(norm.first);
    writer->Double(norm.previous);
    writer->Double(norm.latest);
  }
  gradient_cosine.SaveState(writer);
  writer->Int(std::ssize(spectra));
  for (const Spectrum& spectrum : spectra) {
    writer->Double(spectrum.first);
    writer->Double(spectrum.latest);
  }
}

void Baselines::LoadState(stats::StateReader* reader) {
  nonfinite_in_a_row = reader->Int();
  const bool has_first_loss = reader->Int() != 0;
  const double loss = reader->Double();
  first_loss = has_first_loss ? std::optional<double>(loss) : std::nullopt;
  loss_ema.LoadState(reader);
  best_loss_ema = reader->Double();
  recent_losses.LoadState(reader);
  earlier_losses.LoadState(reader);
  learning_ema_.LoadState(reader);
  learning_losses_.LoadState(reader);
  norms.LoadState(reader);
  updates.LoadState(reader);
  clipped.LoadState(reader);
  clip_coefficients.LoadState(reader);
  loosely_clipped.LoadState(reader);
  spiked.LoadState(reader);
  log_growth.LoadState(reader);
  log_vanishing.LoadState(reader);
  log_update_ratio.LoadState(reader);
  const int64_t tensors = reader->Int();
  weights.clear();
  for (int64_t i = 0; i < tensors && reader->ok(); ++i) {
    WeightNorm& norm = weights.emplace_back();
    norm.first = reader->Double();
    norm.previous = reader->Double();
    norm.latest = reader->Double();
  }
  gradient_cosine.LoadState(reader);
  const int64_t layers = reader->Int();
  spectra.clear();
  for (int64_t i = 0; i < layers && reader->ok(); ++i) {
    Spectrum& spectrum = spectra.emplace_back();
    spectrum.first = reader->Double();
    spectrum.latest = reader->Double();
  }
}

}  // namespace gradwatch::alerts
