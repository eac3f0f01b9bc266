#ifndef GRADWATCH_SERVER_BASE_THREAD_TEAM_H_
#define GRADWATCH_SERVER_BASE_THREAD_TEAM_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace gradwatch {

// A few threads that work on one thing together, again and again, a few microseconds to a few
// milliseconds at a time: the caller and its helpers.
//
// Whoever waits, looks for some 50 us and then sleeps: a short wait costs no system call, a long
// one no processor. Helpers take over the caller's floating-point mode, so that a result does not
// depend on the thread that makes it. They are started by the first Run that needs them.
//
// Threads: Run and SetThreads by one thread at a time, which need not always be the same.
class ThreadTeam {
 public:
  // At most `threads_max` threads, the caller included; at least 1.
  explicit ThreadTeam(int threads_max);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads_max() const { return threads_max_; }

  // How many threads the next Run uses, the caller included; held within 1 … threads_max. At
  // first 1.
  void SetThreads(int threads);
  int threads() const { return threads_; }

  // Runs body(member) once for each member 0 … threads - 1, member 0 on the calling thread, and
  // returns when all have returned. What the caller wrote before, every member sees; what they
  // write, the caller sees after. `body` must not throw and must not call Run.
  void Run(absl::FunctionRef<void(int)> body);

  // For members within Run: goes on when all members have come here. What each wrote before, all
  // see after.
  void Barrier();

 private:
  void Help(int member, uint32_t round);

  const int threads_max_;
  int threads_ = 1;
  std::vector<std::thread> helpers_;
  // Of the running round: written before it is announced.
  const absl::FunctionRef<void(int)>* body_ = nullptr;
  uint32_t arithmetic_mode_ = 0;

  // Count of rounds, and in the low byte how many members the round has; 0 members: the end.
  alignas(64) std::atomic<uint32_t> round_{1};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> passed_{0};  // Barriers that were passed.
};

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_THREAD_TEAM_H_
