#ifndef GRADWATCH_CLIENT_CLI_RUN_FACTS_H_
#define GRADWATCH_CLIENT_CLI_RUN_FACTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/compare.h"
#include "client/cli/heat_map.h"
#include "client/cli/histogram.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/dataset.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

// What a report says, before it is laid out: the HTML and the Markdown form tell the same facts.
// Pure functions and values.
namespace gradwatch::cli {

// What buckets do not tell of the single steps, in bounded memory but for the norms.
class RunDigest {
 public:
  // Of recorded steps `first` to `last`.
  RunDigest(int64_t first, int64_t last) : first_(first), last_(last) {}

  void Add(const v1::StepStats& step);

  const std::vector<NormSample>& norms() const { return norms_; }  // Finite ones, in order of step.
  // The norm of the state gradient by layer, for steps that recorded it.
  const std::vector<HeatGrid>& layers() const { return layers_; }
  // The step with the largest finite norm; -1 when there is none.
  int64_t largest_norm_step() const { return largest_norm_step_; }
  // Time steps that the gradient went back at most; 0 when growth was not measured.
  int window() const { return window_; }
  // The loss is taken at every time step, so signal enters at every lag.
  bool loss_at_every_step() const { return loss_at_every_step_; }

 private:
  int64_t first_;
  int64_t last_;
  std::vector<NormSample> norms_;
  std::vector<HeatGrid> layers_;
  int64_t largest_norm_step_ = -1;
  double largest_norm_ = -1;
  int window_ = 0;
  bool loss_at_every_step_ = false;
};

struct RunFacts {
  JobSummary summary;  // Alerts in order of their first step.
  RunDigest digest{0, 0};
  std::optional<v1::Dataset> dataset;  // What the job learnt from, where it is uploaded data.
  std::string server_address;
  absl::Time now;
};

struct Fact {
  std::string name;
  std::string value;
};

// The figures that matter first.
std::vector<Fact> KeyFigures(const RunFacts& facts);
// Everything that was asked for.
std::vector<Fact> SettingFacts(const RunFacts& facts);
// State, times, evaluations, failure.
std::vector<Fact> ResultFacts(const RunFacts& facts);
// Which server, build, data and recorded steps the report comes from.
std::vector<Fact> SourceFacts(const RunFacts& facts);
// Quantiles of the raw norm; empty without finite norms.
std::vector<Fact> NormFacts(const RunFacts& facts);
// One row for each alert: when, what, value and limit.
std::vector<Fact> AlertFacts(const v1::Alert& alert);
// What changed the recorded part of the run, edits and the ladder alike, in order: when and who,
// then what. Of each part of the curves at most 1000.
std::vector<Fact> InterventionFacts(const RunFacts& facts);

// "17 of rnn.weight_hh_l0: [50, 50]": the parameter tensors, and all weights together.
std::vector<Fact> ParameterFacts(const RunFacts& facts);

// Thresholds of global L2 norm that the job clips at now.
std::vector<double> ClipThresholds(const v1::Job& job);

// Time steps back until 1/e of the gradient is left, at most `window`: that is "the window or
// more". NaN for a growth that is not above 0.
double HorizonOf(double growth, int window);

// The mean growth factor over the last tenth of the buckets that measured it, at least one of them;
// NaN when none did.
double GrowthAtEnd(const v1::QueryStatsResponse& history);

// Why there is no heat map, and how to get one; empty when there is one.
std::string HeatMapAbsence(const RunFacts& facts);

// The job as a file that `gradwatch submit --file` takes: JSON without what the server adds.
std::string JobFileOf(const v1::Job& job);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_RUN_FACTS_H_
