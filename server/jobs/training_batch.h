#ifndef GRADWATCH_SERVER_JOBS_TRAINING_BATCH_H_
#define GRADWATCH_SERVER_JOBS_TRAINING_BATCH_H_

#include <cstdint>

#include "gradwatch/v1/job_service.pb.h"
#include "server/base/batch.h"
#include "server/data/dataset_content.h"
#include "server/data/source.h"

namespace gradwatch::jobs {

// Adds rows, names and examples to `shown`: the first rows of `batch`, which a source of that shape
// made, at most `examples_max` and about `bytes_max` bytes of them, but at least one. `text` is the
// text that a language task reads, null for any other.
void ShowBatch(const Batch& batch, const data::TaskShape& shape, const data::DatasetContent* text,
               int examples_max, int64_t bytes_max, v1::TrainingBatch* shown);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_TRAINING_BATCH_H_
