#include "tests/bench/detection_score.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradwatch::bench {
namespace {

constexpr int64_t kLived = 10;  // Steps that a run must live to count as announced or not.
constexpr double kAhead = 5.0;  // Steps of warning that are worth something.

// The step at which each rule of each group first fired.
using FirstSteps = std::map<std::string, std::map<std::string, int64_t>>;

FirstSteps FirstStepsOf(const RunResult& run) {
  FirstSteps first;
  for (const Firing& firing : run.firings) {
    auto [entry, added] = first[firing.group].emplace(firing.rule, firing.step);
    if (!added) entry->second = std::min(entry->second, firing.step);
  }
  return first;
}

class Scorer {
 public:
  Scorer(const Corpus& corpus, const std::vector<RunResult>& results) {
    for (const RunResult& run : results) {
      for (const Firing& firing : run.firings) known_[firing.group].insert(firing.rule);
    }
    for (const auto& [name, cause] : corpus.causes) {
      for (const RunResult& run : results) {
        if (run.family->cause == name) Add(run, cause);
      }
    }
    scores_.mistakes = Lines(mistakes_);
    scores_.absent = Lines(absent_);
  }

  Scores Take() && { return std::move(scores_); }

 private:
  using SeedsBySubject = std::map<std::string, std::set<uint64_t>>;

  static std::vector<std::string> Lines(const SeedsBySubject& subjects) {
    std::vector<std::string> lines;
    for (const auto& [what, seeds] : subjects) {
      lines.push_back(absl::StrCat(what, " (seeds ", absl::StrJoin(seeds, " "), ")"));
    }
    return lines;
  }

  void Add(const RunResult& run, const Cause& cause) {
    if (run.labelled() && !run.cause_lasts()) {
      absent_[absl::StrCat(run.family->cause, ": ", run.family->name)].insert(run.seed);
    }
    const FirstSteps first = FirstStepsOf(run);
    const bool healthy = run.family->cause == "healthy";
    if (healthy) {
      scores_.healthy_steps += run.steps;
      AddFalseAlarms(run);
    }
    for (const auto& [group, rules] : known_) {
      const auto fired = first.find(group);
      const std::map<std::string, int64_t> none;
      AddGroup(run, cause, group, fired == first.end() ? none : fired->second);
    }
  }

  void AddFalseAlarms(const RunResult& run) {
    for (const Firing& firing : run.firings) {
      if (!firing.alarm) continue;
      scores_.groups[firing.group].false_alarms += firing.times;
      scores_.rules[firing.group][firing.rule].false_alarms += firing.times;
      if (firing.group == kOurRules) Blame(run, absl::StrCat(firing.rule, " is a false alarm"));
    }
  }

  void AddGroup(const RunResult& run, const Cause& cause, const std::string& group,
                const std::map<std::string, int64_t>& fired) {
    Score& all = scores_.groups[group];
    int64_t earliest = std::numeric_limits<int64_t>::max();
    for (const std::string& rule : known_[group]) {
      Score& score = scores_.rules[group][rule];
      const auto at = fired.find(rule);
      const bool expected = cause.expected.contains(rule);
      const bool found = expected && at != fired.end() && at->second >= run.family->onset;
      if (expected && run.labelled()) score.recall_of_labels.Count(found);
      if (expected && run.cause_lasts()) score.recall.Count(found);
      if (found) {
        earliest = std::min(earliest, at->second);
        AddWarning(run, at->second, &score);
      }
      if (at == fired.end()) continue;
      const bool right = expected || cause.allowed.contains(rule);
      score.precision.Count(right);
      all.precision.Count(right);
      if (!right && group == kOurRules) Blame(run, absl::StrCat(rule, " is not true of it"));
    }
    const bool found = earliest != std::numeric_limits<int64_t>::max();
    AddWarning(run, earliest, &all);
    if (run.labelled()) all.recall_of_labels.Count(found);
    if (!run.cause_lasts()) return;
    all.recall.Count(found);
    scores_.causes[run.family->cause][group].Count(found);
    if (!found && group == kOurRules) Blame(run, "not found");
  }

  void AddWarning(const RunResult& run, int64_t first, Score* score) {
    if (run.family->cause != "explosion") return;
    if (run.lost_at < run.family->onset + kLived) return;
    const double warning = first < run.lost_at ? static_cast<double>(run.lost_at - first) : 0.0;
    score->warning.push_back(warning);
    score->announced.Count(warning >= kAhead);
  }

  void Blame(const RunResult& run, const std::string& what) {
    mistakes_[absl::StrCat(run.family->cause, ": ", run.family->name, ": ", what)].insert(run.seed);
  }

  std::map<std::string, std::set<std::string>> known_;  // Rules that fired anywhere, by group.
  SeedsBySubject mistakes_;
  SeedsBySubject absent_;
  Scores scores_;
};

}  // namespace

double Share::Bound(double side) const {
  if (all == 0) return side < 0.0 ? 0.0 : 1.0;
  constexpr double kZ = 1.959964;
  const double n = static_cast<double>(all);
  const double p = static_cast<double>(hits) / n;
  const double middle = p + kZ * kZ / (2.0 * n);
  const double spread = kZ * std::sqrt(p * (1.0 - p) / n + kZ * kZ / (4.0 * n * n));
  return std::clamp((middle + side * spread) / (1.0 + kZ * kZ / n), 0.0, 1.0);
}

Scores ScoreRuns(const Corpus& corpus, const std::vector<RunResult>& results) {
  return Scorer(corpus, results).Take();
}

}  // namespace gradwatch::bench
