#include "server/jobs/core_scheduler.h"

#include <algorithm>

#include "server/base/check.h"

namespace gradwatch::jobs {

CoreScheduler::CoreScheduler(int cores) : cores_(cores) { GRADWATCH_CHECK(cores >= 1); }

CoreScheduler::~CoreScheduler() {
  MutexLock lock(&mu_);
  GRADWATCH_CHECK(seats_.empty());
}

std::unique_ptr<CoreScheduler::Seat> CoreScheduler::Take(int useful) {
  GRADWATCH_CHECK(useful >= 1);
  std::unique_ptr<Seat> seat(new Seat(this, useful));
  MutexLock lock(&mu_);
  const auto place =
      std::upper_bound(seats_.begin(), seats_.end(), useful,
                       [](int wanted, const Seat* other) { return wanted > other->useful_; });
  seats_.insert(place, seat.get());
  Deal();
  return seat;
}

void CoreScheduler::Leave(const Seat* seat) {
  MutexLock lock(&mu_);
  seats_.erase(std::find(seats_.begin(), seats_.end(), seat));
  Deal();
}

void CoreScheduler::Deal() {
  std::vector<int> threads(seats_.size(), 1);
  int spare = cores_ - static_cast<int>(seats_.size());
  // Sorted by use: behind the first seat that has enough, all have.
  for (int round = 2; spare > 0 && !seats_.empty() && seats_.front()->useful_ >= round; ++round) {
    for (size_t i = 0; i < seats_.size() && seats_[i]->useful_ >= round && spare > 0; ++i) {
      threads[i] = round;
      --spare;
    }
  }
  for (size_t i = 0; i < seats_.size(); ++i) {
    seats_[i]->threads_.store(threads[i], std::memory_order_relaxed);
  }
}

}  // namespace gradwatch::jobs
