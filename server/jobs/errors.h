#ifndef GRADWATCH_SERVER_JOBS_ERRORS_H_
#define GRADWATCH_SERVER_JOBS_ERRORS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::jobs {

// NOT_FOUND, reason JOB_NOT_FOUND.
absl::Status NoSuchJob(absl::string_view name);
// NOT_FOUND, reason JOB_DELETED: it went while somebody looked.
absl::Status JobDeleted();
// UNAVAILABLE, reason SHUTTING_DOWN, with RetryInfo.
absl::Status ShuttingDown();
// FAILED_PRECONDITION, reason JOB_STATE_CONFLICT, with the job and its state as metadata. `action`
// as in "cannot be paused".
absl::Status StateConflict(absl::string_view name, v1::Job::State state, absl::string_view action,
                           absl::string_view advice);
// RESOURCE_EXHAUSTED, reason `reason`, with the limit as metadata and RetryInfo.
absl::Status Exhausted(absl::string_view message, absl::string_view reason, int64_t limit);

// "RUNNING".
std::string StateName(v1::Job::State state);
bool IsFinal(v1::Job::State state);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_ERRORS_H_
