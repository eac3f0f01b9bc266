#ifndef GRADWATCH_SERVER_TRAIN_MODEL_TOOLS_H_
#define GRADWATCH_SERVER_TRAIN_MODEL_TOOLS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradwatch/v1/checkpoint.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/job_service.pb.h"
#include "gradwatch/v1/model_service.pb.h"
#include "server/base/export.h"
#include "server/data/dataset_content.h"

namespace gradwatch::train {

// What can be done with a job's weights outside its training loop. Pure functions: any thread.

// The weights of `checkpoint` as a safetensors file: PyTorch's names, shapes and row-major layout,
// F32 or F64, metadata with the job's name, cell and step, and the checkpoint's interventions as JSON.
// Format: github.com/huggingface/safetensors (8-byte little-endian header size, JSON, data).
GRADWATCH_ENGINE_API std::string ToSafetensors(const v1::Job& job,
                                               const v1::Checkpoint& checkpoint);

// Text that a language job's weights write. `job` is complete, with its vocabulary.
// FAILED_PRECONDITION for other tasks; INVALID_ARGUMENT names the bad field of `request`, or the
// character of the prompt that the vocabulary has not.
GRADWATCH_ENGINE_API absl::StatusOr<std::string> GenerateText(const v1::Job& job,
                                                              const v1::Checkpoint& checkpoint,
                                                              const v1::GenerateRequest& request);

// Central differences of the job's own network, freshly initialised, in float64, on its own first
// batch. `job` is complete and valid; `entries` of each tensor are compared, chosen by the job's
// seed. Takes 2 * entries * tensors forward passes.
GRADWATCH_ENGINE_API absl::StatusOr<v1::CheckGradientsResponse> CheckJobGradients(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset, int entries,
    double difference);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_MODEL_TOOLS_H_
