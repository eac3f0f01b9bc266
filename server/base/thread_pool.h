#ifndef GRADWATCH_SERVER_BASE_THREAD_POOL_H_
#define GRADWATCH_SERVER_BASE_THREAD_POOL_H_

#include <deque>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "server/base/mutex.h"

namespace gradwatch {

// A fixed number of threads over one bounded queue.
//
// Threads: Schedule may be called from any thread, from tasks too.
// Lifetime: the destructor runs what is queued, then joins; nothing may be scheduled by then.
class ThreadPool {
 public:
  ThreadPool(int threads, size_t queue_max);
  ~ThreadPool();

  // False, and the task is dropped, when `queue_max` tasks wait already.
  [[nodiscard]] bool Schedule(absl::AnyInvocable<void()> task);

 private:
  void Work();

  const size_t queue_max_;
  Mutex mu_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;  // Constant after construction.
};

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_THREAD_POOL_H_
