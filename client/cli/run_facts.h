#ifndef GRADWATCH_CLIENT_CLI_RUN_FACTS_H_
#define GRADWATCH_CLIENT_CLI_RUN_FACTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/closer_look.h"
#include "client/cli/compare.h"
#include "client/cli/heat_map.h"
#include "client/cli/histogram.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/clipping.pb.h"
#include "gradwatch/v1/dataset.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

// What a report says, before it is laid out: the HTML and the Markdown form tell the same facts.
// Pure functions and values.
namespace gradwatch::cli {

// From these on a verdict speaks: as the rules OSCILLATION and DEAD_OR_SATURATED_UNITS have it.
inline constexpr double kOpposedCosine = -0.3;
inline constexpr double kSaturatedSlope = 0.05;
// The mean cosine of states above which they do not depend on the input.
inline constexpr double kSameState = 0.99;

// What buckets do not tell of the single steps, in bounded memory but for the norms.
class RunDigest {
 public:
  // Of recorded steps `first` to `last` of a job with these parameters.
  RunDigest(int64_t first, int64_t last, const ParameterList& parameters = {})
      : first_(first), last_(last), closer_(first, last, parameters) {}

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
  // The mean factor that clipping applied, over the recorded steps; NaN when none was recorded.
  double mean_coefficient() const;
  const CloserLook& closer() const { return closer_; }

 private:
  int64_t first_;
  int64_t last_;
  std::vector<NormSample> norms_;
  std::vector<HeatGrid> layers_;
  int64_t largest_norm_step_ = -1;
  double largest_norm_ = -1;
  int window_ = 0;
  bool loss_at_every_step_ = false;
  double coefficient_sum_ = 0;
  int64_t coefficient_count_ = 0;
  CloserLook closer_;
};

struct RunFacts {
  JobSummary summary;  // Alerts in order of their first step.
  RunDigest digest{0, 0};
  std::optional<v1::Dataset> dataset;    // What the job learnt from, where it is uploaded data.
  std::optional<v1::ClipAdvice> advice;  // Absent until it was fetched.
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
// The advice on the clip threshold: which, why, and how far to trust it; says so when there is too
// little data.
std::vector<Fact> AdviceFacts(const RunFacts& facts);
// What the shadow clips would have done beside what the job's own clipping did, over the whole run:
// policy, clip rate, mean coefficient. Empty for a job without shadow clips.
std::vector<std::vector<std::string>> ShadowRows(const RunFacts& facts);
// What stands above the columns of ShadowRows and of ThresholdRows (advise.h), and above the parts.
std::vector<std::string> ShadowTitles();
std::vector<std::string> ThresholdTitles();
inline constexpr char kAdviceTitle[] = "Advice on the threshold";
inline constexpr char kShadowTitle[] = "Shadow clips";
inline constexpr char kCloserTitle[] = "Closer look";
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

// The mean over the last tenth of the buckets that measured it, at least one of them, and of how
// many values; NaN and 0 when none did.
StepSeries::End MeanAtEnd(const v1::QueryStatsResponse& history,
                          const v1::Range& (v1::FoldedStats::*range)() const);
// That of the growth factor.
double GrowthAtEnd(const v1::QueryStatsResponse& history);

// Why there is no heat map, and how to get one; empty when there is one.
std::string HeatMapAbsence(const RunFacts& facts);

// The job as a file that `gradwatch submit --file` takes: JSON without what the server adds.
std::string JobFileOf(const v1::Job& job);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_RUN_FACTS_H_
