#ifndef GRADWATCH_SERVER_RPC_STREAM_HUB_H_
#define GRADWATCH_SERVER_RPC_STREAM_HUB_H_

#include <chrono>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/base/thread_pool.h"
#include "server/metrics/metrics.h"

namespace gradwatch::rpc {

struct StreamOptions {
  int streams_max = 1000;                              // Open at once; beyond: RESOURCE_EXHAUSTED.
  int threads = 4;                                     // That fill messages.
  absl::Duration heartbeat = absl::Seconds(10);        // Idle time before one.
  absl::Duration write_stall_max = absl::Minutes(10);  // A message not taken by then ends the call.
  absl::Duration upload_idle_max = absl::Minutes(1);   // An upload that sends nothing ends.
};

// One open stream, as the hub sees it. Both are quick and never block.
class Stream {
 public:
  using Time = std::chrono::steady_clock::time_point;
  virtual ~Stream() = default;
  // Called a few times within each heartbeat.
  virtual void Tick(Time now) = 0;
  // End the call with this status as soon as no message is under way.
  virtual void End(const absl::Status& status) = 0;
};

// All open streams: their bound, their clock, their end at shutdown. The pool's
// queue holds one task for each stream, so scheduling a stream's own task never
// fails.
//
// Threads: every method may be called from any thread. One thread ticks.
// Lifetime: every stream is gone before the hub is.
class StreamHub {
 public:
  StreamHub(const StreamOptions& options, metrics::Metrics* metrics);
  ~StreamHub();

  const StreamOptions& options() const { return options_; }
  ThreadPool* pool() { return &pool_; }

  // RESOURCE_EXHAUSTED: full. After EndAll its status. A stream that is in is
  // taken out by Remove, after which the hub does not touch it any more.
  absl::Status Add(Stream* stream);
  void Remove(Stream* stream);

  // Ends every stream, and refuses new ones, with `status`.
  void EndAll(const absl::Status& status);

 private:
  void TickUntilStopped();

  const StreamOptions options_;
  metrics::Metrics* const metrics_;
  ThreadPool pool_;
  // Held while streams are called, so that none goes away meanwhile.
  Mutex mu_;
  absl::flat_hash_set<Stream*> streams_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> ended_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread ticker_;
};

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_STREAM_HUB_H_
