#ifndef GRADWATCH_SERVER_DAEMON_OPTIONS_H_
#define GRADWATCH_SERVER_DAEMON_OPTIONS_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/base/log.h"
#include "server/jobs/dataset_store.h"
#include "server/jobs/job_manager.h"
#include "server/rpc/server.h"

namespace gradwatch {

// Everything that a user can set of gradwatchd.
struct DaemonOptions {
  rpc::ServerOptions rpc;
  std::string http_listen = "127.0.0.1:7071";
  jobs::JobLimits jobs;
  jobs::DatasetLimits datasets;
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  std::string port_file;  // Empty: none.
};

// What the command line asks for: to serve, or only to print something and end
// with `exit_code`.
struct CommandLine {
  DaemonOptions options;
  std::optional<int> exit_code;
  std::string output;  // To standard output with exit code 0, else to standard error.
};

// Reads the arguments (without the program's name) and, through `getenv`, the
// environment: a flag wins over GRADWATCH_..., which wins over the default. Bad
// values, in either, give exit code 2 and a sentence that names the flag or the
// variable, the value and what is allowed.
CommandLine ParseCommandLine(const std::vector<std::string>& arguments,
                             const std::function<const char*(const char*)>& getenv);

// "64MiB", "4GiB", "1000000": bytes, 1 and up; K, M, G and T with or without
// "iB" are powers of 1024. INVALID_ARGUMENT.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_DAEMON_OPTIONS_H_
