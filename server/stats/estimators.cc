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

// Quantile q of n values, of which `at(i)` is the i-th smallest; n is at least 1.
template <typename At>
double Interpolate(size_t n, double q, At at) {
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(n - 1);
  const auto below = static_cast<size_t>(position);
  const double fraction = position - static_cast<double>(below);
  if (fraction == 0.0) return at(below);
  return at(below) + fraction * (at(below + 1) - at(below));
}

// The i-th smallest (from 0) of |value - center| over sorted values: the i + 1 values next to the
// center stand together, and one of their ends is the furthest.
double NthDistance(const std::vector<double>& sorted, double center, size_t i) {
  size_t first = 0;
  for (size_t last = sorted.size() - 1 - i; first < last;) {
    const size_t middle = first + (last - first) / 2;
    if (center - sorted[middle] > sorted[middle + i + 1] - center) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return std::max(std::abs(sorted[first] - center), std::abs(sorted[first + i] - center));
}

// How many of some sorted values are below `value`: by halves as long as they are many, then one by
// one, which has no branch that depends on them.
std::ptrdiff_t CountBelow(const std::vector<double>& sorted, double value) {
  constexpr size_t kFew = 64;
  const double* from = sorted.data();
  size_t size = sorted.size();
  while (size > kFew) {
    const size_t half = size / 2;
    if (from[half - 1] < value) from += half;
    size -= half;
  }
  std::ptrdiff_t below = from - sorted.data();
  for (size_t i = 0; i < size; ++i) below += from[i] < value ? 1 : 0;
  return below;
}

// Puts `value` where it belongs among sorted values, of which `old` is one and leaves.
void Replace(double old, double value, std::vector<double>* sorted) {
  const auto from = sorted->begin() + CountBelow(*sorted, old);
  const auto to = sorted->begin() + CountBelow(*sorted, value);
  if (to <= from) {
    std::move_backward(to, from, from + 1);
    *to = value;
  } else {
    std::move(from + 1, to, from);
    *(to - 1) = value;
  }
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
  sorted_.reserve(static_cast<size_t>(capacity));
}

void Window::Add(double value) {
  if (!std::isfinite(value)) return;
  in_order_ = in_order_ && asked_;
  asked_ = false;
  if (size() < capacity_) {
    ring_.push_back(value);
    if (in_order_) sorted_.insert(sorted_.begin() + CountBelow(sorted_, value), value);
    return;
  }
  double& oldest = ring_[static_cast<size_t>(next_)];
  if (in_order_) Replace(oldest, value, &sorted_);
  oldest = value;
  if (++next_ == capacity_) next_ = 0;
}

const std::vector<double>& Window::Sorted() const {
  if (!in_order_) {
    sorted_ = ring_;
    std::sort(sorted_.begin(), sorted_.end());
    in_order_ = true;
  }
  asked_ = true;
  return sorted_;
}

std::vector<double> Window::OldestFirst() const {
  std::vector<double> values = ring_;
  if (full()) std::rotate(values.begin(), values.begin() + next_, values.end());
  return values;
}

void Window::Resize(int capacity) {
  if (capacity == capacity_) return;
  const std::vector<double> values = OldestFirst();
  *this = Window(capacity);
  for (size_t i = values.size() - std::min(values.size(), static_cast<size_t>(capacity));
       i < values.size(); ++i) {
    Add(values[i]);
  }
}

double Window::Quantile(double q) const {
  if (ring_.empty()) return kNaN;
  const std::vector<double>& sorted = Sorted();
  return Interpolate(sorted.size(), q, [&](size_t i) { return sorted[i]; });
}

double Window::MedianDistance(double center) const {
  if (ring_.empty()) return kNaN;
  const std::vector<double>& sorted = Sorted();
  return Interpolate(sorted.size(), 0.5, [&](size_t i) { return NthDistance(sorted, center, i); });
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
  in_order_ = false;
  next_ = 0;
  if (size < 0 || size > capacity_ || next < 0 || next >= capacity_) {
    reader->Fail();
    return;
  }
  for (int64_t i = 0; i < size; ++i) {
    ring_.push_back(reader->Double());
    // Nothing else was ever added, and a search needs an order.
    if (!std::isfinite(ring_.back())) reader->Fail();
  }
  if (!reader->ok()) ring_.clear();
  next_ = static_cast<int>(next);
}

RecentShare::RecentShare(int capacity) : capacity_(capacity) {
  GRADWATCH_CHECK(capacity >= 1);
  ring_.reserve(static_cast<size_t>(capacity));
}

void RecentShare::Add(bool yes) {
  yeses_ += yes ? 1 : 0;
  if (size() < capacity_) {
    ring_.push_back(yes ? 1 : 0);
    return;
  }
  char& oldest = ring_[static_cast<size_t>(next_)];
  yeses_ -= oldest;
  oldest = yes ? 1 : 0;
  next_ = (next_ + 1) % capacity_;
}

double RecentShare::value() const {
  return ring_.empty() ? kNaN : static_cast<double>(yeses_) / size();
}

void RecentShare::Resize(int capacity) {
  if (capacity == capacity_) return;
  std::string answers = ring_;
  if (size() == capacity_) std::rotate(answers.begin(), answers.begin() + next_, answers.end());
  *this = RecentShare(capacity);
  for (size_t i = answers.size() - std::min(answers.size(), static_cast<size_t>(capacity));
       i < answers.size(); ++i) {
    Add(answers[i] != 0);
  }
}

void RecentShare::SaveState(StateWriter* writer) const {
  writer->Int(next_);
  writer->Bytes(ring_);
}

void RecentShare::LoadState(StateReader* reader) {
  const int64_t next = reader->Int();
  ring_ = std::string(reader->Bytes());
  const auto yeses = std::count(ring_.begin(), ring_.end(), 1);
  const bool answers = yeses + std::count(ring_.begin(), ring_.end(), 0) == std::ssize(ring_);
  if (size() > capacity_ || next < 0 || next >= capacity_ || !answers) reader->Fail();
  if (!reader->ok()) ring_.clear();
  next_ = reader->ok() ? static_cast<int>(next) : 0;
  yeses_ = reader->ok() ? static_cast<int>(yeses) : 0;
}

double LogMadWindow::RobustZ(double value) const {
  if (size() == 0 || !(value > 0.0)) return kNaN;
  const double center = logs_.Quantile(0.5);
  const double scale = kDeviationPerMad * logs_.MedianDistance(center);
  return (std::log(value) - center) / std::max(scale, kScaleFloor);
}

double LogMadWindow::Quantile(double q) const { return std::exp(logs_.Quantile(q)); }

void LogMadWindow::Add(double value) {
  if (value > 0.0) logs_.Add(std::log(value));
}

}  // namespace gradwatch::stats
