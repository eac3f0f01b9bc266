#ifndef GRADWATCH_SERVER_JOBS_CORE_SCHEDULER_H_
#define GRADWATCH_SERVER_JOBS_CORE_SCHEDULER_H_

#include <atomic>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "server/base/mutex.h"

namespace gradwatch::jobs {

// Shares the cores between the jobs that train: each running job holds a seat, and each seat says
// how many threads its job may use from its next step on.
//
// Every seat has at least one thread. What is left of the cores is dealt one by one, in rounds,
// the seats that can use most first, none beyond what it can use. So the sum of all seats exceeds
// the cores only when there are more seats than cores, and no core is left over that some seat
// could use. Seats that are taken and given back change the others; a job sees that between two
// steps, so for the rest of a step there may be more threads than cores.
//
// Threads: safe. Lifetime: outlives its seats.
class CoreScheduler {
 public:
  // `cores` is at least 1.
  explicit CoreScheduler(int cores);
  ~CoreScheduler();

  class Seat;
  // A seat for a job that can use `useful` threads, at least 1. Its destructor gives it back.
  std::unique_ptr<Seat> Take(int useful);

 private:
  void Leave(const Seat* seat);
  void Deal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int cores_;
  // Leaf lock.
  Mutex mu_;
  // Those that can use most first; of equal ones the oldest.
  std::vector<Seat*> seats_ ABSL_GUARDED_BY(mu_);
};

class CoreScheduler::Seat {
 public:
  ~Seat() { scheduler_->Leave(this); }
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  // Threads to use from the next step on. Takes no lock.
  int threads() const { return threads_.load(std::memory_order_relaxed); }

 private:
  friend class CoreScheduler;
  Seat(CoreScheduler* scheduler, int useful) : scheduler_(scheduler), useful_(useful) {}

  CoreScheduler* const scheduler_;
  const int useful_;
  std::atomic<int> threads_{1};
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_CORE_SCHEDULER_H_
