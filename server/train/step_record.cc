#include "server/train/step_record.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/vector.h"

namespace gradwatch::train {
namespace {

using FloatField = google::protobuf::RepeatedField<float>;

void Assign(absl::Span<const double> values, FloatField* field) {
  const int size = static_cast<int>(values.size());
  field->Clear();
  field->Reserve(size);
  std::transform(values.begin(), values.end(), field->AddNAlreadyReserved(size),
                 [](double value) { return static_cast<float>(value); });
}

// How many bins are looked at together.
constexpr size_t kTogether = 16;

bool AllEmpty(const uint32_t* bins) {
  using Counts = uint64_t __attribute__((vector_size(kVectorBytes)));
  constexpr int kAtOnce = static_cast<int>(kVectorBytes / sizeof(uint32_t));
  static_assert(kTogether % kAtOnce == 0);
  Counts any = {};
#pragma GCC unroll 4
  for (size_t i = 0; i < kTogether; i += kAtOnce) {
    Counts some;
    std::memcpy(&some, bins + i, sizeof(some));
    any |= some;
  }
  uint64_t all = 0;
#pragma GCC unroll 8
  for (int lane = 0; lane < kAtOnce / 2; ++lane) all |= any[lane];
  return all == 0;
}

// The bins from the first that is not empty to the last one.
absl::Span<const uint32_t> WithoutEmptyEnds(absl::Span<const uint32_t> bins) {
  while (bins.size() >= kTogether && AllEmpty(bins.data())) bins.remove_prefix(kTogether);
  while (!bins.empty() && bins.front() == 0) bins.remove_prefix(1);
  while (bins.size() >= kTogether && AllEmpty(bins.end() - kTogether))
    bins.remove_suffix(kTogether);
  while (!bins.empty() && bins.back() == 0) bins.remove_suffix(1);
  return bins;
}

// Not below `floor`; passes over NaN.
double Largest(absl::Span<const double> values, double floor) {
  constexpr size_t kStep = kVectorSize<double>;
  Vector<double> largest = Vector<double>{} + floor;
  size_t i = 0;
  for (; i + kStep <= values.size(); i += kStep) {
    const Vector<double> some = LoadVector(values.data() + i);
    largest = some > largest ? some : largest;
  }
  for (size_t lane = 0; lane < kStep; ++lane) floor = std::max(floor, largest[lane]);
  for (; i < values.size(); ++i) floor = std::max(floor, values[i]);
  return floor;
}

// NaN is what a trace does not have.
void FillUnitStats(const nn::LayerTrace& trace, v1::LayerTimeStats* message) {
  const auto fill = [message](double value, void (v1::LayerTimeStats::*set)(double)) {
    if (!std::isnan(value)) (message->*set)(value);
  };
  fill(trace.keep_time_constant, &v1::LayerTimeStats::set_keep_time_constant);
  fill(trace.keep_time_constant_max, &v1::LayerTimeStats::set_keep_time_constant_max);
  fill(trace.activation_slope, &v1::LayerTimeStats::set_activation_slope);
  fill(trace.state_similarity, &v1::LayerTimeStats::set_state_similarity);
  fill(trace.hidden_drift, &v1::LayerTimeStats::set_hidden_drift);
  fill(trace.cell_drift, &v1::LayerTimeStats::set_cell_drift);
  fill(trace.dead_share, &v1::LayerTimeStats::set_dead_unit_share);
}

}  // namespace

void ClearRecord(v1::StepStats* record) {
  // Clear() would free a sub-message; the one that nearly every step has is put
  // aside.
  std::unique_ptr<v1::GrowthStats> growth(record->release_growth());
  record->Clear();
  if (growth != nullptr) {
    growth->Clear();
    record->set_allocated_growth(growth.release());
  }
}

void DropGrowth(v1::StepStats* record) { record->clear_growth(); }

void FillTensorStats(const stats::TensorSummary& summary, const stats::Log2Histogram* histogram,
                     v1::TensorStats* message) {
  message->set_norm(summary.norm);
  message->set_max_abs(summary.max_abs);
  message->set_zeros(summary.zeros);
  message->set_nonfinite(summary.nonfinite);
  if (histogram == nullptr) return;
  const absl::Span<const uint32_t> bins = WithoutEmptyEnds(*histogram);
  if (bins.empty()) return;
  message->set_magnitude_first_bin(static_cast<int32_t>(bins.data() - histogram->data()));
  // Room for all, so that later steps need none.
  message->mutable_magnitude_counts()->Reserve(stats::kHistogramBins);
  message->mutable_magnitude_counts()->Add(bins.begin(), bins.end());
}

void FillOrigin(const nn::NonFinite& origin, v1::NonFiniteOrigin* message) {
  absl::string_view tensor = origin.tensor;
  const bool parameter = origin.stage == nn::NonFinite::Stage::kWeightGradient;
  if (origin.layer >= 0 && !parameter) {
    absl::ConsumeSuffix(&tensor, absl::StrCat("_l", origin.layer));
  }
  if (tensor == "delta_h") tensor = "dh";
  message->set_tensor(std::string(tensor));
  if (origin.layer >= 0) message->set_layer(origin.layer);
  if (origin.time_step >= 0) message->set_time_step(static_cast<int32_t>(origin.time_step));
}

template <typename S>
void FillLayerTimeStats(const nn::Network<S>& network, v1::StepStats* record) {
  const bool loss_at_last = network.config().loss_at == nn::LossAt::kLastStep;
  int layer = 0;
  for (const nn::LayerTrace& trace : network.traces()) {
    v1::LayerTimeStats* message = record->add_layers();
    message->set_layer(layer);
    Assign(trace.state_gradient_norm, message->mutable_state_gradient_norm());
    Assign(trace.carry_ratio, message->mutable_carry_ratio());
    Assign(trace.hidden_rms, message->mutable_hidden_rms());
    Assign(trace.cell_rms, message->mutable_cell_rms());
    if (loss_at_last) {
      Assign(trace.hidden_gradient_norm, message->mutable_lag_profile());
      std::reverse(message->mutable_lag_profile()->begin(), message->mutable_lag_profile()->end());
    }
    message->set_saturated_share(trace.saturated_share);
    for (int gate = 0; gate < trace.gates; ++gate) {
      message->add_gate_closed_share(trace.gate_closed[static_cast<size_t>(gate)]);
      message->add_gate_open_share(trace.gate_open[static_cast<size_t>(gate)]);
      message->add_gate_mean(trace.gate_mean[static_cast<size_t>(gate)]);
      message->add_gate_closed_unit_share(trace.gate_closed_units[static_cast<size_t>(gate)]);
    }
    FillUnitStats(trace, message);
    message->set_hidden_max_abs(Largest(trace.cell_max, Largest(trace.hidden_max, 0.0)));
    ++layer;
  }
}

template void FillLayerTimeStats(const nn::Network<float>&, v1::StepStats*);
template void FillLayerTimeStats(const nn::Network<double>&, v1::StepStats*);

}  // namespace gradwatch::train
