#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/base/status.h"
#include "server/nn/engine_level.h"
#include "tests/bench/commands.h"
#include "tests/bench/flags.h"
#include "tests/bench/step_job.h"
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define GRADWATCH_HAS_CALLGRIND 1
#else
#define GRADWATCH_HAS_CALLGRIND 0
#endif

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Makes a few training steps of each case for an instruction counter, and nothing else between "
    "its start and its stop. tests/bench/instruction_counts runs this under callgrind.";

constexpr char kFooter[] = R"(
Cases are all combinations of --cell, --shape, --stats and --diagnostics, on one thread, with Adam and a global norm
of 1. Shapes beside the presets: features (8 rows, 12 time steps, 24 inputs, 64 units) and tokens (the
same with an embedding and 29 symbols).

Example:
  valgrind --tool=callgrind --collect-atstart=no gradwatch_bench count --shape tiny --cell lstm
)";

constexpr int kWarmupSteps = 2;  // The first steps still allocate.

struct Flags {
  std::string cells = "lstm,gru,rnn";
  std::string shapes = "features,tokens";
  std::string stats = "off,full";
  std::string diagnostics = "default";
  int steps = 3;
};

struct Case {
  std::string name;
  StepSettings settings;
};

absl::StatusOr<std::vector<Shape>> ShapesNamed(const std::string& names) {
  std::vector<Shape> shapes;
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    if (name == "features") {
      shapes.push_back({"features", 8, 12, 24, 64, 0});
    } else if (name == "tokens") {
      shapes.push_back({"tokens", 8, 12, 24, 64, 29});
    } else {
      absl::StatusOr<std::vector<Shape>> presets = PresetsNamed(name);
      if (!presets.ok()) return presets.status();
      shapes.insert(shapes.end(), presets->begin(), presets->end());
    }
  }
  return shapes;
}

// One case for each of `names`; at level off, where none of them is measured, one in all.
absl::Status AddWithDiagnostics(const std::string& names, const std::string& case_name,
                                const StepSettings& settings, std::vector<Case>* cases) {
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    Case each = {case_name, settings};
    ASSIGN_OR_RETURN(each.settings.diagnostics, DiagnosticsNamed(name));
    const bool off = settings.statistics == v1::STATISTICS_LEVEL_OFF;
    if (name != "default" && !off) absl::StrAppend(&each.name, "+", name);
    cases->push_back(std::move(each));
    if (off) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Case>> CasesOf(const Flags& flags) {
  const absl::StatusOr<std::vector<Shape>> shapes = ShapesNamed(flags.shapes);
  if (!shapes.ok()) return shapes.status();
  std::vector<Case> cases;
  for (const absl::string_view cell_name : absl::StrSplit(flags.cells, ',')) {
    const absl::StatusOr<v1::Model::Cell> cell = CellNamed(cell_name);
    if (!cell.ok()) return cell.status();
    for (const Shape& shape : *shapes) {
      for (const absl::string_view stats : absl::StrSplit(flags.stats, ',')) {
        const absl::StatusOr<v1::StatisticsLevel> level = StatisticsNamed(stats);
        if (!level.ok()) return level.status();
        StepSettings settings;
        settings.cell = *cell;
        settings.shape = shape;
        settings.statistics = *level;
        const std::string name = absl::StrCat(cell_name, " ", shape.name, " ", stats);
        RETURN_IF_ERROR(AddWithDiagnostics(flags.diagnostics, name, settings, &cases));
      }
    }
  }
  return cases;
}

// The counter writes a file of its own for each case, which names it.
void CountSteps(train::Trainer* trainer, int steps, [[maybe_unused]] const std::string& name) {
  v1::StepStats stats;
  for (int i = 0; i < kWarmupSteps; ++i) trainer->Step(&stats);
#if GRADWATCH_HAS_CALLGRIND
  CALLGRIND_TOGGLE_COLLECT;
#endif
  for (int i = 0; i < steps; ++i) trainer->Step(&stats);
#if GRADWATCH_HAS_CALLGRIND
  CALLGRIND_TOGGLE_COLLECT;
  CALLGRIND_DUMP_STATS_AT(name.c_str());
#endif
}

bool Counts() {
#if GRADWATCH_HAS_CALLGRIND
  return RUNNING_ON_VALGRIND != 0;
#else
  return false;
#endif
}

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "gradwatch_bench count: %s\n", std::string(status.message()).c_str());
  return code;
}

}  // namespace

int RunCount(absl::Span<const std::string> args) {
  Flags flags;
  CLI::App app(kDescription, "gradwatch_bench count");
  app.footer(kFooter);
  app.option_defaults()->always_capture_default();
  app.add_option("--cell", flags.cells, "Cells, a comma list of lstm, gru and rnn");
  app.add_option("--shape", flags.shapes, "features, tokens, presets, a comma list");
  app.add_option("--stats", flags.stats, "Statistics, a comma list of off, basic and full");
  app.add_option(
      "--diagnostics", flags.diagnostics,
      "What is measured beside, a comma list of default, none, compare, recurrent, probe "
      "and noise, each at every step");
  app.add_option("--steps", flags.steps, "Steps that are counted")->check(CLI::Range(1, 1000));
  if (const auto code = ParseFlags(app, args)) return *code;

  const absl::StatusOr<std::vector<Case>> cases = CasesOf(flags);
  if (!cases.ok()) return Complain(cases.status(), 2);
  const nlohmann::ordered_json head = {{"engine", nn::EngineLevel()},
                                       {"compiler", __VERSION__},
                                       {"steps", flags.steps},
                                       {"counts", Counts()}};
  std::printf("%s\n", head.dump().c_str());
  for (const Case& each : *cases) {
    const auto trainer = NewStepTrainer(each.settings);
    if (!trainer.ok()) return Complain(trainer.status(), 1);
    CountSteps(trainer->get(), flags.steps, each.name);
  }
  return 0;
}

}  // namespace gradwatch::bench
