#ifndef GRADWATCH_SERVER_BASE_LOG_H_
#define GRADWATCH_SERVER_BASE_LOG_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace gradwatch {

// Lines go to standard error, one event a line, as text or as JSON objects with the keys time,
// level, message. Thread-safe. Before InitLog the level is info and the form is text.
enum class LogFormat { kText, kJson };
enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

void InitLog(LogFormat format, LogLevel level);

void LogLine(LogLevel level, absl::string_view message);

// Log(LogLevel::kInfo, "job %s started", name): formatted as absl::StrFormat does.
template <typename... Args>
void Log(LogLevel level, const absl::FormatSpec<Args...>& format, const Args&... args) {
  LogLine(level, absl::StrFormat(format, args...));
}

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_LOG_H_
