#ifndef GRADWATCH_SERVER_BASE_STATUS_H_
#define GRADWATCH_SERVER_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradwatch {

// The same status with "context: " before its message; payloads are kept. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace gradwatch

#define GRADWATCH_CONCAT_INNER_(a, b) a##b
#define GRADWATCH_CONCAT_(a, b) GRADWATCH_CONCAT_INNER_(a, b)

// Returns from the enclosing function when `expr`, an absl::Status, is not OK.
#define RETURN_IF_ERROR(expr)                              \
  do {                                                     \
    if (absl::Status status_ = (expr); !status_.ok()) {    \
      return status_;                                      \
    }                                                      \
  } while (false)

// ASSIGN_OR_RETURN(auto value, F()): `value` gets what the StatusOr holds, or its error returns.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL_(GRADWATCH_CONCAT_(status_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.status();          \
  lhs = *std::move(tmp)

#endif  // GRADWATCH_SERVER_BASE_STATUS_H_
