#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "nlohmann/json.hpp"
#include "server/base/status.h"
#include "server/nn/engine_level.h"
#include "tests/bench/commands.h"
#include "tests/bench/flags.h"
#include "tests/bench/step_job.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Times training steps of the service's own trainer: forward, loss, backward, statistics, "
    "clipping, optimizer, on one fixed batch, in float32. Flags, presets and the keys of a line "
    "are those of tests/bench/pytorch_step.py.";

constexpr char kFooter[] = R"(
Model: without --vocab random features, a recurrent network, a linear read-out of the last step and
the mean squared error; with --vocab tokens, an embedding, a read-out of every step and the cross-
entropy. --warmup steps are thrown away; then steps are timed one by one until both --min-steps and
--seconds are reached, never beyond --max-seconds.

Keys: median_ms min_ms p10_ms p90_ms n; cpu_ms cpu_min_ms (CPU time of a step, all threads);
steps_per_s; tokens_per_s; gemm_gflop (operations of the matrix products, as the algorithm needs
them), gflops (gemm_gflop / median), done_gflop (as the engine does them: the first layer's product
once per token of the vocabulary); loss_first loss_last; params; rss_start_mib (before the trainer is
made), peak_rss_mib; threads, threads_used (as in the service: no more than the step can use); stats;
engine (instruction set).

Examples:
  gradwatch_bench step --preset charlm --threads 2 --stats full
  gradwatch_bench step --cell gru --layers 2 --batch 64 --time 50 --input 128 --hidden 256 --json
)";

struct StepFlags {
  std::string cell = "lstm";
  int64_t layers = 1;
  Shape shape = {"custom", 32, 64, 64, 128, 0};
  std::string preset;
  std::string optimizer = "adam";
  double rate = 1e-3;
  double clip = 1.0;
  int threads = 1;
  std::string stats = "off";
  std::string diagnostics = "default";
  int64_t warmup = 3;
  int64_t steps_min = 10;
  double seconds_min = 2.0;
  double seconds_max = 60.0;
  uint64_t seed = 1;
  bool json = false;
};

void Bind(StepFlags* flags, CLI::App* app) {
  constexpr int64_t kSizeMax = 1 << 20;
  app->add_option("--cell", flags->cell, "Recurrent cell")
      ->check(CLI::IsMember({"gru", "lstm", "rnn"}));
  app->add_option("--layers", flags->layers, "Recurrent layers")->check(CLI::Range(1, 8));
  app->add_option("--batch", flags->shape.batch, "Rows")->check(CLI::Range(int64_t{1}, kSizeMax));
  app->add_option("--time", flags->shape.time, "Time steps")
      ->check(CLI::Range(int64_t{1}, kSizeMax));
  app->add_option("--input", flags->shape.input, "Input width, or embedding width with --vocab")
      ->check(CLI::Range(int64_t{1}, kSizeMax));
  app->add_option("--hidden", flags->shape.hidden, "Units of each layer")
      ->check(CLI::Range(1, 4096));
  app->add_option("--vocab", flags->shape.vocab, "0: regression on the last step; V: V symbols")
      ->check(CLI::Range(int64_t{0}, kSizeMax));
  app->add_option("--preset", flags->preset,
                  "s128, m256, l512, xl1024, charlm, tiny, adding, a comma list, or all");
  app->add_option("--optimizer", flags->optimizer)->check(CLI::IsMember({"adam", "sgd"}));
  app->add_option("--lr", flags->rate, "Learning rate");
  app->add_option("--clip", flags->clip, "Largest global norm; 0: no clipping")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--threads", flags->threads, "Threads of the trainer, as far as it can use them")
      ->check(CLI::Range(1, 1024));
  app->add_option("--stats", flags->stats, "off (or none), basic, full")
      ->check(CLI::IsMember({"off", "none", "basic", "full"}));
  app->add_option("--diagnostics", flags->diagnostics,
                  "What is measured beside: default, none, or one of compare, recurrent, probe and "
                  "noise, at every step");
  app->add_option("--warmup", flags->warmup, "Steps thrown away")->check(CLI::PositiveNumber);
  app->add_option("--min-steps", flags->steps_min, "Time at least so many steps")
      ->check(CLI::PositiveNumber);
  app->add_option("--seconds", flags->seconds_min, "Time at least so long")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--max-seconds", flags->seconds_max, "Never time longer")
      ->check(CLI::PositiveNumber);
  app->add_option("--seed", flags->seed, "Seed of weights and batch");
  app->add_flag("--json", flags->json, "One JSON object per line instead of text");
}

double SecondsOf(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// From the kernel's own page: getrusage would count the parent before this program was loaded.
int64_t PeakRssMib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, "VmHWM:")) return std::strtoll(line.c_str() + 6, nullptr, 10) / 1024;
  }
  return 0;
}

// Seconds of the timed steps, sorted.
struct Timing {
  std::vector<double> wall;
  std::vector<double> cpu;
  double loss_first = 0.0;
  double loss_last = 0.0;
};

Timing TimeSteps(const StepFlags& flags, train::Trainer* trainer) {
  Timing timing;
  v1::StepStats stats;
  for (int64_t i = 0; i < flags.warmup; ++i) {
    trainer->Step(&stats);
    if (i == 0) timing.loss_first = stats.loss();
  }
  const double begin = SecondsOf(CLOCK_MONOTONIC);
  for (double end = begin; end - begin <= flags.seconds_max;) {
    const double cpu = SecondsOf(CLOCK_PROCESS_CPUTIME_ID);
    const double start = SecondsOf(CLOCK_MONOTONIC);
    trainer->Step(&stats);
    end = SecondsOf(CLOCK_MONOTONIC);
    timing.wall.push_back(end - start);
    timing.cpu.push_back(SecondsOf(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    const auto steps = static_cast<int64_t>(timing.wall.size());
    if (steps >= flags.steps_min && end - begin >= flags.seconds_min) break;
  }
  timing.loss_last = stats.loss();
  std::sort(timing.wall.begin(), timing.wall.end());
  std::sort(timing.cpu.begin(), timing.cpu.end());
  return timing;
}

double MedianOf(const std::vector<double>& sorted) {
  const size_t n = sorted.size();
  return n % 2 == 1 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

double Rounded(double value, int digits) {
  const double scale = std::pow(10.0, digits);
  return std::round(value * scale) / scale;
}

int64_t ParametersOf(const train::Trainer& trainer) {
  int64_t entries = 0;
  for (const v1::ParameterInfo& info : trainer.parameters()) {
    int64_t size = 1;
    for (const int64_t extent : info.shape()) size *= extent;
    entries += size;
  }
  return entries;
}

nlohmann::ordered_json ResultOf(const StepFlags& flags, const StepSettings& settings,
                                const train::Trainer& trainer, const Timing& timing) {
  const Shape& shape = settings.shape;
  const size_t n = timing.wall.size();
  const double median = MedianOf(timing.wall);
  const StepFlop flop = StepFlopOf(settings.cell, settings.layers, shape);
  nlohmann::ordered_json result;
  result["peer"] = "gradwatch";
  result["engine"] = nn::EngineLevel();
  result["config"] = shape.name;
  result["cell"] = flags.cell;
  result["layers"] = settings.layers;
  result["batch"] = shape.batch;
  result["time"] = shape.time;
  result["input"] = shape.input;
  result["hidden"] = shape.hidden;
  result["vocab"] = shape.vocab;
  result["optimizer"] = flags.optimizer;
  result["threads"] = flags.threads;
  result["stats"] = flags.stats == "none" ? "off" : flags.stats;
  result["median_ms"] = Rounded(median * 1e3, 4);
  result["min_ms"] = Rounded(timing.wall.front() * 1e3, 4);
  result["p10_ms"] = Rounded(timing.wall[n / 10] * 1e3, 4);
  result["p90_ms"] = Rounded(timing.wall[9 * n / 10] * 1e3, 4);
  result["n"] = n;
  result["cpu_ms"] = Rounded(timing.cpu[n / 2] * 1e3, 4);
  result["cpu_min_ms"] = Rounded(timing.cpu.front() * 1e3, 4);
  result["steps_per_s"] = Rounded(1.0 / median, 3);
  result["tokens_per_s"] = Rounded(static_cast<double>(shape.batch * shape.time) / median, 1);
  result["gemm_gflop"] = Rounded(flop.needed / 1e9, 5);
  result["gflops"] = Rounded(flop.needed / median / 1e9, 2);
  result["done_gflop"] = Rounded(flop.done / 1e9, 5);
  result["loss_first"] = Rounded(timing.loss_first, 5);
  result["loss_last"] = Rounded(timing.loss_last, 5);
  result["params"] = ParametersOf(trainer);
  return result;
}

void Print(const nlohmann::ordered_json& result, bool json) {
  if (json) {
    std::printf("%s\n", result.dump().c_str());
  } else {
    const auto text = [&](const char* key) { return result[key].get<std::string>(); };
    const auto whole = [&](const char* key) {
      return static_cast<long>(result[key].get<int64_t>());
    };
    const auto number = [&](const char* key) { return result[key].get<double>(); };
    std::printf(
        "%-8s %-4s L%ld B%-4ld T%-4ld I%-4ld H%-5ld V%-4ld %-4s thr=%ld stats=%-6s  %9.3f ms/step "
        "(p10 %.3f p90 %.3f, n=%ld)  %9.1f steps/s  %10.0f tok/s  %7.2f GFLOP/s\n",
        text("config").c_str(), text("cell").c_str(), whole("layers"), whole("batch"),
        whole("time"), whole("input"), whole("hidden"), whole("vocab"), text("optimizer").c_str(),
        whole("threads"), text("stats").c_str(), number("median_ms"), number("p10_ms"),
        number("p90_ms"), whole("n"), number("steps_per_s"), number("tokens_per_s"),
        number("gflops"));
  }
  std::fflush(stdout);
}

absl::Status RunShape(const StepFlags& flags, const Shape& shape) {
  StepSettings settings;
  const absl::StatusOr<v1::Model::Cell> cell = CellNamed(flags.cell);
  if (!cell.ok()) return cell.status();
  const absl::StatusOr<v1::StatisticsLevel> statistics = StatisticsNamed(flags.stats);
  if (!statistics.ok()) return statistics.status();
  ASSIGN_OR_RETURN(settings.diagnostics, DiagnosticsNamed(flags.diagnostics));
  settings.cell = *cell;
  settings.layers = flags.layers;
  settings.shape = shape;
  settings.adam = flags.optimizer == "adam";
  settings.rate = flags.rate;
  settings.clip = flags.clip;
  settings.statistics = *statistics;
  settings.seed = flags.seed;

  const int64_t rss_start = PeakRssMib();
  const auto trainer = NewStepTrainer(settings);
  if (!trainer.ok()) return trainer.status();
  const int threads = std::min(flags.threads, (*trainer)->threads_useful());
  (*trainer)->SetThreads(threads);
  const Timing timing = TimeSteps(flags, trainer->get());
  nlohmann::ordered_json result = ResultOf(flags, settings, **trainer, timing);
  result["threads_used"] = threads;
  result["rss_start_mib"] = rss_start;
  result["peak_rss_mib"] = PeakRssMib();
  Print(result, flags.json);
  return absl::OkStatus();
}

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "gradwatch_bench step: %s\n", std::string(status.message()).c_str());
  return code;
}

}  // namespace

int RunStep(absl::Span<const std::string> args) {
  StepFlags flags;
  CLI::App app(kDescription, "gradwatch_bench step");
  app.footer(kFooter);
  app.option_defaults()->always_capture_default();
  Bind(&flags, &app);
  if (const auto code = ParseFlags(app, args)) return *code;

  std::vector<Shape> shapes = {flags.shape};
  if (!flags.preset.empty()) {
    absl::StatusOr<std::vector<Shape>> presets = PresetsNamed(flags.preset);
    if (!presets.ok()) return Complain(presets.status(), 2);
    shapes = *std::move(presets);
  }
  for (const Shape& shape : shapes) {
    const absl::Status status = RunShape(flags, shape);
    if (!status.ok()) return Complain(status, 1);
  }
  return 0;
}

}  // namespace gradwatch::bench
