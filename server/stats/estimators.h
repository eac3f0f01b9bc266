#ifndef GRADWATCH_SERVER_STATS_ESTIMATORS_H_
#define GRADWATCH_SERVER_STATS_ESTIMATORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/base/export.h"
#include "server/stats/state_bytes.h"

// Running estimates over a stream of numbers. All of them drop NaN and infinities, are written and
// read back bit for bit, and belong to one thread at a time.
namespace gradwatch::stats {

// Exponential moving average with bias correction: after one value it is that value.
class GRADWATCH_ENGINE_API Ema {
 public:
  // `beta` in [0, 1): the weight of the past.
  explicit Ema(double beta) : beta_(beta) {}

  void Add(double value);
  double value() const;  // NaN before the first value.
  int64_t count() const { return count_; }
  // From now on the past weighs `beta`, as above; value() stays as it is.
  void SetBeta(double beta) { beta_ = beta; }

  void SaveState(StateWriter* writer) const;
  void LoadState(StateReader* reader);

 private:
  double beta_;
  double sum_ = 0.0;
  double weight_ = 0.0;  // 1 - beta^count.
  int64_t count_ = 0;
};

// The last values, with their quantiles. Where each value is followed by a question, a question is
// a search; where values come without one, they cost next to nothing and the question sorts them.
class GRADWATCH_ENGINE_API Window {
 public:
  // Keeps at most `capacity` values, at least 1.
  explicit Window(int capacity);

  void Add(double value);
  int size() const { return static_cast<int>(ring_.size()); }
  int capacity() const { return capacity_; }
  bool full() const { return size() == capacity_; }
  // The value that the next one pushes out; the window is full.
  double oldest() const { return ring_[static_cast<size_t>(next_)]; }
  std::vector<double> OldestFirst() const;
  // Keeps at most `capacity` values from now on, at least 1: of those that are there the newest.
  void Resize(int capacity);
  // Interpolated between order statistics (0 is the smallest, 0.5 the median, 1 the largest);
  // NaN when empty.
  double Quantile(double q) const;
  // Median of |value - center|; NaN when empty.
  double MedianDistance(double center) const;

  void SaveState(StateWriter* writer) const;
  void LoadState(StateReader* reader);

 private:
  const std::vector<double>& Sorted() const;

  int capacity_;
  int next_ = 0;  // Where the next value goes once the ring is full.
  std::vector<double> ring_;
  // The same values in order where in_order_ says so; brought up to date by questions.
  mutable std::vector<double> sorted_;
  mutable bool in_order_ = true;
  mutable bool asked_ = false;  // Since the newest value came.
};

// Over the last yeses and noes, the share of yeses.
class GRADWATCH_ENGINE_API RecentShare {
 public:
  // Keeps at most `capacity` answers, at least 1.
  explicit RecentShare(int capacity);

  void Add(bool yes);
  int size() const { return static_cast<int>(ring_.size()); }
  int capacity() const { return capacity_; }
  int yeses() const { return yeses_; }
  double value() const;  // NaN when empty.
  // Keeps at most `capacity` answers from now on, at least 1: of those that are there the newest.
  void Resize(int capacity);

  void SaveState(StateWriter* writer) const;
  void LoadState(StateReader* reader);

 private:
  int capacity_;
  int next_ = 0;  // Where the next answer goes once the ring is full.
  int yeses_ = 0;
  std::string ring_;  // One byte for each answer, 0 or 1.
};

// Robust outlier score in the log domain over the last positive values:
// z = (ln x - median) / max(1.4826 * MAD, 0.1), both taken over logarithms.
// The score is asked for before the value is added: inside its own window no value could score
// above (W - 1) / sqrt(W).
class GRADWATCH_ENGINE_API LogMadWindow {
 public:
  static constexpr int kCapacity = 128;
  static constexpr double kScaleFloor = 0.1;

  // Keeps at most `capacity` values, at least 1.
  explicit LogMadWindow(int capacity = kCapacity) : logs_(capacity) {}

  double RobustZ(double value) const;  // NaN when empty, or for a value that is not positive.
  double median() const { return Quantile(0.5); }
  double Quantile(double q) const;  // Of the values themselves; NaN when empty.
  int size() const { return logs_.size(); }
  int capacity() const { return logs_.capacity(); }
  void Add(double value);  // Drops what is not positive and finite.
  void Resize(int capacity) { logs_.Resize(capacity); }

  void SaveState(StateWriter* writer) const { logs_.SaveState(writer); }
  void LoadState(StateReader* reader) { logs_.LoadState(reader); }

 private:
  Window logs_;
};

}  // namespace gradwatch::stats

#endif  // GRADWATCH_SERVER_STATS_ESTIMATORS_H_
