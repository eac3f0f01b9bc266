#include "tests/bench/detection_run.h"

#include <atomic>
#include <cmath>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gradwatch/v1/alert.pb.h"
#include "server/alerts/rule_engine.h"
#include "server/jobs/validate.h"
#include "server/train/trainer.h"
#include "tests/bench/detection_cause.h"
#include "tests/bench/reference_rules.h"

namespace gradwatch::bench {
namespace {

constexpr int64_t kJobBytesMax = int64_t{1} << 30;

constexpr int kNonFiniteMax = 5;  // In a row: the service would end the job.
constexpr int kQuietSteps = 50;   // A reference rule's next episode begins after so many.

v1::Job CompleteJob(const RunFamily& family, uint64_t seed) {
  v1::Job job = family.job;
  job.set_name("jobs/detection");
  job.set_seed(seed);
  job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  job.mutable_diagnostics()->set_compare_steps(true);  // For OSCILLATION.
  job.mutable_evaluation()->set_every_steps(0);
  job.mutable_training()->set_step_limit(family.steps);
  train::FillDefaults(&job);
  return job;
}

// A reference rule and the episodes that it saw.
struct Watched {
  NamedReferenceRule rule;
  int64_t quiet = kQuietSteps;

  void Observe(const v1::StepStats& stats, std::vector<Firing>* firings) {
    const bool holds = rule.rule->Holds(stats);
    if (holds && quiet >= kQuietSteps) {
      firings->push_back({rule.group, rule.name, stats.step(), 1, true, ""});
    }
    quiet = holds ? 0 : quiet + 1;
  }
};

void AddOurs(const alerts::RuleEngine& engine, std::vector<Firing>* firings) {
  for (const v1::Alert& alert : engine.alerts()) {
    firings->push_back({kOurRules, alert.rule_name(), alert.firing_step(), alert.count(),
                        alert.severity() >= v1::SEVERITY_WARN, alert.message()});
  }
}

}  // namespace

absl::StatusOr<RunResult> RunOne(const RunFamily& family, uint64_t seed) {
  v1::Job job = CompleteJob(family, seed);
  const auto bytes = jobs::ValidateJob(job, nullptr, kJobBytesMax, {});
  if (!bytes.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("family '", family.name, "': ", bytes.status().message()));
  }
  const auto trainer = train::Trainer::Create(job, nullptr);
  if (!trainer.ok()) return trainer.status();
  job.mutable_parameters()->Add((*trainer)->parameters().begin(), (*trainer)->parameters().end());

  RunResult result;
  result.family = &family;
  result.seed = seed;
  alerts::RuleEngine engine(job);
  std::vector<Watched> references;
  for (NamedReferenceRule& rule : NewReferenceRules(job)) references.push_back({std::move(rule)});
  CauseWatch watch(family);
  v1::StepStats stats;
  std::vector<v1::Alert> changed;
  while (result.steps < family.steps && (*trainer)->nonfinite_in_a_row() < kNonFiniteMax) {
    (*trainer)->Step(&stats);
    ++result.steps;
    const bool finite = std::isfinite(stats.loss()) && stats.nonfinite_count() == 0;
    if (result.lost_at < 0 && !finite) result.lost_at = stats.step();
    watch.Observe(stats);
    engine.Observe(stats, absl::UnixEpoch(), &changed);
    for (Watched& reference : references) reference.Observe(stats, &result.firings);
  }
  AddOurs(engine, &result.firings);
  result.shown = watch.shown();
  return result;
}

absl::StatusOr<std::vector<RunResult>> RunAll(const std::vector<const RunFamily*>& families,
                                              const std::vector<uint64_t>& seeds, int threads) {
  std::vector<absl::StatusOr<RunResult>> results(families.size() * seeds.size(), RunResult());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < results.size(); i = next++) {
      results[i] = RunOne(*families[i / seeds.size()], seeds[i % seeds.size()]);
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  std::vector<RunResult> done;
  for (absl::StatusOr<RunResult>& result : results) {
    if (!result.ok()) return result.status();
    done.push_back(*std::move(result));
  }
  return done;
}

}  // namespace gradwatch::bench
