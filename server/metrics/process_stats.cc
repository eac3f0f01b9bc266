#include "server/metrics/process_stats.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace gradwatch::metrics {
namespace {

std::string ReadAll(const char* path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Seconds since the epoch at which the machine started; nothing when the kernel
// does not say.
std::optional<double> BootTime() {
  for (absl::string_view line : absl::StrSplit(ReadAll("/proc/stat"), '\n')) {
    if (!absl::ConsumePrefix(&line, "btime ")) continue;
    double seconds = 0.0;
    if (absl::SimpleAtod(line, &seconds)) return seconds;
  }
  return std::nullopt;
}

// Open file descriptors, without the one that this count needs.
std::optional<int64_t> OpenFiles() {
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  int64_t count = 0;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(folder);
  return count - 1;
}

}  // namespace

std::optional<ProcessStat> ParseProcessStat(absl::string_view text, int64_t ticks_per_second,
                                            int64_t page_bytes) {
  const size_t name_end = text.rfind(") ");
  if (name_end == absl::string_view::npos || ticks_per_second <= 0) return std::nullopt;
  // Field 3 of proc(5) is the first one behind the name.
  constexpr size_t kFirst = 3;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(text.substr(name_end + 2), ' ', absl::SkipEmpty());
  const auto field = [&](size_t number) -> std::optional<int64_t> {
    int64_t value = 0;
    if (number - kFirst >= fields.size()) return std::nullopt;
    if (!absl::SimpleAtoi(fields[number - kFirst], &value)) return std::nullopt;
    return value;
  };
  const auto user = field(14), system = field(15), start = field(22), bytes = field(23),
             pages = field(24);
  if (!user || !system || !start || !bytes || !pages) return std::nullopt;
  const auto ticks = static_cast<double>(ticks_per_second);
  return ProcessStat{static_cast<double>(*user + *system) / ticks,
                     static_cast<double>(*start) / ticks, *bytes, *pages * page_bytes};
}

void AddProcessSeries(FamilySet* out) {
  const auto stat =
      ParseProcessStat(ReadAll("/proc/self/stat"), sysconf(_SC_CLK_TCK), sysconf(_SC_PAGESIZE));
  if (stat) {
    out->Counter("process_cpu_seconds_total", "User and system CPU time in seconds.")
        .Add(stat->cpu_seconds);
    out->Gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")
        .Add(static_cast<double>(stat->virtual_bytes));
    out->Gauge("process_resident_memory_bytes", "Resident memory size in bytes.")
        .Add(static_cast<double>(stat->resident_bytes));
    if (const auto boot = BootTime()) {
      out->Gauge("process_start_time_seconds", "When the process started, since the epoch.")
          .Add(*boot + stat->start_seconds_after_boot);
    }
  }
  if (const auto open = OpenFiles()) {
    out->Gauge("process_open_fds", "Open file descriptors.").Add(static_cast<double>(*open));
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    out->Gauge("process_max_fds", "Largest number of open file descriptors.")
        .Add(static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace gradwatch::metrics
