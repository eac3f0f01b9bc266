#include "server/train/recovery_points.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/train/flat_bytes.h"

namespace gradwatch::train {
namespace {

template <typename S>
bool AllFinite(absl::Span<const S> values) {
  return std::all_of(values.begin(), values.end(), [](S value) { return std::isfinite(value); });
}

template <typename S>
absl::Span<S> All(nn::Buffer<S>& buffer) {
  return absl::MakeSpan(buffer.data(), static_cast<size_t>(buffer.size()));
}

template <typename S>
void SavePoint(const typename RecoveryPoints<S>::Point& point, stats::StateWriter* writer) {
  const auto bytes = [](const nn::Buffer<S>& buffer) {
    return ToBytes(absl::MakeConstSpan(buffer.data(), static_cast<size_t>(buffer.size())));
  };
  writer->Int(point.step);
  writer->Int(point.updates_applied);
  writer->Int(point.steps_taken_back);
  writer->Bytes(bytes(point.weights));
  writer->Bytes(bytes(point.optimizer_state));
  writer->Int(static_cast<int64_t>(point.clip_states.size()));
  for (const std::string& state : point.clip_states) writer->Bytes(state);
  point.estimates.losses.SaveState(writer);
  point.estimates.norms.SaveState(writer);
}

template <typename S>
bool LoadPoint(stats::StateReader* reader, typename RecoveryPoints<S>::Point* point) {
  point->step = reader->Int();
  point->updates_applied = reader->Int();
  point->steps_taken_back = reader->Int();
  if (!FromBytes(reader->Bytes(), All(point->weights))) return false;
  if (!FromBytes(reader->Bytes(), All(point->optimizer_state))) return false;
  point->clip_states.clear();
  for (int64_t left = reader->Int(); left > 0 && reader->ok(); --left) {
    point->clip_states.emplace_back(reader->Bytes());
  }
  point->estimates.losses.LoadState(reader);
  point->estimates.norms.LoadState(reader);
  return reader->ok();
}

}  // namespace

template <typename S>
RecoveryPoints<S>::RecoveryPoints(int kept_max, int64_t apart, int64_t weights,
                                  int64_t optimizer_state)
    : apart_(apart), points_(static_cast<size_t>(kept_max) + 1) {
  for (Point& point : points_) {
    point.weights = nn::Buffer<S>(weights);
    point.optimizer_state = nn::Buffer<S>(optimizer_state);
  }
}

template <typename S>
bool RecoveryPoints<S>::Propose(absl::Span<const S> weights, absl::Span<const S> optimizer_state) {
  good_since_ = -1;
  if (!AllFinite(weights) || !AllFinite(optimizer_state)) return false;
  std::copy(weights.begin(), weights.end(), candidate().weights.data());
  std::copy(optimizer_state.begin(), optimizer_state.end(), candidate().optimizer_state.data());
  good_since_ = 0;
  return true;
}

template <typename S>
void RecoveryPoints<S>::NoteGood(int64_t needed) {
  if (has_candidate() && ++good_since_ >= needed) Prove();
}

template <typename S>
bool RecoveryPoints<S>::NewestIsTooNear() const {
  return kept_ > 1 && newest().step - next(true).step < apart_;
}

template <typename S>
void RecoveryPoints<S>::MakeRoom() {
  if (kept_ + 1 < static_cast<int>(points_.size())) {
    ++kept_;
  } else {
    std::rotate(points_.begin(), points_.begin() + 1, points_.begin() + kept_);
  }
}

template <typename S>
void RecoveryPoints<S>::Prove() {
  if (!NewestIsTooNear()) MakeRoom();
  std::swap(points_[static_cast<size_t>(kept_ - 1)], points_.back());
  good_since_ = -1;
}

template <typename S>
void RecoveryPoints<S>::SaveState(stats::StateWriter* writer) const {
  writer->Int(kept_);
  writer->Int(good_since_);
  for (int i = 0; i < kept_; ++i) SavePoint<S>(points_[static_cast<size_t>(i)], writer);
  if (has_candidate()) SavePoint<S>(points_.back(), writer);
}

template <typename S>
bool RecoveryPoints<S>::LoadState(stats::StateReader* reader) {
  const int64_t kept = reader->Int();
  good_since_ = reader->Int();
  if (!reader->ok() || kept < 0 || kept + 1 > static_cast<int64_t>(points_.size())) return false;
  kept_ = static_cast<int>(kept);
  for (int i = 0; i < kept_; ++i) {
    if (!LoadPoint<S>(reader, &points_[static_cast<size_t>(i)])) return false;
  }
  return !has_candidate() || LoadPoint<S>(reader, &points_.back());
}

template class RecoveryPoints<float>;
template class RecoveryPoints<double>;

}  // namespace gradwatch::train
