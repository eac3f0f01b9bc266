#ifndef GRADWATCH_SERVER_METRICS_PROCESS_STATS_H_
#define GRADWATCH_SERVER_METRICS_PROCESS_STATS_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/metrics/families.h"

namespace gradwatch::metrics {

// What the kernel says of a process, from the text of /proc/PID/stat.
struct ProcessStat {
  double cpu_seconds = 0.0;  // User and system.
  double start_seconds_after_boot = 0.0;
  int64_t virtual_bytes = 0;
  int64_t resident_bytes = 0;
};

// Nothing when the text has another form. The name in it may hold spaces and
// brackets.
std::optional<ProcessStat> ParseProcessStat(absl::string_view text, int64_t ticks_per_second,
                                            int64_t page_bytes);

// The usual process_* series of this process. What cannot be read has no
// series.
void AddProcessSeries(FamilySet* out);

}  // namespace gradwatch::metrics

#endif  // GRADWATCH_SERVER_METRICS_PROCESS_STATS_H_
