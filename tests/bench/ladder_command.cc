#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/support/spec_file.h"
#include "server/data/source.h"
#include "server/train/trainer.h"
#include "tests/bench/commands.h"
#include "tests/bench/flags.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Trains demonstration D7 clean, with a stretch of spoilt batches and, unclipped, with a single "
    "one, each with and without the response ladder, and compares the final losses.";

constexpr char kFooter[] = R"(
The jobs are deploy/examples/d7-gated-*.yaml; a ladder in such a file is the one that is tried. Spoilt
batches have their inputs and targets multiplied by --factor, or holes (NaN). A run's final loss is on
held-out examples, the same for all runs of a seed: the mean over 25 evaluations within the last 50
steps, since weights jump about from step to step.

The medians over the seeds are judged: with the ladder at most 1.1 times the clean run, without it more
than that, or lost. Beside a median stand its interval of 95 % (order statistics, from 6 seeds on) and
how many of the runs are within 1.1. Exit code 1: a median did not pass, or the ladder touched a clean
run.

The run with the ladder goes on where the data are good again, so it ends on other batches than the clean
run, and by that alone elsewhere. So there is a second clean run, 'same end': no fault and no ladder, as
many updates, and from the fault on those batches that the run with the ladder read last. 'rescue' is
the loss with the ladder over that of this run. Both tell what of a ratio is chance; neither is judged.

Example:
  gradwatch_bench ladder --cells lstm --seeds 8
)";

constexpr double kGoodRatio = 1.1;
// The last steps before each of which the final loss is measured.
constexpr int64_t kFinalSteps = 50;
constexpr int64_t kEvaluateEvery = 2;
// Behind every batch that a run reads.
constexpr int64_t kNever = 1'000'000'000;

struct LadderFlags {
  std::string examples = GRADWATCH_SOURCE_DIR "/deploy/examples";
  std::vector<std::string> cells = {"gru", "lstm"};
  uint64_t first_seed = 0;
  uint64_t seeds = 24;
  int64_t first_batch = -1;
  int64_t stretch = 20;
  double factor = 1e4;
};

struct Outcome {
  double loss = 0.0;        // On held-out examples; infinite when the job would have failed.
  int64_t updates = 0;      // Those that a roll back took back do not count.
  int64_t left_out = 0;     // Batches that were not read.
  int64_t batches_end = 0;  // Number of the one after the last.
  std::map<std::string, int> actions;
  std::string went_back_to;  // The steps.
};

// What all runs of a seed share: everything before the fault.
struct Shared {
  v1::Job job;  // With a ladder, and a fault that never comes.
  int64_t first_batch = 0;
  v1::Checkpoint before_fault;
  double clean = 0.0;  // The loss without fault and ladder.
};

// One for each seed: ratios to the clean run, and of guarded to same_end.
struct Ratios {
  std::vector<double> alone;
  std::vector<double> guarded;
  std::vector<double> same_end;
  std::vector<double> rescue;
};

// By what was tried, for one cell.
using Summary = std::map<std::string, Ratios>;

void NoteActions(const v1::StepStats& stats, Outcome* outcome) {
  for (const v1::Intervention& action : stats.interventions()) {
    ++outcome->actions[v1::Intervention::Kind_Name(action.kind()).substr(5)];
    outcome->left_out += action.batches_skipped();
    if (action.has_restored_step()) {
      absl::StrAppend(&outcome->went_back_to, " to ", action.restored_step());
    }
  }
}

// As the service runs it: a job fails after too many steps in a row that are not finite, or when
// its ladder stops it.
bool HasFailed(const v1::Job& job, const train::Trainer& trainer, const Outcome& outcome) {
  if (job.has_ladder()) return outcome.actions.contains("STOP");
  return trainer.nonfinite_in_a_row() >= job.training().non_finite().consecutive_max();
}

// The mean of the last 25: a roll back that comes late moves the end, so that there were others.
double FinalLossOf(const std::vector<double>& losses) {
  constexpr auto kEvaluations = static_cast<ptrdiff_t>(kFinalSteps / kEvaluateEvery);
  const auto count = std::min(std::ssize(losses), kEvaluations);
  const double mean =
      std::accumulate(losses.end() - count, losses.end(), 0.0) / static_cast<double>(count);
  return std::isfinite(mean) ? mean : std::numeric_limits<double>::infinity();
}

Outcome Finish(const v1::Job& job, train::Trainer* trainer) {
  Outcome outcome;
  v1::StepStats stats;
  std::vector<double> losses;
  bool failed = false;
  const auto left = [&] { return trainer->settings().training().step_limit() - trainer->step(); };
  while (!failed && left() > 0) {
    if (left() <= kFinalSteps && left() % kEvaluateEvery == 0) {
      losses.push_back(trainer->Evaluate().loss());
    }
    trainer->Step(&stats);
    NoteActions(stats, &outcome);
    failed = HasFailed(job, *trainer, outcome);
  }
  outcome.loss = failed ? std::numeric_limits<double>::infinity() : FinalLossOf(losses);
  outcome.updates = trainer->updates_applied();
  outcome.batches_end = trainer->step() + outcome.left_out;
  return outcome;
}

// The whole run without fault and ladder.
double TrainClean(v1::Job job) {
  job.clear_ladder();
  job.clear_fault_injection();
  return Finish(job, train::Trainer::Create(job, nullptr)->get()).loss;
}

Outcome GoOn(const v1::Job& job, const v1::Checkpoint& checkpoint) {
  return Finish(job, train::Trainer::Restore(job, nullptr, checkpoint)->get());
}

// From the first spoilt batch on, without fault and ladder: as many updates as `rescued` had, and
// at the end the same batches.
Outcome EndAlike(const Shared& shared, const Outcome& rescued) {
  v1::Job job = shared.job;
  job.clear_ladder();
  const int64_t updates = rescued.updates - shared.first_batch;
  const auto source = *data::NewSource(job, nullptr);
  source->Seek(rescued.batches_end - updates);
  v1::Checkpoint checkpoint = shared.before_fault;
  checkpoint.set_step(job.training().step_limit() - updates);
  checkpoint.set_data_state(source->SaveState());
  return GoOn(job, checkpoint);
}

// The ratio.
double Report(const std::string& run, const char* kind, const Outcome& outcome, double clean) {
  const double ratio = outcome.loss / clean;
  const char* verdict = ratio <= kGoodRatio ? "good" : std::isinf(ratio) ? "LOST" : "worse";
  const std::string actions = absl::StrJoin(outcome.actions, " ", absl::PairFormatter("x"));
  std::printf("%-34s %-8s %12.6g %9.3g  %-6s %s%s\n", run.c_str(), kind, outcome.loss, ratio,
              verdict, actions.c_str(), outcome.went_back_to.c_str());
  std::fflush(stdout);
  return ratio;
}

// The clean runs of `job`, which has a fault that never comes. False: the ladder touched it.
bool Prepare(const std::string& name, v1::Job job, int64_t first_batch, Shared* shared) {
  job.mutable_ladder();
  train::FillDefaults(&job);
  shared->job = job;
  shared->first_batch = first_batch;
  shared->clean = TrainClean(job);
  const auto trainer = *train::Trainer::Create(job, nullptr);
  Outcome before;
  v1::StepStats stats;
  while (trainer->step() < first_batch) {
    trainer->Step(&stats);
    NoteActions(stats, &before);
  }
  shared->before_fault = trainer->Save();
  const Outcome guarded = Finish(job, trainer.get());
  Report(name, "ladder", guarded, shared->clean);
  return guarded.loss == shared->clean && before.actions.empty() && guarded.actions.empty();
}

// Goes on from before the fault: alone, guarded, and clean with the batches of the guarded one.
void RunFault(const std::string& name, const Shared& shared, const v1::FaultInjection& fault,
              Ratios* ratios) {
  v1::Job job = shared.job;
  *job.mutable_fault_injection() = fault;
  const Outcome guarded = GoOn(job, shared.before_fault);
  job.clear_ladder();
  const Outcome alone = GoOn(job, shared.before_fault);
  ratios->alone.push_back(Report(name, "none", alone, shared.clean));
  ratios->guarded.push_back(Report(name, "ladder", guarded, shared.clean));
  if (std::isinf(guarded.loss)) return;
  const Outcome same_end = EndAlike(shared, guarded);
  ratios->same_end.push_back(Report(name, "same end", same_end, shared.clean));
  ratios->rescue.push_back(guarded.loss / same_end.loss);
}

bool RunSeed(const LadderFlags& flags, const std::string& cell, v1::Job job, uint64_t seed,
             Summary* summary) {
  job.set_seed(seed);
  job.set_statistics_level(v1::STATISTICS_LEVEL_BASIC);
  const int64_t limit = job.training().step_limit();
  const int64_t first_batch = flags.first_batch >= 0 ? flags.first_batch : limit * 19 / 20;
  v1::FaultInjection fault;
  fault.set_factor(flags.factor);
  fault.set_batches(1);
  fault.set_first_batch(kNever);
  *job.mutable_fault_injection() = fault;
  const std::string stem = absl::StrCat(cell, " seed ", seed, ", ");

  Shared shared;
  bool passed = Prepare(stem + "clean", job, first_batch, &shared);
  fault.set_first_batch(first_batch);
  fault.set_batches(flags.stretch);
  for (const bool not_a_number : {false, true}) {
    if (not_a_number) fault.set_not_a_number(true);
    const std::string name =
        absl::StrCat(flags.stretch, " batches, ", not_a_number ? "NaN" : "units");
    RunFault(stem + name, shared, fault, &(*summary)[name]);
  }

  // Clipping alone outlives a single bad batch, so that one is tried without it.
  job.mutable_clipping()->clear_policies();
  passed = Prepare(stem + "unclipped, clean", job, first_batch, &shared) && passed;
  fault.set_batches(1);
  fault.set_factor(flags.factor);
  RunFault(stem + "unclipped, 1 batch", shared, fault, &(*summary)["unclipped, 1 batch"]);
  return passed;
}

// The median.
double Summarize(const std::string& name, const char* kind, const std::vector<double>& ratios) {
  const auto good =
      std::count_if(ratios.begin(), ratios.end(), [](double ratio) { return ratio <= kGoodRatio; });
  const auto interval = MedianIntervalOf(ratios);
  const std::string range =
      interval ? absl::StrFormat("[%.3g, %.3g]", interval->first, interval->second) : "";
  std::printf("%-34s %-8s %9.3g  %-18s within %g: %d of %d\n", name.c_str(), kind, MedianOf(ratios),
              range.c_str(), kGoodRatio, static_cast<int>(good), static_cast<int>(ratios.size()));
  return MedianOf(ratios);
}

bool RunCell(const LadderFlags& flags, const std::string& cell, Summary* summary) {
  v1::Job job;
  const absl::Status read =
      ReadSpecFile(absl::StrCat(flags.examples, "/d7-gated-", cell, ".yaml"), &job);
  if (!read.ok()) {
    std::fprintf(stderr, "%s\n", std::string(read.message()).c_str());
    return false;
  }
  bool passed = true;
  for (uint64_t seed = flags.first_seed; seed < flags.first_seed + flags.seeds; ++seed) {
    passed = RunSeed(flags, cell, job, seed, summary) && passed;
  }
  return passed;
}

bool Judge(const std::string& cell, const Summary& summary) {
  bool passed = true;
  for (const auto& [name, ratios] : summary) {
    const std::string run = absl::StrCat(cell, ", ", name);
    passed = Summarize(run, "none", ratios.alone) > kGoodRatio && passed;
    passed = Summarize(run, "ladder", ratios.guarded) <= kGoodRatio && passed;
    if (ratios.rescue.empty()) continue;
    Summarize(run, "same end", ratios.same_end);
    Summarize(run, "rescue", ratios.rescue);
  }
  return passed;
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
  app.add_option("--first-seed", flags.first_seed, "The first seed");
  app.add_option("--seeds", flags.seeds, "How many seeds")->check(CLI::PositiveNumber);
  app.add_option("--first-batch", flags.first_batch,
                 "The first spoilt batch; default: 19 twentieths of the run");
  app.add_option("--stretch", flags.stretch, "Spoilt batches in a row")->check(CLI::PositiveNumber);
  app.add_option("--factor", flags.factor, "What a spoilt batch is multiplied by");
  if (const auto code = ParseFlags(app, args)) return *code;
  std::printf("%-34s %-8s %12s %9s  %-6s %s\n", "run", "ladder", "final loss", "/ clean", "",
              "actions");
  bool passed = true;
  std::map<std::string, Summary> summaries;
  for (const std::string& cell : flags.cells) {
    passed = RunCell(flags, cell, &summaries[cell]) && passed;
  }
  std::printf("\n%-34s %-8s %9s  %-18s\n", "over the seeds", "ladder", "median", "95 %");
  for (const auto& [cell, summary] : summaries) passed = Judge(cell, summary) && passed;
  std::printf("%s\n", passed ? "passed" : "NOT passed");
  return passed ? 0 : 1;
}

}  // namespace gradwatch::bench
