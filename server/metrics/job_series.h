#ifndef GRADWATCH_SERVER_METRICS_JOB_SERIES_H_
#define GRADWATCH_SERVER_METRICS_JOB_SERIES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "server/jobs/job_manager.h"
#include "server/metrics/families.h"

namespace gradwatch::metrics {

// Label values, as metrics.h states them.
std::string StateLabel(v1::Job::State state);
std::string SeverityLabel(v1::Severity severity);
// "global_norm", "value+global_norm", "none".
std::string ClipModeLabel(const v1::Clipping& clipping);

// All series of one job. `rules` is the catalogue. What a job does not have yet
// (a loss before its first step, a threshold of a clip that it does not use)
// has no series.
void AddJobSeries(const jobs::JobSnapshot& snapshot, const std::vector<v1::Rule>& rules,
                  FamilySet* out);

// gradwatch_jobs by state and gradwatch_alerts_firing by severity, zeros
// included.
void AddSummarySeries(const std::vector<int64_t>& count_by_state,
                      const std::vector<jobs::JobSnapshot>& snapshots, FamilySet* out);

}  // namespace gradwatch::metrics

#endif  // GRADWATCH_SERVER_METRICS_JOB_SERIES_H_
