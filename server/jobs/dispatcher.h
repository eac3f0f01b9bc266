#ifndef GRADWATCH_SERVER_JOBS_DISPATCHER_H_
#define GRADWATCH_SERVER_JOBS_DISPATCHER_H_

#include <atomic>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"

namespace gradwatch::jobs {

// Does what steps bring about, such as waking readers, on one thread for all jobs, so that a
// trainer only says that there is something to do.
//
// Posting costs a trainer well under a microsecond and never waits: an item that is posted again
// before its turn has one turn, so the queue is bounded by the number of items, and the thread is
// woken only when it sleeps. After each round it leaves kPause for more to come, which bounds what
// waking costs trainers that make thousands of steps a second; the first step after a while is
// served at once.
//
// Threads: safe. Lifetime: items are kept as long as they are posted.
class Dispatcher {
 public:
  static constexpr absl::Duration kPause = absl::Microseconds(250);

  Dispatcher();
  ~Dispatcher();

  // Something that has turns.
  class Item {
   public:
    virtual ~Item() = default;
    // Runs on the dispatcher's thread, and sees everything that happened before Post.
    virtual void Serve() = 0;

   private:
    friend class Dispatcher;
    std::atomic<bool> posted_{false};
    // Set as long as it is posted.
    std::shared_ptr<Item> self_;
    Item* next_ = nullptr;
  };
  void Post(std::shared_ptr<Item> item);

  // Serves what is posted and ends the thread; what is posted later has its turn in the destructor.
  // Idempotent, by one thread at a time.
  void Stop();

 private:
  void Work();
  // Whether there was something.
  bool ServeAll();
  // False: it is to stop.
  bool AwaitPost();
  bool Pause();

  std::atomic<Item*> newest_{nullptr};  // A stack, linked by next_.
  std::atomic<bool> asleep_{false};     // Set and cleared with the lock held.
  Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_DISPATCHER_H_
