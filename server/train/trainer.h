#ifndef GRADWATCH_SERVER_TRAIN_TRAINER_H_
#define GRADWATCH_SERVER_TRAIN_TRAINER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradwatch/v1/checkpoint.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/base/export.h"
#include "server/data/dataset_content.h"
#include "server/data/source.h"

namespace gradwatch::train {

// The largest training.step_limit.
constexpr int64_t kStepLimitMax = 1'000'000'000;

// One job's training loop, a step at a time: batch, network, clip policies, optimizer, statistics.
//
// The order within a step: evaluation when it is due, forward, backward, raw statistics, finite
// check, clip policies, statistics after clipping, optimizer, update statistics.
// Same job, same build, same CPU level: the same bits of every loss and norm, at every statistics
// level, and across Save and Restore.
// Threads: one at a time. All memory is taken by Create; Step takes none of its own once warm
// (the record it fills may grow the first time).
class GRADWATCH_ENGINE_API Trainer {
 public:
  // `job` is complete and valid (FillDefaults, and what jobs/ checks at the door); `dataset` is
  // what its task names, null for generated tasks. RESOURCE_EXHAUSTED when memory cannot be had.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(
      const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset);

  // The same for batches that no task makes: they come from `source`, whose shape says what the
  // network must look like; `job.task` has no say.
  static absl::StatusOr<std::unique_ptr<Trainer>> CreateOn(const v1::Job& job,
                                                           std::unique_ptr<data::Source> source);

  // Continues from `checkpoint`, which Save of the same job made. DATA_LOSS when it does not fit.
  static absl::StatusOr<std::unique_ptr<Trainer>> Restore(
      const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
      const v1::Checkpoint& checkpoint);

  virtual ~Trainer() = default;

  // The number of the next step.
  virtual int64_t step() const = 0;

  // Updates applied so far, without those that a roll back took back.
  virtual int64_t updates_applied() const = 0;

  // The job with the settings in force: as created or as ApplySettings said, but for what the
  // ladder moved since, optimizer.learning_rate and training.step_limit. Good until the next call
  // that is not const.
  virtual const v1::Job& settings() const = 0;

  // Steps in a row, up to the last one, that were not finite.
  virtual int nonfinite_in_a_row() const = 0;

  // Makes one step and fills `stats` (cleared first; its time and duration are left to the
  // caller). A loss or gradient that is not finite is an ordinary event, told in `stats`. So is
  // what the job's ladder did: interventions without name, time and author. After KIND_STOP no step
  // should follow.
  virtual void Step(v1::StepStats* stats) = 0;

  // Threads that a step can use with profit; 1 for small work. Constant.
  virtual int threads_useful() const = 0;

  // How many threads Step and Evaluate may use from now on, at least 1 (at first 1). Results do not
  // depend on it by a bit.
  virtual void SetThreads(int threads) = 0;

  // Evaluates the present weights; does not disturb training in any bit. Where nothing is held out
  // the result has no examples and its loss is NaN; Step then records no evaluation.
  virtual v1::EvaluationResult Evaluate() = 0;

  // Takes over what may change while a job runs: clipping, optimizer.learning_rate,
  // training.step_limit, training.truncation, statistics_level. Policies that stay the same kind
  // keep their state. From the next step on the run is that of a trainer that was created with
  // these settings and had the same weights and state. All or nothing.
  virtual absl::Status ApplySettings(const v1::Job& job) = 0;

  // Everything that is needed to continue bit for bit, but rules_state.
  virtual v1::Checkpoint Save() const = 0;

  // In the order in which statistics refer to them.
  virtual const std::vector<v1::ParameterInfo>& parameters() const = 0;
};

// Fills in every setting that is absent with the default that its proto comment states, except
// `seed`, which the caller chooses. Settings that are present stay, good or bad.
GRADWATCH_ENGINE_API void FillDefaults(v1::Job* job);

// What a job holds while it runs, in bytes, within 10 %, without the data set, which jobs share;
// saturates at the largest int64. `job` has its defaults filled in; sizes may be absurd. `dataset`
// as for Create. 0 when there is nothing to estimate: a task that data::ShapeOf refuses, no units.
GRADWATCH_ENGINE_API int64_t EstimateMemoryBytes(const v1::Job& job,
                                                 const data::DatasetContent* dataset);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_TRAINER_H_
