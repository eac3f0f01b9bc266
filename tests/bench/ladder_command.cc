#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/support/spec_file.h"
#include "server/train/trainer.h"
#include "tests/bench/commands.h"
#include "tests/bench/flags.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Trains demonstration D7 clean, with a stretch of spoilt batches and, unclipped, with a single "
    "one, each with and without the response ladder, and compares the final losses.";

constexpr char kFooter[] = R"(
The jobs are deploy/examples/d7-gated-*.yaml. Spoilt batches have their inputs and targets multiplied
by --factor, or holes (NaN). A run's final loss is the mean over its last 50 steps. With the ladder a
run passes when that is at most 1.1 times the clean run's, without it when the run is lost or above
that. Exit code 1: one did not pass.

Example:
  gradwatch_bench ladder --cells gru,lstm --seeds 3
)";

constexpr double kGoodRatio = 1.1;
constexpr int64_t kFinalSteps = 50;

struct LadderFlags {
  std::string examples = GRADWATCH_SOURCE_DIR "/deploy/examples";
  std::vector<std::string> cells = {"gru", "lstm"};
  uint64_t seeds = 1;
  int64_t first_batch = -1;
  int64_t stretch = 20;
  double factor = 1e4;
};

struct Outcome {
  bool lost = false;  // The job would have failed.
  double loss = 0.0;  // Mean over the last kFinalSteps, each on new examples.
  std::map<std::string, int> actions;
};

// As the service runs it: a job fails after too many steps in a row that are not finite, or when
// its ladder stops it.
Outcome Train(v1::Job job) {
  train::FillDefaults(&job);
  const auto trainer = train::Trainer::Create(job, nullptr);
  Outcome outcome;
  v1::StepStats stats;
  while (!outcome.lost && (*trainer)->step() < job.training().step_limit()) {
    (*trainer)->Step(&stats);
    if (stats.step() >= job.training().step_limit() - kFinalSteps) {
      outcome.loss += stats.loss() / static_cast<double>(kFinalSteps);
    }
    for (const v1::Intervention& action : stats.interventions()) {
      ++outcome.actions[v1::Intervention::Kind_Name(action.kind()).substr(5)];
      outcome.lost = outcome.lost || action.kind() == v1::Intervention::KIND_STOP;
    }
    outcome.lost =
        outcome.lost || (!job.has_ladder() && (*trainer)->nonfinite_in_a_row() >=
                                                  job.training().non_finite().consecutive_max());
  }
  if (outcome.lost) outcome.loss = std::nan("");
  return outcome;
}

// Whether the run is good.
bool Report(const std::string& run, const Outcome& outcome, double clean, bool ladder) {
  const double ratio = outcome.loss / clean;
  const bool good = !outcome.lost && ratio <= kGoodRatio;
  const std::string actions = absl::StrJoin(outcome.actions, " ", absl::PairFormatter("x"));
  std::printf("%-34s %-7s %12.6g %9.3g  %-6s %s\n", run.c_str(), ladder ? "ladder" : "none",
              outcome.loss, ratio, outcome.lost ? "LOST" : (good ? "good" : "worse"),
              actions.c_str());
  std::fflush(stdout);
  return good;
}

// Trains `job` with the fault, alone and guarded.
bool RunFault(const std::string& name, v1::Job job, const v1::FaultInjection& fault, double clean) {
  *job.mutable_fault_injection() = fault;
  const bool alone = Report(name, Train(job), clean, false);
  job.mutable_ladder();
  const bool guarded = Report(name, Train(job), clean, true);
  return guarded && !alone;
}

bool RunCell(const LadderFlags& flags, const std::string& cell, uint64_t seed) {
  v1::Job job;
  const absl::Status read =
      ReadSpecFile(absl::StrCat(flags.examples, "/d7-gated-", cell, ".yaml"), &job);
  if (!read.ok()) {
    std::fprintf(stderr, "%s\n", std::string(read.message()).c_str());
    return false;
  }
  job.set_seed(seed);
  job.set_statistics_level(v1::STATISTICS_LEVEL_BASIC);
  const std::string stem = absl::StrCat(cell, " seed ", seed, ", ");
  const double clean = Train(job).loss;
  v1::Job guarded = job;
  guarded.mutable_ladder();
  // The ladder leaves a healthy run alone.
  const Outcome undisturbed = Train(guarded);
  Report(stem + "clean", undisturbed, clean, true);
  bool passed = undisturbed.loss == clean && undisturbed.actions.empty();

  v1::FaultInjection fault;
  fault.set_first_batch(flags.first_batch >= 0 ? flags.first_batch
                                               : job.training().step_limit() * 19 / 20);
  fault.set_batches(flags.stretch);
  fault.set_factor(flags.factor);
  const std::string stretch = absl::StrCat(stem, flags.stretch, " batches, ");
  passed = RunFault(stretch + "units", job, fault, clean) && passed;
  fault.set_not_a_number(true);
  passed = RunFault(stretch + "NaN", job, fault, clean) && passed;

  // Clipping alone outlives a single bad batch, so that one is tried without it.
  job.mutable_clipping()->clear_policies();
  fault.set_batches(1);
  fault.set_factor(flags.factor);
  const Outcome unclipped = Train(job);
  Report(stem + "unclipped", unclipped, clean, false);
  return RunFault(stem + "unclipped, 1 batch", job, fault, unclipped.loss) && passed;
}

}  // namespace

int RunLadder(absl::Span<const std::string> args) {
  LadderFlags flags;
  CLI::App app(kDescription, "gradwatch_bench ladder");
  app.footer(kFooter);
  app.add_option("--examples", flags.examples, "Folder of the job files");
  app.add_option("--cells", flags.cells, "gru, lstm")
      ->delimiter(',')
      ->check(CLI::IsMember({"gru", "lstm"}));
  app.add_option("--seeds", flags.seeds, "Seeds 0 to this minus 1")->check(CLI::PositiveNumber);
  app.add_option("--first-batch", flags.first_batch,
                 "The first spoilt batch; default: 19 twentieths of the run");
  app.add_option("--stretch", flags.stretch, "Spoilt batches in a row")->check(CLI::PositiveNumber);
  app.add_option("--factor", flags.factor, "What a spoilt batch is multiplied by");
  if (const auto code = ParseFlags(app, args)) return *code;
  std::printf("%-34s %-7s %12s %9s  %-6s %s\n", "run", "ladder", "final loss", "/ clean", "",
              "actions");
  bool passed = true;
  for (const std::string& cell : flags.cells) {
    for (uint64_t seed = 0; seed < flags.seeds; ++seed) {
      passed = RunCell(flags, cell, seed) && passed;
    }
  }
  std::printf("%s\n", passed ? "passed" : "NOT passed");
  return passed ? 0 : 1;
}

}  // namespace gradwatch::bench
