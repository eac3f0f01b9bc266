#ifndef GRADWATCH_SERVER_BASE_MUTEX_H_
#define GRADWATCH_SERVER_BASE_MUTEX_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#if defined(__SANITIZE_THREAD__)
#define GRADWATCH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GRADWATCH_TSAN 1
#endif
#endif

#ifdef GRADWATCH_TSAN
#include <chrono>
#include <condition_variable>
#include <mutex>
#endif

namespace gradwatch {

// The one lock of this program: absl::Mutex, and std::mutex under ThreadSanitizer, because the
// packaged Abseil is not instrumented and would be reported falsely.
//
// Waiting: Await(condition) blocks until `condition()` is true; the condition is called with the
// lock held, must be quick and may only read state that this lock guards. Nobody needs to signal:
// unlocking re-evaluates the conditions that others wait for.
// Threads: this is what makes other types thread-safe. Not recursive.
class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
#ifdef GRADWATCH_TSAN
    mu_.lock();
#else
    mu_.Lock();
#endif
  }

  void Unlock() ABSL_UNLOCK_FUNCTION() {
#ifdef GRADWATCH_TSAN
    changed_.notify_all();  // First: whoever sees the change may destroy this.
    mu_.unlock();
#else
    mu_.Unlock();
#endif
  }

  template <typename Condition>
  void Await(Condition condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
#ifdef GRADWATCH_TSAN
    std::unique_lock<std::mutex> lock(mu_, std::adopt_lock);
    changed_.notify_all();  // Waiting unlocks, too.
    changed_.wait(lock, condition);
    lock.release();
#else
    mu_.Await(absl::Condition(&Call<Condition>, &condition));
#endif
  }

  // Returns whether the condition was true when it returned; false after `timeout` of real time.
  template <typename Condition>
  bool AwaitFor(Condition condition, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
#ifdef GRADWATCH_TSAN
    std::unique_lock<std::mutex> lock(mu_, std::adopt_lock);
    changed_.notify_all();
    const bool met = changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), condition);
    lock.release();
    return met;
#else
    return mu_.AwaitWithTimeout(absl::Condition(&Call<Condition>, &condition), timeout);
#endif
  }

 private:
#ifdef GRADWATCH_TSAN
  std::mutex mu_;
  std::condition_variable changed_;
#else
  // The analysis cannot know that Abseil holds the lock while it calls this.
  template <typename Condition>
  static bool Call(Condition* condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return (*condition)();
  }
  absl::Mutex mu_;
#endif
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_->Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mu_;
};

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_MUTEX_H_
