#ifndef GRADWATCH_CLIENT_CLI_EXIT_CODE_H_
#define GRADWATCH_CLIENT_CLI_EXIT_CODE_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gradwatch/v1/job.pb.h"

// What the program's exit code and its error sentences say. Pure functions.
namespace gradwatch::cli {

inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;  // The operation, or the job that was waited for.
inline constexpr int kUsage = 2;   // A flag or a setting is wrong.
inline constexpr int kNotFound = 3;
inline constexpr int kDenied = 4;
inline constexpr int kConflict = 5;  // State does not allow it; waiting: the job was cancelled.
inline constexpr int kTimeout = 6;
inline constexpr int kUnavailable = 7;  // No server, or it went away.
inline constexpr int kInterrupted = 130;

int ExitCodeOf(const absl::Status& status);

// Of a job that was waited for; kOk for SUCCEEDED, kFailed for a state that is not final.
int ExitCodeOf(v1::Job::State state);

bool IsFinal(v1::Job::State state);

// What an error's sentences draw on.
struct ErrorContext {
  std::string server;
  absl::Duration timeout;
  // From a field's path ("model.hidden_units") to the flag that sets it ("--hidden").
  std::map<std::string, std::string> flags;
};

// One or more lines for people that say what happened and what to do: every bad field with its path
// and flag, where the server should be, how to wait longer. Without a line feed at the end.
std::string Explain(const absl::Status& status, const ErrorContext& context);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_EXIT_CODE_H_
