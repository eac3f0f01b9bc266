#include "client/cli/exit_code.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/cli/text.h"
#include "proto/support/errors.h"

namespace gradwatch::cli {
namespace {

// "clipping.policies[0].global_norm.max_norm" without "[0]", and without a leading "job.".
std::string Plain(absl::string_view field) {
  std::string plain;
  bool inside = false;
  for (const char c : field) {
    if (c == '[') inside = true;
    if (!inside) plain += c;
    if (c == ']') inside = false;
  }
  return absl::StartsWith(plain, "job.") ? plain.substr(4) : plain;
}

// The flag for a field: its own, or that of what holds it.
std::string FlagFor(absl::string_view field, const std::map<std::string, std::string>& flags) {
  std::string path = Plain(field);
  while (!path.empty()) {
    if (const auto found = flags.find(path); found != flags.end()) return found->second;
    const size_t dot = path.rfind('.');
    path = dot == std::string::npos ? "" : path.substr(0, dot);
  }
  return "";
}

std::string ExplainFields(const std::vector<FieldViolation>& violations,
                          const ErrorContext& context) {
  std::string text = violations.size() == 1
                         ? std::string("a setting is not right:")
                         : absl::StrCat(violations.size(), " settings are not right:");
  for (const FieldViolation& violation : violations) {
    const std::string flag = FlagFor(violation.field, context.flags);
    absl::StrAppend(&text, "\n  ", violation.field.empty() ? "" : violation.field,
                    flag.empty() ? "" : absl::StrCat(" (", flag, ")"),
                    violation.field.empty() ? "" : ": ", violation.description);
  }
  return text;
}

// gRPC wraps the system's reason ("Connection refused") in several layers, outermost first.
std::string InnermostReason(absl::string_view message) {
  const size_t colon = message.rfind(": ");
  return std::string(colon == absl::string_view::npos ? message : message.substr(colon + 2));
}

std::string ExplainUnavailable(const absl::Status& status, const ErrorContext& context) {
  const std::string message(status.message());
  for (const absl::string_view sign :
       {"failed to connect", "Failed to connect", "DNS", "Connection refused", "Connect Failed"}) {
    if (!absl::StrContains(message, sign)) continue;
    const std::string reason = InnermostReason(message);
    const bool cut_off = absl::StrContains(reason, "closed") || absl::StrContains(reason, "SSL") ||
                         absl::StrContains(reason, "andshake");
    return absl::StrCat(
        "no server answers at ", context.server, " (", reason,
        "): ", cut_off ? "if it speaks TLS, see --tls, --ca-file, --cert and --key; else " : "",
        "start gradwatchd, or name another server with --server");
  }
  return absl::StrCat("the server at ", context.server, " is not there for us (", message,
                      "): see whether gradwatchd still runs, then try again");
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kOk;
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kDenied;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return kConflict;
    case absl::StatusCode::kDeadlineExceeded:
      return kTimeout;
    case absl::StatusCode::kUnavailable:
      return kUnavailable;
    default:
      return kFailed;
  }
}

int ExitCodeOf(v1::Job::State state) {
  switch (state) {
    case v1::Job::STATE_SUCCEEDED:
      return kOk;
    case v1::Job::STATE_CANCELLED:
      return kConflict;
    default:
      return kFailed;
  }
}

bool IsFinal(v1::Job::State state) {
  return state == v1::Job::STATE_SUCCEEDED || state == v1::Job::STATE_FAILED ||
         state == v1::Job::STATE_CANCELLED;
}

std::string Explain(const absl::Status& status, const ErrorContext& context) {
  if (const auto violations = FieldViolationsOf(status); !violations.empty()) {
    return ExplainFields(violations, context);
  }
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return ExplainUnavailable(status, context);
    case absl::StatusCode::kDeadlineExceeded:
      return absl::StrCat("no answer from ", context.server, " within ",
                          FormatElapsed(context.timeout),
                          ": try again, or wait longer with --timeout");
    case absl::StatusCode::kNotFound:
      if (!absl::StrContains(message, "jobs/")) return message;
      return absl::StrCat(message,
                          "; gradwatch list shows those that there are (a server that was started "
                          "anew has forgotten its jobs)");
    case absl::StatusCode::kUnimplemented:
      return absl::StrCat("the server at ", context.server,
                          " does not know this call: it is older than this program, or not "
                          "gradwatchd (",
                          message, ")");
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return absl::StrCat(message, ": see --tls, --ca-file, --cert and --key");
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return absl::StrCat("the server at ", context.server, " failed: ", message);
    default:
      return message.empty() ? absl::StatusCodeToString(status.code()) : message;
  }
}

}  // namespace gradwatch::cli
