#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tests/bench/commands.h"
#include "tests/bench/detection_corpus.h"
#include "tests/bench/detection_run.h"
#include "tests/bench/detection_score.h"
#include "tests/bench/flags.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

constexpr char kDescription[] =
    "Trains small runs with a known cause of trouble, and healthy ones, and tells what the alert "
    "rules made of them, beside the rules that others ship. Prints Markdown.";

constexpr char kFooter[] = R"(
The runs and their labels are in detection_runs.json: each family has one cause that was built into it.
Thresholds are set by the runs with even seeds (--half tune) and judged by those with odd ones (--half
report). A rule's precision is the share of the runs in which it fired whose cause allows it, its recall
the share of the runs that it is expected to find. Some causes are built in and yet do not show: weights
that should explode saturate, a task that should stay at chance is learnt from the start. Recall leaves out
runs where plain arithmetic on loss and norm sees the cause in fewer than ten steps (they are listed);
'of all labels' is recall with them. Brackets: 95 % intervals by Wilson.

Exit codes: 0 done, 1 with --check where a target is missed, 2 wrong usage.

Examples:
  gradwatch_bench detection --half report --threads 2
  gradwatch_bench detection --family D1 --seeds 2
)";

constexpr double kRecallTarget = 0.95;
constexpr double kPrecisionTarget = 0.95;
constexpr double kFalseAlarmsTarget = 1.0;  // In 10,000 healthy steps.
constexpr double kAnnouncedTarget = 0.9;

struct Flags {
  std::string runs = GRADWATCH_SOURCE_DIR "/tests/bench/detection_runs.json";
  std::string half = "report";
  std::string family;
  int seeds = 0;  // 0: as many as the file says.
  int threads = 1;
  bool list = false;
  bool check = false;
};

std::vector<uint64_t> SeedsOf(const Flags& flags, int64_t all) {
  std::vector<uint64_t> seeds;
  for (uint64_t seed = 0; seed < static_cast<uint64_t>(all); ++seed) {
    if (flags.half == "tune" && seed % 2 == 1) continue;
    if (flags.half == "report" && seed % 2 == 0) continue;
    if (flags.seeds > 0 && seeds.size() == static_cast<size_t>(flags.seeds)) break;
    seeds.push_back(seed);
  }
  return seeds;
}

std::vector<const RunFamily*> FamiliesOf(const Flags& flags, const Corpus& corpus) {
  std::vector<const RunFamily*> families;
  for (const RunFamily& family : corpus.families) {
    if (absl::StrContains(family.name, flags.family)) families.push_back(&family);
  }
  return families;
}

std::string TextOf(const Share& share) {
  if (share.all == 0) return "-";
  return absl::StrFormat("%.2f [%.2f, %.2f] of %d", share.value(), share.low(), share.high(),
                         share.all);
}

double PerTenThousand(int64_t count, int64_t steps) {
  return steps == 0 ? 0.0 : 1e4 * static_cast<double>(count) / static_cast<double>(steps);
}

void PrintRow(const std::string& name, const Score& score, int64_t healthy_steps) {
  std::printf(
      "| %s | %s | %s | %.2f | %.2f | %s | %s |\n", name.c_str(), TextOf(score.precision).c_str(),
      TextOf(score.recall).c_str(), score.recall_of_labels.value(),
      PerTenThousand(score.false_alarms, healthy_steps),
      score.warning.empty() ? "-" : absl::StrFormat("%.0f", MedianOf(score.warning)).c_str(),
      TextOf(score.announced).c_str());
}

void PrintScores(const Scores& scores) {
  constexpr char kHead[] =
      " | precision | recall | of all labels | false alarms in 10,000 healthy steps | steps of "
      "warning, median | "
      "5 steps ahead of an explosion |\n|---|---|---|---|---|---|---|\n";
  std::printf("| rules%s", kHead);
  for (const auto& [group, score] : scores.groups) PrintRow(group, score, scores.healthy_steps);
  std::printf("\n| rule%s", kHead);
  for (const auto& [group, rules] : scores.rules) {
    for (const auto& [rule, score] : rules) PrintRow(rule, score, scores.healthy_steps);
  }
  std::printf("\n| cause | found by |\n|---|---|\n");
  for (const auto& [cause, groups] : scores.causes) {
    std::vector<std::string> found;
    for (const auto& [group, share] : groups) {
      found.push_back(absl::StrFormat("%s %d of %d", group, share.hits, share.all));
    }
    std::printf("| %s | %s |\n", cause.c_str(), absl::StrJoin(found, ", ").c_str());
  }
  if (!scores.absent.empty()) std::printf("\nLeft out of recall, as the cause did not show:\n\n");
  for (const std::string& absent : scores.absent) std::printf("- %s\n", absent.c_str());
  if (!scores.mistakes.empty()) std::printf("\nMistakes of our rules:\n\n");
  for (const std::string& mistake : scores.mistakes) std::printf("- %s\n", mistake.c_str());
}

void PrintRuns(const std::vector<RunResult>& results) {
  std::printf("\nWhat our rules said:\n\n");
  for (const RunResult& run : results) {
    for (const Firing& firing : run.firings) {
      if (firing.group != kOurRules) continue;
      std::printf("- %s, seed %d, step %d of %d: %s%s: %s\n", run.family->name.c_str(),
                  static_cast<int>(run.seed), static_cast<int>(firing.step),
                  static_cast<int>(run.steps), firing.rule.c_str(),
                  firing.alarm ? "" : " (information)", firing.message.c_str());
    }
  }
}

// The targets that are missed.
std::vector<std::string> Missed(const Scores& scores) {
  std::vector<std::string> missed;
  const auto ours = scores.groups.find(kOurRules);
  if (ours == scores.groups.end()) return {"no rule fired"};
  const auto need = [&missed](const char* what, const Share& share, double target) {
    if (share.value() >= target) return;
    missed.push_back(
        absl::StrFormat("%s is %.3f, at least %.2f is wanted", what, share.value(), target));
  };
  need("recall", ours->second.recall, kRecallTarget);
  need("precision", ours->second.precision, kPrecisionTarget);
  need("share of explosions announced", ours->second.announced, kAnnouncedTarget);
  const double alarms = PerTenThousand(ours->second.false_alarms, scores.healthy_steps);
  if (alarms > kFalseAlarmsTarget) {
    missed.push_back(
        absl::StrFormat("false alarms in 10,000 healthy steps are %.2f, at most %.1f is wanted",
                        alarms, kFalseAlarmsTarget));
  }
  return missed;
}

int Complain(const std::string& what, int code) {
  std::fprintf(stderr, "gradwatch_bench detection: %s\n", what.c_str());
  return code;
}

}  // namespace

int RunDetection(absl::Span<const std::string> args) {
  Flags flags;
  CLI::App app(kDescription, "gradwatch_bench detection");
  app.footer(kFooter);
  app.option_defaults()->always_capture_default();
  app.add_option("--runs", flags.runs, "The file of runs and labels");
  app.add_option("--half", flags.half, "tune, report or all")
      ->check(CLI::IsMember({"tune", "report", "all"}));
  app.add_option("--family", flags.family, "Only families whose name contains this");
  app.add_option("--seeds", flags.seeds, "At most so many seeds of the half; 0 for all")
      ->check(CLI::Range(0, 1000));
  app.add_option("--threads", flags.threads, "Runs at the same time")->check(CLI::Range(1, 256));
  app.add_flag("--list", flags.list, "Also what our rules said in each run");
  app.add_flag("--check", flags.check, "Fail where a target is missed");
  if (const auto code = ParseFlags(app, args)) return *code;

  const absl::StatusOr<Corpus> corpus = ReadCorpus(flags.runs);
  if (!corpus.ok()) return Complain(std::string(corpus.status().message()), 2);
  const std::vector<const RunFamily*> families = FamiliesOf(flags, *corpus);
  const std::vector<uint64_t> seeds = SeedsOf(flags, corpus->seeds);
  if (families.empty())
    return Complain(absl::StrCat("--family: no name contains '", flags.family, "'"), 2);
  const auto results = RunAll(families, seeds, flags.threads);
  if (!results.ok()) return Complain(std::string(results.status().message()), 1);
  const Scores scores = ScoreRuns(*corpus, *results);
  std::printf("%d runs of %d families, %d healthy steps.\n\n", static_cast<int>(results->size()),
              static_cast<int>(families.size()), static_cast<int>(scores.healthy_steps));
  PrintScores(scores);
  if (flags.list) PrintRuns(*results);
  if (!flags.check) return 0;
  const std::vector<std::string> missed = Missed(scores);
  for (const std::string& each : missed) Complain(each, 1);
  return missed.empty() ? 0 : 1;
}

}  // namespace gradwatch::bench
