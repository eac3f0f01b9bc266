#include "server/metrics/metrics.h"

namespace gradwatch::metrics {

JobsView ReadJobs(const jobs::JobManager& manager) {
  return JobsView{manager.Snapshots(), manager.CountByState(), manager.GetTotals(),
                  jobs::StepDurationBounds()};
}

}  // namespace gradwatch::metrics
