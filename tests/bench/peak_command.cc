#include <cstdio>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/bench/commands.h"
#include "tests/bench/flags.h"
#include "tests/bench/machine_peak.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Measures what this CPU can do at most: multiply-adds that touch only registers, for each "
    "vector "
    "width, and the triad a = b + s * c from each level of memory; on 1 thread, 2, and so on.";

constexpr char kFooter[] = R"(
Columns: best and median of bursts of about 2 ms. The best is the ceiling that other benchmarks are
compared with; a median far below it means that the machine was busy. Sizes are per thread.

Example:
  gradwatch_bench peak --threads 2 --seconds 0.5
)";

struct Level {
  const char* name;
  int64_t kib;
};

// Well within, or well beyond, the caches of today's CPUs.
constexpr Level kLevels[] = {{"L1", 24}, {"L2", 384}, {"L3", 4 << 10}, {"DRAM", 192 << 10}};

nlohmann::ordered_json MultiplyAdds(int threads, double seconds) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const int bits : VectorBits()) {
    const Rate rate = MultiplyAddRate(bits, threads, seconds);
    rows.push_back({{"bits", bits},
                    {"threads", threads},
                    {"gflops", rate.best / 1e9},
                    {"median_gflops", rate.median / 1e9}});
  }
  return rows;
}

nlohmann::ordered_json Triads(int threads, double seconds) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Level& level : kLevels) {
    const Rate rate = TriadRate(level.kib << 10, threads, seconds);
    rows.push_back({{"memory", level.name},
                    {"kib", level.kib},
                    {"threads", threads},
                    {"gb_per_s", rate.best / 1e9},
                    {"median_gb_per_s", rate.median / 1e9}});
  }
  return rows;
}

void PrintText(const nlohmann::ordered_json& result) {
  for (const auto& row : result["multiply_add"]) {
    std::printf("multiply-add %3d bits          %2d threads  best %8.1f  median %8.1f GFLOP/s\n",
                row["bits"].get<int>(), row["threads"].get<int>(), row["gflops"].get<double>(),
                row["median_gflops"].get<double>());
  }
  for (const auto& row : result["triad"]) {
    std::printf("triad %-4s %7d KiB         %2d threads  best %8.1f  median %8.1f GB/s\n",
                row["memory"].get<std::string>().c_str(), row["kib"].get<int>(),
                row["threads"].get<int>(), row["gb_per_s"].get<double>(),
                row["median_gb_per_s"].get<double>());
  }
}

}  // namespace

int RunPeak(absl::Span<const std::string> args) {
  int threads = 2;
  double seconds = 0.3;
  bool no_triad = false;
  bool json = false;
  CLI::App app(kDescription, "gradwatch_bench peak");
  app.footer(kFooter);
  app.option_defaults()->always_capture_default();
  app.add_option("--threads", threads, "Measure 1 to so many threads")->check(CLI::Range(1, 256));
  app.add_option("--seconds", seconds, "Time for each line")->check(CLI::PositiveNumber);
  app.add_flag("--no-triad", no_triad, "Multiply-adds only");
  app.add_flag("--json", json, "One JSON object instead of text");
  if (const auto code = ParseFlags(app, args)) return *code;

  nlohmann::ordered_json result;
  result["multiply_add"] = nlohmann::ordered_json::array();
  result["triad"] = nlohmann::ordered_json::array();
  for (int count = 1; count <= threads; ++count) {
    for (auto& row : MultiplyAdds(count, seconds)) result["multiply_add"].push_back(row);
    if (no_triad) continue;
    for (auto& row : Triads(count, seconds)) result["triad"].push_back(row);
  }
  if (json) {
    std::printf("%s\n", result.dump().c_str());
  } else {
    PrintText(result);
  }
  return 0;
}

}  // namespace gradwatch::bench
