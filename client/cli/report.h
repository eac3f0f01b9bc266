#ifndef GRADWATCH_CLIENT_CLI_REPORT_H_
#define GRADWATCH_CLIENT_CLI_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

// Step statistics as lines and charts. Pure functions and values.
namespace gradwatch::cli {

// Adds one step, or a bucket of later steps, to a bucket. Extremes and counts stay exact.
void AddStep(const v1::StepStats& step, v1::FoldedStats* bucket);
void AddBucket(const v1::FoldedStats& later, v1::FoldedStats* bucket);

// What one line of `watch` tells: steps folded together.
struct Report {
  v1::FoldedStats steps;
  std::optional<v1::EvaluationResult> evaluation;  // The newest.
  std::optional<double> steps_per_second;
};

// Gathers the messages of a stream into reports.
class ReportMaker {
 public:
  // The report of what the message brings; nothing for a heartbeat or an empty message.
  std::optional<Report> Add(const v1::StreamStatsResponse& message);

  // An evaluation that the stream may have folded away.
  void Note(const v1::EvaluationResult& evaluation) { evaluation_ = evaluation; }

 private:
  std::optional<v1::EvaluationResult> evaluation_;
  int64_t last_step_ = -1;
  absl::Time last_time_;
};

// Buckets of recorded history as reports, the evaluations beside them.
std::vector<Report> ReportsOf(const v1::QueryStatsResponse& history);

// The columns of ReportLine.
std::string ReportHeader(bool unicode);

// Loss: mean of the finite ones; norms: the largest; growth factor: mean. "NaN" stands where every
// step was not finite.
std::string ReportLine(const Report& report, bool unicode);

// A job's history as charts of loss, norm before clipping, growth factor, and the evaluations, in
// about 20 lines. Empty when there are no steps.
struct TimelineStyle {
  size_t columns = 80;
  bool unicode = true;
};
std::string Timeline(const v1::QueryStatsResponse& history, const TimelineStyle& style);

// The redrawn view of a running job: its newest report over one line charts of the recent ones.
std::vector<std::string> LiveView(const v1::Job& job, const std::vector<Report>& reports,
                                  const TimelineStyle& style);

// How a job ended, or stands: "jobs/x SUCCEEDED after 2000 steps in 14 s: loss 0.01, ...".
std::string OutcomeLine(const v1::Job& job);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_REPORT_H_
