#ifndef GRADWATCH_SERVER_JOBS_SETTINGS_H_
#define GRADWATCH_SERVER_JOBS_SETTINGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/intervention.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/job_service.pb.h"

namespace gradwatch::jobs {

// Which settings of a job an update changes: the paths of its mask, or those that are set in its
// job. INVALID_ARGUMENT names every path that cannot be changed and lists those that can.
absl::StatusOr<std::vector<std::string>> UpdatePaths(const v1::UpdateJobRequest& request);

// Copies the settings at `paths` from `from` to `to`; what is unset there gets its default.
void ApplyPaths(const v1::Job& from, const std::vector<std::string>& paths, v1::Job* to);

// What an edit at `paths` from `before` to `after` changed of what training or the rules see.
// Values as v1::SettingChange says.
std::vector<v1::SettingChange> ChangesBetween(const v1::Job& before, const v1::Job& after,
                                              const std::vector<std::string>& paths);

// Whether some path is one that training or the rules see, so that it has to wait for a step
// boundary.
bool StepsSee(const std::vector<std::string>& paths);
// Whether the rules see it.
bool RulesSee(const std::vector<std::string>& paths);

// `job` without its output-only fields.
v1::Job RequestedPart(const v1::Job& job);

// The top-level fields in which two jobs differ, by name.
std::vector<std::string> DifferingFields(const v1::Job& a, const v1::Job& b);

// The seed of a job that asks for none.
uint64_t SeedOf(absl::string_view job_id);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_SETTINGS_H_
