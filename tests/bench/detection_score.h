#ifndef GRADWATCH_TESTS_BENCH_DETECTION_SCORE_H_
#define GRADWATCH_TESTS_BENCH_DETECTION_SCORE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/detection_corpus.h"
#include "tests/bench/detection_run.h"

namespace gradwatch::bench {

// `hits` of `all`, with Wilson's 95 % interval (Wilson 1927).
struct Share {
  int64_t hits = 0;
  int64_t all = 0;

  void Count(bool hit) {
    hits += hit ? 1 : 0;
    ++all;
  }
  double value() const {
    return all == 0 ? 1.0 : static_cast<double>(hits) / static_cast<double>(all);
  }
  double low() const { return Bound(-1.0); }
  double high() const { return Bound(1.0); }

 private:
  double Bound(double side) const;
};

// What one rule, or one group of rules, is worth.
struct Score {
  // Of the runs with a cause that lasts ten steps, and shows, and that the rule is expected to find
  // (for a group: all such runs), those where it (one of the group's expected rules) fired after
  // the onset.
  Share recall;
  // The same with runs whose label says so although it did not show.
  Share recall_of_labels;
  // Of the runs where it fired (for a group: of the pairs of a run and a rule that fired), those
  // whose cause allows it.
  Share precision;
  // Times that it fired in healthy runs as WARN or CRIT.
  int64_t false_alarms = 0;
  // Steps from its first firing to the loss of the run, over exploding runs that lived ten steps.
  std::vector<double> warning;
  // Of those runs, the ones announced at least five steps ahead.
  Share announced;
};

struct Scores {
  int64_t healthy_steps = 0;
  std::map<std::string, Score> groups;
  std::map<std::string, std::map<std::string, Score>> rules;   // By group.
  std::map<std::string, std::map<std::string, Share>> causes;  // Recall, by cause and group.
  // Runs whose cause did not show, in the same form.
  std::vector<std::string> absent;
  // "explosion: family (seeds 1 3): not found", and the like; our own rules' only.
  std::vector<std::string> mistakes;
};

Scores ScoreRuns(const Corpus& corpus, const std::vector<RunResult>& results);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_DETECTION_SCORE_H_
