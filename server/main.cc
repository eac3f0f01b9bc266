// gradwatchd: the server. `gradwatchd --help` says how to use it.

#include <pthread.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/base/log.h"
#include "server/daemon.h"
#include "server/daemon_options.h"
#include "server/version_text.h"

namespace gradwatch {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(5);

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "gradwatchd: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

int Print(const CommandLine& line) {
  std::fputs(line.output.c_str(), *line.exit_code == 0 ? stdout : stderr);
  return *line.exit_code;
}

// The signals that end the server, blocked in this thread and all that it will
// start, so that they are only ever taken by WaitForEnd.
sigset_t BlockEndSignals() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Returns after the first signal. A second one ends the process at once.
void WaitForEnd(const sigset_t& signals) {
  int number = 0;
  sigwait(&signals, &number);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  Log(LogLevel::kInfo, "%s: shutting down; the same again ends at once",
      number == SIGINT ? "SIGINT" : "SIGTERM");
}

int Serve(const DaemonOptions& options) {
  // The packaged Abseil looks for cycles of locks at every Lock, under one lock for all.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  InitLog(options.log_format, options.log_level);
  const sigset_t signals = BlockEndSignals();
  auto daemon = Daemon::Start(options);
  if (!daemon.ok()) return Fail(daemon.status());
  Log(LogLevel::kInfo, "ready: gRPC on %s, metrics on http://%s/metrics", (*daemon)->grpc_address(),
      (*daemon)->http_address());
  if (!options.port_file.empty()) {
    if (absl::Status status = WritePortFile(options.port_file, **daemon); !status.ok()) {
      return Fail(status);
    }
  }
  WaitForEnd(signals);
  (*daemon)->Shutdown(kShutdownGrace);
  Log(LogLevel::kInfo, "stopped");
  return 0;
}

int Main(int argc, char** argv) {
  const CommandLine line =
      ParseCommandLine({argv + 1, argv + argc}, [](const char* name) { return std::getenv(name); });
  if (line.exit_code.has_value()) return Print(line);
  if (absl::Status status = CheckCpu(); !status.ok()) return Fail(status);
  return Serve(line.options);
}

}  // namespace
}  // namespace gradwatch

int main(int argc, char** argv) { return gradwatch::Main(argc, argv); }
