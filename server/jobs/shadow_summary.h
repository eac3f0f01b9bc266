#ifndef GRADWATCH_SERVER_JOBS_SHADOW_SUMMARY_H_
#define GRADWATCH_SERVER_JOBS_SHADOW_SUMMARY_H_

#include <cstdint>

#include "gradwatch/v1/clipping.pb.h"

namespace gradwatch::jobs {

// What `policy` would have done over `steps` steps: it would have clipped `clipped` of them, and
// its coefficients sum up to `coefficients`.
inline v1::ShadowSummary ShadowSummaryOf(const v1::ClipPolicy& policy, int64_t clipped,
                                         double coefficients, int64_t steps) {
  v1::ShadowSummary summary;
  if (steps == 0) return summary;
  summary.set_clip_rate(static_cast<double>(clipped) / static_cast<double>(steps));
  if (!policy.has_value()) {
    summary.set_mean_coefficient(coefficients / static_cast<double>(steps));
  }
  return summary;
}

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_SHADOW_SUMMARY_H_
