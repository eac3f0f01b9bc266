#include "server/version_text.h"

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/version.h"

namespace gradwatch {
namespace {

std::string CpuName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (!absl::StartsWith(line, "model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

// The levels of the x86-64 psABI by what they need; the engine's are tested by
// feature because not every compiler knows the levels' names.
bool CpuHasEngineLevel() {
#if defined(__x86_64__)
  if (absl::string_view(GRADWATCH_ENGINE_LEVEL) != "x86-64-v3") return true;
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#else
  return true;
#endif
}

}  // namespace

std::string VersionText() {
  return absl::StrCat("gradwatchd ", Version(), "\ncommit ", Revision(), "\nengine ",
                      GRADWATCH_ENGINE_LEVEL, "\ncpu ", CpuName(), "\n");
}

absl::Status CheckCpu() {
  if (CpuHasEngineLevel()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this CPU (", CpuName(), ") cannot run this build, whose engine needs ",
                   GRADWATCH_ENGINE_LEVEL,
                   " (AVX2, FMA, BMI); build with -DGRADWATCH_ENGINE_MARCH=x86-64-v2, or "
                   "use a newer machine"));
}

}  // namespace gradwatch
