#ifndef GRADWATCH_CLIENT_CLI_DESCRIBE_H_
#define GRADWATCH_CLIENT_CLI_DESCRIBE_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/text.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/dataset.pb.h"
#include "gradwatch/v1/job.pb.h"

// Messages in words. Pure functions; a job is described by what it has set.
namespace gradwatch::cli {

// "LSTM" for CELL_LSTM and the like: the value's name without its enum's prefix.
std::string StateName(v1::Job::State state);
std::string CellName(v1::Model::Cell cell);
std::string SeverityName(v1::Severity severity);
std::string AlertStateName(v1::Alert::State state);
std::string KindName(v1::Dataset::Kind kind);

// "temporal-order T=50", "copy-memory delay 100", "language T=50 datasets/x".
std::string DescribeTask(const v1::Task& task);
// "LSTM 1x128".
std::string DescribeModel(const v1::Model& model);
// "adam lr 0.002", "sgd lr 0.1 momentum 0.9 nesterov".
std::string DescribeOptimizer(const v1::Optimizer& optimizer);
// "none", "norm 0.5", "value -0.1..0.1, norm 1 (inf)"; a job without the message has "norm 1".
std::string DescribeClipping(const v1::Job& job);
// "norm 0.5", "norm 1 (inf)", "per parameter 1", "value -0.1..0.1".
std::string DescribePolicy(const v1::ClipPolicy& policy);
// The job's shadow clips with the share of steps that each would have clipped: "norm 0.25 98 %,
// norm 5 0 %"; a share that is not given is left out. Empty when there are none.
std::string DescribeShadows(const v1::Job& job, const std::vector<double>& clip_rates);
// Those shares over all steps of the job.
std::vector<double> ShadowRates(const v1::Job& job);
// "orthogonal 1.1".
std::string DescribeInitializer(const v1::Initializer& initializer);

// Everything a person wants to know about one job, in lines "what  value".
std::string DescribeJob(const v1::Job& job, absl::Time now);
// Its settings alone, and as rows of what and value; a value may be empty.
std::string DescribeSettings(const v1::Job& job);
std::vector<std::pair<std::string, std::string>> SettingRows(const v1::Job& job);
// "basic".
std::string StatisticsLevelText(const v1::Job& job);

// One row for each job.
Table JobTable(const std::vector<v1::Job>& jobs, absl::Time now);

// "firing, seen by ann, silenced".
std::string AlertStateText(const v1::Alert& alert);
Table AlertTable(const std::vector<v1::Alert>& alerts, size_t width, bool unicode);
// Everything about one alert, in lines "what  value" of at most `width` columns.
std::string DescribeAlert(const v1::Alert& alert, size_t width);
Table DatasetTable(const std::vector<v1::Dataset>& datasets, absl::Time now);

// "FIRING CRIT EXPLODING_ABS at step 12 (rnn.weight_hh_l0): MESSAGE", then the advice.
std::string AlertLine(const v1::Alert& alert);

// What the loss of a task is without having learnt anything, where that is known: adding 1/6,
// temporal order ln 4, copy memory 10 ln 8 / (delay + 20).
std::optional<double> ChanceLoss(const v1::Task& task);

// Why a job failed: "NON_FINITE at step 31: ...".
std::string DescribeFailure(const v1::Failure& failure);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_DESCRIBE_H_
