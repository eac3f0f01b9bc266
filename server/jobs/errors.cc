#include "server/jobs/errors.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "proto/support/errors.h"
#include "server/jobs/names.h"

namespace gradwatch::jobs {
namespace {

constexpr absl::Duration kRetryDelay = absl::Seconds(5);

}  // namespace

absl::Status NoSuchJob(absl::string_view name) {
  return ErrorWithReason(absl::StatusCode::kNotFound, absl::StrCat("there is no ", Quoted(name)),
                         "JOB_NOT_FOUND", {{"job", std::string(name)}});
}

absl::Status JobDeleted() {
  return ErrorWithReason(absl::StatusCode::kNotFound, "the job was deleted", "JOB_DELETED");
}

absl::Status ShuttingDown() {
  return WithRetryDelay(ErrorWithReason(absl::StatusCode::kUnavailable,
                                        "the server is shutting down", "SHUTTING_DOWN"),
                        kRetryDelay);
}

absl::Status StateConflict(absl::string_view name, v1::Job::State state, absl::string_view action,
                           absl::string_view advice) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         absl::StrCat(name, " is ", StateName(state), " and ", action,
                                      advice.empty() ? "" : "; ", advice),
                         "JOB_STATE_CONFLICT",
                         {{"job", std::string(name)}, {"state", StateName(state)}});
}

absl::Status Exhausted(absl::string_view message, absl::string_view reason, int64_t limit) {
  return WithRetryDelay(ErrorWithReason(absl::StatusCode::kResourceExhausted, message, reason,
                                        {{"limit", absl::StrCat(limit)}}),
                        kRetryDelay);
}

std::string StateName(v1::Job::State state) {
  const std::string name = v1::Job::State_Name(state);
  return std::string(absl::StripPrefix(name, "STATE_"));
}

bool IsFinal(v1::Job::State state) {
  return state == v1::Job::STATE_SUCCEEDED || state == v1::Job::STATE_FAILED ||
         state == v1::Job::STATE_CANCELLED;
}

}  // namespace gradwatch::jobs
