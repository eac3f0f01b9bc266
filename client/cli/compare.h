#ifndef GRADWATCH_CLIENT_CLI_COMPARE_H_
#define GRADWATCH_CLIENT_CLI_COMPARE_H_

#include <optional>
#include <string>
#include <vector>

#include "client/cli/text.h"
#include "google/protobuf/struct.pb.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

// Several jobs beside each other. Pure functions: what is said follows from the numbers alone.
namespace gradwatch::cli {

// What is known of one job.
struct JobSummary {
  v1::Job job;
  v1::QueryStatsResponse history;  // Its whole history in a few buckets.
  std::vector<v1::Alert> alerts;   // Firing and resolved.
};

// At least this share of right answers counts as solved.
inline constexpr double kSolvedShare = 0.95;

// The loss to judge by: of the newest evaluation, else the mean of the newest steps; NaN for none.
double FinalLoss(const JobSummary& summary);
// Share of right answers of the newest evaluation, where the task has one.
std::optional<double> RightShare(const v1::Job& job);
// The largest finite norm before clipping; NaN when there is none.
double LargestNorm(const JobSummary& summary);
// The mean growth factor over all steps; NaN when it was not measured.
double MeanGrowth(const JobSummary& summary);

// At least 95 % right answers in the newest evaluation of a job that did not fail.
bool IsSolved(const JobSummary& summary);
// What became of the loss: "the loss stayed at chance: 1.39, guessing gives 1.386, 25 % right".
std::string LossVerdict(const JobSummary& summary);
// A number in JSON; what is not finite is a string, as in proto JSON.
google::protobuf::Value NumberJson(double value);

// Columns in which the jobs may differ, then the outcome.
Table ComparisonTable(const std::vector<JobSummary>& summaries);

// What the shadow clips of each job would have done over its run; empty when no job has any.
Table ShadowTable(const std::vector<JobSummary>& summaries);

// "The jobs differ in clipping.": the names of the settings that are not the same in all; empty for
// fewer than two jobs.
std::string Differences(const std::vector<JobSummary>& summaries);

// One sentence about one job: what clipping did, what became of the loss, what the gradient did.
std::string Verdict(const JobSummary& summary);

// The same facts for programs: {"jobs": [{"name": ..., "largest_norm_before": ...}]}.
google::protobuf::Struct ComparisonJson(const std::vector<JobSummary>& summaries);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_COMPARE_H_
