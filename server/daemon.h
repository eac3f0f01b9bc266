#ifndef GRADWATCH_SERVER_DAEMON_H_
#define GRADWATCH_SERVER_DAEMON_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/daemon_options.h"

namespace gradwatch {

// Everything that gradwatchd runs, wired together: jobs, metrics, gRPC, HTTP.
// Threads: one at a time.
class Daemon {
 public:
  // Listens and is ready. FAILED_PRECONDITION: an address cannot be listened
  // on. INVALID_ARGUMENT: a bad address or TLS file.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options);
  ~Daemon();

  // "HOST:PORT" with the ports in force.
  std::string grpc_address() const;
  std::string http_address() const;

  // Not ready, jobs stop, streams end, calls get `grace`; HTTP goes last, so
  // that probes and a last scrape see the shutdown. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  explicit Daemon(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// Writes {"grpc": ADDRESS, "http": ADDRESS} so that a reader sees all of it or
// nothing.
absl::Status WritePortFile(const std::string& path, const Daemon& daemon);

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_DAEMON_H_
