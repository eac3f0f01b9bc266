#include "server/version_text.h"

#include <fstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/version.h"
#include "server/nn/engine_level.h"

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

// By feature, because not every compiler knows the levels' names.
absl::flat_hash_set<absl::string_view> CpuFeatures() {
  absl::flat_hash_set<absl::string_view> features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto add = [&features](absl::string_view name, bool has) {
    if (has) features.insert(name);
  };
  add("SSE3", __builtin_cpu_supports("sse3"));
  add("SSSE3", __builtin_cpu_supports("ssse3"));
  add("SSE4.1", __builtin_cpu_supports("sse4.1"));
  add("SSE4.2", __builtin_cpu_supports("sse4.2"));
  add("POPCNT", __builtin_cpu_supports("popcnt"));
  add("AVX2", __builtin_cpu_supports("avx2"));
  add("FMA", __builtin_cpu_supports("fma"));
  add("BMI1", __builtin_cpu_supports("bmi"));
  add("BMI2", __builtin_cpu_supports("bmi2"));
  add("AVX512F", __builtin_cpu_supports("avx512f"));
  add("AVX512BW", __builtin_cpu_supports("avx512bw"));
  add("AVX512CD", __builtin_cpu_supports("avx512cd"));
  add("AVX512DQ", __builtin_cpu_supports("avx512dq"));
  add("AVX512VL", __builtin_cpu_supports("avx512vl"));
#endif
  return features;
}

// Each level has all that the levels below it have.
std::vector<absl::string_view> FeaturesOf(absl::string_view level) {
  std::vector<absl::string_view> features;
  const auto add = [&features](std::initializer_list<absl::string_view> more) {
    features.insert(features.end(), more);
  };
  if (!absl::StartsWith(level, "x86-64-v")) return features;
  add({"SSE3", "SSSE3", "SSE4.1", "SSE4.2", "POPCNT"});
  if (level >= "x86-64-v3") add({"AVX2", "FMA", "BMI1", "BMI2"});
  if (level >= "x86-64-v4") add({"AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512VL"});
  return features;
}

}  // namespace

std::string VersionText() {
  return absl::StrCat("gradwatchd ", Version(), "\ncommit ", Revision(), "\nengine ",
                      nn::EngineLevel(), "\ncpu ", CpuName(), "\n");
}

absl::Status CheckCpu() { return CheckLevel(GRADWATCH_LOWEST_LEVEL, CpuFeatures()); }

absl::Status CheckLevel(absl::string_view level,
                        const absl::flat_hash_set<absl::string_view>& features) {
  std::vector<absl::string_view> missing;
  for (absl::string_view feature : FeaturesOf(level)) {
    if (!features.contains(feature)) missing.push_back(feature);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "this CPU (", CpuName(), ") cannot run this build, whose engine needs at least ", level,
      "; missing: ", absl::StrJoin(missing, ", "), "; ",
      level > "x86-64-v2" ? "build with -DGRADWATCH_ENGINE_LEVELS=\"x86-64-v2;x86-64-v3\", or "
                          : "",
      "use a newer machine"));
}

}  // namespace gradwatch
