#include "server/train/step_comparison.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "server/base/squares.h"
#include "server/stats/gradient_stats.h"
#include "server/train/flat_bytes.h"

namespace gradwatch::train {
namespace {

// Nothing where a norm is zero or not finite, or so small or large that their product left the
// range of a double.
std::optional<double> CosineOf(double product, double norm, double previous_norm) {
  const double norms = norm * previous_norm;
  if (!std::isfinite(product) || !std::isfinite(norms) || !(norms > 1e-280)) return std::nullopt;
  return std::clamp(product / norms, -1.0, 1.0);
}

}  // namespace

template <typename S>
StepComparison<S>::StepComparison(absl::Span<const S> weights,
                                  const std::vector<nn::Parameter>& parameters, size_t chunks)
    : parameters_(parameters),
      first_(static_cast<int64_t>(weights.size())),
      previous_(static_cast<int64_t>(weights.size())),
      first_norms_(parameters.size()),
      previous_norms_(parameters.size()),
      products_(chunks),
      distances_(parameters.size()) {
  std::copy(weights.begin(), weights.end(), first_.data());
  for (size_t p = 0; p < parameters.size(); ++p) first_norms_[p] = stats::Norm(Part(first_, p));
  first_norm_ = stats::CombineNorms(first_norms_);
}

template <typename S>
absl::Span<const S> StepComparison<S>::Part(const nn::Buffer<S>& flat, size_t parameter) const {
  const nn::Parameter& part = parameters_[parameter];
  return absl::MakeConstSpan(flat.data() + part.offset, static_cast<size_t>(part.size));
}

template <typename S>
void StepComparison<S>::Take(size_t index, int64_t offset, absl::Span<const S> gradient) {
  S* const previous = previous_.data() + offset;
  products_[index] = DotProduct(gradient.data(), previous, static_cast<int64_t>(gradient.size()));
  std::copy(gradient.begin(), gradient.end(), previous);
}

template <typename S>
void StepComparison<S>::FinishGradients(absl::Span<const size_t> chunks_of,
                                        absl::Span<const double> norms, v1::StepStats* record) {
  const double norm = stats::CombineNorms(norms);
  const double previous_norm = stats::CombineNorms(previous_norms_);
  double total = 0.0;
  size_t next = 0;
  for (size_t p = 0; p < norms.size(); ++p) {
    double product = 0.0;
    for (size_t chunk = 0; chunk < chunks_of[p]; ++chunk) product += products_[next++];
    total += product;
    const std::optional<double> cosine = CosineOf(product, norms[p], previous_norms_[p]);
    previous_norms_[p] = norms[p];
    if (!has_previous_ || !cosine.has_value() || record->tensors().empty()) continue;
    record->mutable_tensors(static_cast<int>(p))->set_gradient_cosine(*cosine);
  }
  const std::optional<double> cosine = CosineOf(total, norm, previous_norm);
  if (has_previous_ && cosine.has_value()) {
    record->set_gradient_cosine(*cosine);
    if (step_factor_ > 0.0) {
      record->set_step_curvature((1.0 - *cosine * (norm / previous_norm)) / step_factor_);
    }
  }
  ForgetStep();
  has_previous_ = true;
}

template <typename S>
void StepComparison<S>::RecordDistances(absl::Span<const double> distances,
                                        v1::StepStats* record) const {
  for (size_t p = 0; p < distances.size(); ++p) {
    record->mutable_tensors(static_cast<int>(p))->set_distance_from_start(distances[p]);
  }
  const double distance = stats::CombineNorms(distances);
  record->set_distance_from_start(distance);
  if (first_norm_ > 0.0) record->set_distance_ratio(distance / first_norm_);
}

template <typename S>
void StepComparison<S>::MeasureDistances(absl::Span<const S> weights, v1::StepStats* record) {
  for (size_t p = 0; p < distances_.size(); ++p) {
    const auto offset = static_cast<size_t>(parameters_[p].offset);
    const auto size = static_cast<size_t>(parameters_[p].size);
    distances_[p] = stats::DifferenceNorm<S>(weights.subspan(offset, size), Part(first_, p));
  }
  RecordDistances(distances_, record);
}

template <typename S>
std::string StepComparison<S>::Save() const {
  if (!has_previous_) return std::string();
  return ToBytes<S>(absl::MakeConstSpan(previous_.data(), static_cast<size_t>(previous_.size())));
}

template <typename S>
bool StepComparison<S>::Load(absl::string_view bytes) {
  has_previous_ = !bytes.empty();
  if (!has_previous_) return true;
  const auto size = static_cast<size_t>(previous_.size());
  if (!FromBytes(bytes, absl::MakeSpan(previous_.data(), size))) return false;
  for (size_t p = 0; p < previous_norms_.size(); ++p) {
    previous_norms_[p] = stats::Norm(Part(previous_, p));
  }
  return true;
}

template <typename S>
int64_t StepComparison<S>::MemoryBytesOf(int64_t weights, int64_t chunks) {
  return nn::SaturatingAdd(nn::SaturatingMultiply(weights, 2 * static_cast<int64_t>(sizeof(S))),
                           nn::SaturatingMultiply(chunks, static_cast<int64_t>(sizeof(double))));
}

template class StepComparison<float>;
template class StepComparison<double>;

}  // namespace gradwatch::train
