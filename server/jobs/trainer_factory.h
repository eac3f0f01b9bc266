#ifndef GRADWATCH_SERVER_JOBS_TRAINER_FACTORY_H_
#define GRADWATCH_SERVER_JOBS_TRAINER_FACTORY_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "gradwatch/v1/checkpoint.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "server/data/dataset_content.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {

// Makes a job's trainer: a new one, or with a checkpoint (null for none) one that continues there.
// Called from several threads at once.
using TrainerFactory = std::function<absl::StatusOr<std::unique_ptr<train::Trainer>>(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
    const v1::Checkpoint* checkpoint)>;

// train::Trainer::Create and Restore.
TrainerFactory EngineTrainers();

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_TRAINER_FACTORY_H_
