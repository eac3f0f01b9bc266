#include "server/stats/estimators.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "server/base/check.h"

namespace gradwatch::stats {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// A normal distribution's standard deviation in units of its median absolute deviation.
constexpr double kDeviationPerMad = 1.4826;

// Interpolated quantile; reorders `values`, which is not empty.
double QuantileOf(std::vector<double>* values, double q) {
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(values->size() - 1);
  const auto below = static_cast<ptrdiff_t>(position);
  const auto nth = values->begin() + below;
  std::nth_element(values->begin(), nth, values->end());
  const double fraction = position - static_cast<double>(below);
  if (fraction == 0.0) return *nth;
  const double above = *std::min_element(nth + 1, values->end());
  return *nth + fraction * (above - *nth);
}

}  // namespace

void Ema::Add(double value) {
  if (!std::isfinite(value)) return;
  sum_ = beta_ * sum_ + (1.0 - beta_) * value;
  weight_ = beta_ * weight_ + (1.0 - beta_);
  ++count_;
}

double Ema::value() const { return count_ == 0 ? kNaN : sum_ / weight_; }

void Ema::SaveState(StateWriter* writer) const {
  writer->Double(sum_);
  writer->Double(weight_);
  writer->Int(count_);
}

void Ema::LoadState(StateReader* reader) {
  sum_ = reader->Double();
  weight_ = reader->Double();
  count_ = reader->Int();
  if (count_ < 0 || !std::isfinite(sum_) || !std::isfinite(weight_)) reader->Fail();
}

Window::Window(int capacity) : capacity_(capacity) {
  GRADWATCH_CHECK(capacity >= 1);
  ring_.reserve(static_cast<size_t>(capacity));
  scratch_.reserve(static_cast<size_t>(capacity));
}

void Window::Add(double value) {
  if (!std::isfinite(value)) return;
  if (size() < capacity_) {
    ring_.push_back(value);
    return;
  }
  ring_[static_cast<size_t>(next_)] = value;
  next_ = (next_ + 1) % capacity_;
}

double Window::Quantile(double q) const {
  if (ring_.empty()) return kNaN;
  scratch_ = ring_;
  return QuantileOf(&scratch_, q);
}

double Window::MedianDistance(double center) const {
  if (ring_.empty()) return kNaN;
  scratch_ = ring_;
  for (double& value : scratch_) value = std::abs(value - center);
  return QuantileOf(&scratch_, 0.5);
}

void Window::SaveState(StateWriter* writer) const {
  writer->Int(next_);
  writer->Int(size());
  for (const double value : ring_) writer->Double(value);
}

void Window::LoadState(StateReader* reader) {
  const int64_t next = reader->Int();
  const int64_t size = reader->Int();
  ring_.clear();
  next_ = 0;
  if (size < 0 || size > capacity_ || next < 0 || next >= capacity_) {
    reader->Fail();
    return;
  }
  for (int64_t i = 0; i < size; ++i) ring_.push_back(reader->Double());
  next_ = static_cast<int>(next);
}

double LogMadWindow::RobustZ(double value) const {
  if (size() == 0 || !(value > 0.0)) return kNaN;
  const double center = logs_.Quantile(0.5);
  const double scale = kDeviationPerMad * logs_.MedianDistance(center);
  return (std::log(value) - center) / std::max(scale, kScaleFloor);
}

double LogMadWindow::median() const { return std::exp(logs_.Quantile(0.5)); }

void LogMadWindow::Add(double value) {
  if (value > 0.0) logs_.Add(std::log(value));
}

}  // namespace gradwatch::stats
