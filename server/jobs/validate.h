#ifndef GRADWATCH_SERVER_JOBS_VALIDATE_H_
#define GRADWATCH_SERVER_JOBS_VALIDATE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradwatch/v1/job.pb.h"
#include "proto/support/errors.h"
#include "server/data/dataset_content.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {

// What is allowed at the door. The proto comments state the same numbers.
constexpr int kLabelsMax = 16;
constexpr int kLayersMax = 8;
constexpr int kHiddenUnitsMax = 4096;
constexpr int kEmbeddingWidthMax = 4096;
constexpr int kTimeStepsMax = 10'000;
constexpr int kCopyDelayMax = 9'980;
constexpr int kMackeyHorizonMax = 1000;
constexpr int kBatchSizeMax = 65'536;
using train::kStepLimitMax;
constexpr int kConsecutiveMax = 1'000'000;
constexpr int kExamplesMax = 1'000'000;
constexpr double kLearningRateMax = 1000.0;
constexpr double kGainMax = 100.0;
constexpr int kPoliciesMax = 8;
constexpr int kColumnsNamedMax = 1024;
constexpr int kLadderCheckpointsMax = 3;
constexpr int kNoisePartsMax = 16;

// Appends everything that is wrong with the settings of `job`, whose defaults are filled in, as
// far as it can be told without the data set. Output-only fields are not looked at.
void CheckJobSettings(const v1::Job& job, std::vector<FieldViolation>* violations);

// Checks `job`, whose defaults are filled in, against its data set (null for generated tasks) and
// returns what it holds while it runs, in bytes. INVALID_ARGUMENT names every bad field, those in
// `violations` first, also when a job would hold more than `job_bytes_max`.
absl::StatusOr<int64_t> ValidateJob(const v1::Job& job, const data::DatasetContent* content,
                                    int64_t job_bytes_max, std::vector<FieldViolation> violations);

// Multiply-adds of a gradient check, about. `job` is valid; saturates at infinity.
double GradientCheckWork(const v1::Job& job, const data::DatasetContent* content, int entries);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_VALIDATE_H_
