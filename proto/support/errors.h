#ifndef GRADWATCH_PROTO_SUPPORT_ERRORS_H_
#define GRADWATCH_PROTO_SUPPORT_ERRORS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gradwatch {

// Rich errors as values: an absl::Status whose payloads are google.rpc detail messages (payload
// key = type URL, value = the serialised message). proto/support/grpc_status.h moves them onto the
// wire and back.

// One bad field: its path from the request's resource, such as "model.hidden_units", and a
// sentence with the value and what is allowed.
struct FieldViolation {
  std::string field;
  std::string description;
};

// INVALID_ARGUMENT with BadRequest (every violation) and ErrorInfo "INVALID_FIELD". The message
// names the first ones. Requires at least one violation.
absl::Status InvalidFields(const std::vector<FieldViolation>& violations);

// `code` and `message` with ErrorInfo: `reason` in UPPER_SNAKE_CASE, domain "gradwatch",
// `metadata` with every variable of the message.
absl::Status ErrorWithReason(
    absl::StatusCode code, absl::string_view message, absl::string_view reason,
    const std::vector<std::pair<std::string, std::string>>& metadata = {});

// The same status with RetryInfo.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

// What the details of `status` say; empty when there are none.
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);
std::string ReasonOf(const absl::Status& status);

}  // namespace gradwatch

#endif  // GRADWATCH_PROTO_SUPPORT_ERRORS_H_
