#ifndef GRADWATCH_SERVER_RPC_UNARY_H_
#define GRADWATCH_SERVER_RPC_UNARY_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"
#include "proto/support/grpc_status.h"
#include "server/base/thread_pool.h"
#include "server/metrics/metrics.h"
#include "server/rpc/service_context.h"

namespace gradwatch::rpc {

// A call that waited longer than this for a thread is not run: its caller has given up, or has set
// no deadline and would wait for ever.
constexpr absl::Duration kQueueTimeMax = absl::Seconds(60);

// Answers with what `work(request)` gives, an absl::StatusOr<Response>, at once and on gRPC's
// thread: for work that takes microseconds and waits for nothing but a short lock, where a
// hand-over would cost more than the work.
template <typename Request, typename Response, typename Work>
grpc::ServerUnaryReactor* RunAtOnce(metrics::RpcMethod* method,
                                    grpc::CallbackServerContext* context, const Request* request,
                                    Response* response, Work work) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  method->Started();
  absl::StatusOr<Response> result = work(*request);
  if (result.ok()) *response = *std::move(result);
  method->Handled(static_cast<int>(result.status().code()));
  reactor->Finish(ToGrpcStatus(result.status()));
  return reactor;
}

// The same on a thread of `pool`: nothing but this hand-over happens on gRPC's own
// few threads, so one slow call never holds up another. A full pool answers
// RESOURCE_EXHAUSTED with RetryInfo at once. A call that was cancelled, or
// whose deadline passed, while it waited for a thread is not run.
template <typename Request, typename Response, typename Work>
grpc::ServerUnaryReactor* RunUnary(ThreadPool* pool, metrics::RpcMethod* method,
                                   grpc::CallbackServerContext* context, const Request* request,
                                   Response* response, Work work) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  method->Started();
  const auto finish = [reactor, method](const absl::Status& status) {
    method->Handled(static_cast<int>(status.code()));
    reactor->Finish(ToGrpcStatus(status));
  };
  const bool queued = pool->Schedule([context, request, response, finish, queued_at = absl::Now(),
                                      work = std::move(work)]() mutable {
    if (context->IsCancelled()) return finish(absl::CancelledError("the caller gave up"));
    if (absl::Now() - queued_at > kQueueTimeMax) {
      return finish(absl::DeadlineExceededError("the server was too busy for 60 s"));
    }
    absl::StatusOr<Response> result = work(*request);
    if (!result.ok()) return finish(result.status());
    *response = *std::move(result);
    finish(absl::OkStatus());
  });
  if (!queued) finish(BusyError());
  return reactor;
}

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_UNARY_H_
