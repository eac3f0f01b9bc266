#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/base/status.h"
#include "server/nn/engine_level.h"
#include "tests/bench/commands.h"
#include "tests/bench/flags.h"
#include "tests/bench/step_job.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Tells what statistics cost of a step's CPU time. A trainer without statistics and one for "
    "each "
    "level take turns in one process, a few steps at a time, so that what disturbs one disturbs "
    "all.";

constexpr char kFooter[] = R"(
A level is off, basic or full, and behind '+' one measurement more at every step and no other:
compare, recurrent, probe, noise, none. Each round gives a quotient of a level's CPU time of a step
and that of 'off' in the same round, all threads together; the order changes from round to round.
Printed are the median of the quotients and the 95 % interval of that median, as per cent beyond off.

Examples:
  gradwatch_bench cost --preset charlm,tiny
  gradwatch_bench cost --cell gru --preset s128 --levels full,full+probe --json
)";

struct Flags {
  std::string cell = "lstm";
  int64_t layers = 1;
  std::string preset = "all";
  std::string levels = "basic,full";
  int threads = 1;
  int rounds = 40;
  double slice_ms = 20.0;
  bool json = false;
};

struct Level {
  std::string name;
  std::unique_ptr<train::Trainer> trainer;
  std::vector<double> quotients;  // One each round.
};

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

absl::StatusOr<Level> MakeLevel(const Flags& flags, const Shape& shape, const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, absl::MaxSplits('+', 1));
  StepSettings settings;
  ASSIGN_OR_RETURN(settings.cell, CellNamed(flags.cell));
  const auto statistics = StatisticsNamed(parts[0]);
  const auto diagnostics = DiagnosticsNamed(parts.size() > 1 ? parts[1] : "default");
  if (!statistics.ok() || !diagnostics.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--levels: '", name, "' is unknown; known are off, basic and full, each also ",
                     "with + and one of none, compare, recurrent, probe and noise"));
  }
  settings.statistics = *statistics;
  settings.diagnostics = *diagnostics;
  settings.layers = flags.layers;
  settings.shape = shape;
  Level level;
  level.name = name;
  ASSIGN_OR_RETURN(level.trainer, NewStepTrainer(settings));
  level.trainer->SetThreads(std::min(flags.threads, level.trainer->threads_useful()));
  return level;
}

// CPU time of a step, over at least `seconds` of it.
double TimeSlice(train::Trainer* trainer, double seconds) {
  v1::StepStats stats;
  const double begin = CpuSeconds();
  double now = begin;
  int steps = 0;
  do {
    trainer->Step(&stats);
    ++steps;
    now = CpuSeconds();
  } while (now - begin < seconds);
  return (now - begin) / steps;
}

// The first of `levels` is 'off'.
void RunRounds(const Flags& flags, std::vector<Level>* levels) {
  const double seconds = 1e-3 * flags.slice_ms;
  std::vector<double> times(levels->size());
  for (int round = -1; round < flags.rounds; ++round) {  // The first warms up.
    for (size_t i = 0; i < levels->size(); ++i) {
      const size_t at = round % 2 == 0 ? i : levels->size() - 1 - i;
      times[at] = TimeSlice((*levels)[at].trainer.get(), seconds);
    }
    if (round < 0) continue;
    for (size_t i = 1; i < levels->size(); ++i) {
      (*levels)[i].quotients.push_back(times[i] / times[0]);
    }
  }
}

void Print(const Flags& flags, const Shape& shape, const Level& level) {
  const auto percent = [](double quotient) { return 100.0 * (quotient - 1.0); };
  const auto [low, high] = *MedianIntervalOf(level.quotients);
  const double cost = percent(MedianOf(level.quotients));
  if (flags.json) {
    const nlohmann::ordered_json line = {{"engine", nn::EngineLevel()}, {"cell", flags.cell},
                                         {"layers", flags.layers},      {"config", shape.name},
                                         {"threads", flags.threads},    {"stats", level.name},
                                         {"cost_percent", cost},        {"low", percent(low)},
                                         {"high", percent(high)},       {"rounds", flags.rounds}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("%-5s %-8s %-16s %+7.2f %% of off  [%+.2f, %+.2f]\n", flags.cell.c_str(),
                shape.name.c_str(), level.name.c_str(), cost, percent(low), percent(high));
  }
  std::fflush(stdout);
}

absl::Status RunShape(const Flags& flags, const Shape& shape) {
  std::vector<std::string> names = absl::StrSplit(flags.levels, ',');
  names.insert(names.begin(), "off");
  std::vector<Level> levels;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(Level level, MakeLevel(flags, shape, name));
    levels.push_back(std::move(level));
  }
  RunRounds(flags, &levels);
  for (size_t i = 1; i < levels.size(); ++i) Print(flags, shape, levels[i]);
  return absl::OkStatus();
}

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "gradwatch_bench cost: %s\n", std::string(status.message()).c_str());
  return code;
}

}  // namespace

int RunCost(absl::Span<const std::string> args) {
  Flags flags;
  CLI::App app(kDescription, "gradwatch_bench cost");
  app.footer(kFooter);
  app.option_defaults()->always_capture_default();
  app.add_option("--cell", flags.cell, "Recurrent cell")
      ->check(CLI::IsMember({"gru", "lstm", "rnn"}));
  app.add_option("--layers", flags.layers, "Recurrent layers")->check(CLI::Range(1, 8));
  app.add_option("--preset", flags.preset,
                 "s128, m256, l512, xl1024, charlm, tiny, adding, a comma list, or all");
  app.add_option("--levels", flags.levels, "Levels, a comma list");
  app.add_option("--threads", flags.threads, "Threads of each trainer, as far as it can use them")
      ->check(CLI::Range(1, 1024));
  app.add_option("--rounds", flags.rounds, "Rounds")->check(CLI::Range(6, 100'000));
  app.add_option("--slice-ms", flags.slice_ms, "A turn lasts at least so long, and one step")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", flags.json, "One JSON object per line instead of text");
  if (const auto code = ParseFlags(app, args)) return *code;

  const absl::StatusOr<std::vector<Shape>> shapes = PresetsNamed(flags.preset);
  if (!shapes.ok()) return Complain(shapes.status(), 2);
  for (const Shape& shape : *shapes) {
    const absl::Status status = RunShape(flags, shape);
    if (!status.ok()) return Complain(status, absl::IsInvalidArgument(status) ? 2 : 1);
  }
  return 0;
}

}  // namespace gradwatch::bench
