#ifndef GRADWATCH_SERVER_RPC_WRITE_STREAM_H_
#define GRADWATCH_SERVER_RPC_WRITE_STREAM_H_

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/support/server_callback.h"
#include "proto/support/grpc_status.h"
#include "server/base/check.h"
#include "server/base/mutex.h"
#include "server/base/thread_pool.h"
#include "server/metrics/metrics.h"
#include "server/rpc/service_context.h"
#include "server/rpc/stream_hub.h"

namespace gradwatch::rpc {

// A call that writes a stream of Response messages: the one place that knows
// gRPC's rules for it.
//
// A derived class says where messages come from; this class asks it for the
// next one only when the transport has taken the last, so a slow reader costs
// one message of memory and never holds up whoever makes the events. Whoever
// makes them calls Wake.
//
// At any time at most one of these is under way: a task (on a pool, never on
// gRPC's threads) that opens, pulls or finishes; or one write. The task alone
// calls Finish, so Finish never meets an open write, and the derived class is
// never called from two threads at once.
//
// Lifetime: made with new and started by the service's method; deletes itself
// in OnDone.
template <typename Response>
class WriteStream : public grpc::ServerWriteReactor<Response>, public Stream {
 public:
  // Returns itself, for the service's method to return. `opener` runs Open and
  // may be slow.
  WriteStream* Start(ThreadPool* opener) {
    method_->Started();
    if (absl::Status status = hub_->Add(this); !status.ok()) {
      FinishNow(status);
    } else if (!opener->Schedule([this] { OpenAndRun(); })) {
      FinishNow(BusyError());
    }
    return this;
  }

  // There may be something to pull. Any thread; returns at once. May be called
  // within Open or Pull, and must not be called any more once Close has
  // returned.
  void Wake() {
    {
      MutexLock lock(&mu_);
      if (finished_) return;
      if (task_ || writing_) {
        again_ = true;
        return;
      }
      task_ = true;
    }
    Schedule();
  }

  void Tick(Time now) override {
    bool wake = false;
    {
      MutexLock lock(&mu_);
      if (finished_ || task_) return;
      if (writing_) {
        if (now - since_ > absl::ToChronoNanoseconds(hub_->options().write_stall_max)) {
          context_->TryCancel();
        }
        return;
      }
      if (now - since_ >= absl::ToChronoNanoseconds(hub_->options().heartbeat)) {
        heartbeat_due_ = wake = true;
      }
    }
    if (wake) Wake();
  }

  void End(const absl::Status& status) override {
    {
      MutexLock lock(&mu_);
      if (!end_.has_value()) end_ = status;
    }
    Wake();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mu_);
      writing_ = false;
      since_ = std::chrono::steady_clock::now();
      if (!ok && !end_.has_value()) end_ = absl::CancelledError("the reader went away");
    }
    Wake();
  }
  void OnCancel() override { End(absl::CancelledError("the reader went away")); }
  void OnDone() override {
    hub_->Remove(this);
    delete this;
  }

 protected:
  enum class Pulled { kNothing, kMessage, kEnd };

  WriteStream(StreamHub* hub, metrics::RpcMethod* method, grpc::CallbackServerContext* context)
      : hub_(hub), method_(method), context_(context) {}
  ~WriteStream() override = default;

  // Opens the source; an error ends the call.
  virtual absl::Status Open() = 0;
  // Fills `response` (whatever it held before), or says that there is nothing
  // now or no more.
  virtual absl::StatusOr<Pulled> Pull(Response* response) = 0;
  // Fills `response` with what a quiet stream sends. False: this stream has no
  // heartbeats.
  virtual bool Heartbeat(Response* response) = 0;
  // Lets go of the source. Also called when Open was not, or failed.
  virtual void Close() = 0;

 private:
  void Schedule() {
    const bool scheduled = hub_->pool()->Schedule([this] { Run(); });
    GRADWATCH_CHECK(scheduled);
  }

  void OpenAndRun() {
    absl::Status status = EndStatus().value_or(absl::OkStatus());
    if (status.ok()) status = Open();
    if (!status.ok()) return FinishNow(status);
    // Onwards on the hub's pool: the opener's threads are for others.
    Schedule();
  }

  std::optional<absl::Status> EndStatus() {
    MutexLock lock(&mu_);
    return end_;
  }

  // The task: until there is a message to write, nothing to do, or the end.
  void Run() {
    for (;;) {
      bool heartbeat_due = false;
      {
        MutexLock lock(&mu_);
        again_ = false;
        heartbeat_due = std::exchange(heartbeat_due_, false);
      }
      if (const auto end = EndStatus()) return FinishNow(*end);
      const absl::StatusOr<Pulled> pulled = Pull(&response_);
      if (!pulled.ok()) return FinishNow(pulled.status());
      if (*pulled == Pulled::kEnd) return FinishNow(absl::OkStatus());
      if (*pulled == Pulled::kMessage) return Write();
      if (heartbeat_due && Heartbeat(&response_)) return Write();
      MutexLock lock(&mu_);
      if (!again_) {
        task_ = false;
        return;
      }
    }
  }

  void Write() {
    {
      MutexLock lock(&mu_);
      task_ = false;
      writing_ = true;
      since_ = std::chrono::steady_clock::now();
    }
    this->StartWrite(&response_);
  }

  // The last thing that happens here: after Finish this object may be gone.
  void FinishNow(const absl::Status& status) {
    Close();
    {
      MutexLock lock(&mu_);
      finished_ = true;
    }
    method_->Handled(static_cast<int>(status.code()));
    this->Finish(ToGrpcStatus(status));
  }

  StreamHub* const hub_;
  metrics::RpcMethod* const method_;
  grpc::CallbackServerContext* const context_;
  Response response_;  // The task's or the open write's.

  // Leaf lock.
  Mutex mu_;
  bool task_ ABSL_GUARDED_BY(mu_) = true;  // Scheduled or running; first the one that opens.
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;  // Woken meanwhile.
  bool heartbeat_due_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
  // When the open write began; without one, when the last ended.
  Time since_ ABSL_GUARDED_BY(mu_) = std::chrono::steady_clock::now();
};

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_WRITE_STREAM_H_
