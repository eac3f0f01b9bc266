#include "tests/bench/detection_cause.h"

#include <cmath>
#include <cstddef>
#include <numeric>

#include "tests/bench/summary.h"

namespace gradwatch::bench {

void CauseWatch::Observe(const v1::StepStats& stats) {
  if (family_.cause == "explosion") shown_ += Explodes(stats) ? 1 : 0;
  if (family_.cause == "plateau") shown_ += StandsStill(stats) ? 1 : 0;
}

std::optional<int64_t> CauseWatch::shown() const {
  const bool watched = family_.cause == "explosion" || family_.cause == "plateau";
  return watched ? std::optional<int64_t>(shown_) : std::nullopt;
}

bool CauseWatch::Explodes(const v1::StepStats& stats) {
  constexpr size_t kFirstNorms = 10;
  constexpr double kFactor = 10.0, kLarge = 1e3;
  const double loss = stats.loss(), norm = stats.norm_before();
  if (losses_.empty()) losses_.push_back(loss);
  if (first_norms_.size() < kFirstNorms) first_norms_.push_back(norm);
  if (!std::isfinite(loss) || !std::isfinite(norm) || norm > kLarge) return true;
  return loss > kFactor * losses_.front() || norm > kFactor * MedianOf(first_norms_);
}

bool CauseWatch::StandsStill(const v1::StepStats& stats) {
  constexpr ptrdiff_t kSpan = 100;
  constexpr double kShare = 0.98;
  losses_.push_back(stats.loss());
  if (std::ssize(losses_) < 2 * kSpan) return false;
  const double recent = std::accumulate(losses_.end() - kSpan, losses_.end(), 0.0);
  const double before = std::accumulate(losses_.end() - 2 * kSpan, losses_.end() - kSpan, 0.0);
  return recent > kShare * before;
}

}  // namespace gradwatch::bench
