#include "server/jobs/trainer_factory.h"

#include <utility>

namespace gradwatch::jobs {

TrainerFactory EngineTrainers() {
  return [](const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
            const v1::Checkpoint* checkpoint) {
    return checkpoint == nullptr ? train::Trainer::Create(job, std::move(dataset))
                                 : train::Trainer::Restore(job, std::move(dataset), *checkpoint);
  };
}

}  // namespace gradwatch::jobs
