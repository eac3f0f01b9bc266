#ifndef GRADWATCH_SERVER_RPC_SERVER_H_
#define GRADWATCH_SERVER_RPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/jobs/dataset_store.h"
#include "server/jobs/job_manager.h"
#include "server/metrics/metrics.h"
#include "server/rpc/listen.h"
#include "server/rpc/stream_hub.h"

namespace gradwatch::rpc {

// Threads and queue places of each kind of call; see ServiceContext.
struct PoolOptions {
  int reads_threads = 4;
  int reads_queued_max = 1024;
  int control_threads = 16;
  int control_queued_max = 256;
  int heavy_threads = 2;
  int heavy_queued_max = 16;
};

struct ServerOptions {
  std::string listen = "127.0.0.1:7070";  // HOST:PORT; port 0: any free one.
  // A second port for operators, loopback only, plain text, with reflection.
  // Empty: none. The main port has reflection when it is loopback itself.
  std::string admin_listen;
  bool insecure_listen = false;  // Plain text beyond loopback is meant.
  TlsFiles tls;
  PoolOptions pools;
  StreamOptions streams;
};

// The gRPC server: the five services, health, reflection.
//
// Health (grpc.health.v1): the service "" is SERVING as long as the process
// lives, for liveness probes; kReadinessService is SERVING while new work is
// accepted, for readiness probes and balancers. Threads: every method may be
// called from any thread.
class Server {
 public:
  static constexpr char kReadinessService[] = "gradwatch.v1.Readiness";

  // Binds and serves; not ready until SetReady. Nothing that is passed is
  // owned; all of it outlives the server. INVALID_ARGUMENT,
  // FAILED_PRECONDITION: see listen.h.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       jobs::JobManager* jobs,
                                                       jobs::DatasetStore* datasets,
                                                       metrics::Metrics* metrics);
  // Shuts down within a second if that has not happened.
  ~Server();

  int port() const;
  int admin_port() const;  // 0: none.

  void SetReady(bool ready);
  bool ready() const;

  // In this order: not ready; jobs refuse new work and stop at their next step
  // boundary; streams end with UNAVAILABLE; calls under way get `grace` to end,
  // then they are cancelled. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_SERVER_H_
