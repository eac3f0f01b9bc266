#ifndef GRADWATCH_SERVER_DATA_SOURCE_H_
#define GRADWATCH_SERVER_DATA_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradwatch/v1/job.pb.h"
#include "server/base/batch.h"
#include "server/base/export.h"
#include "server/data/dataset_content.h"

namespace gradwatch::data {

// What a network must look like to learn a task, and how its batches come.
struct TaskShape {
  int64_t time_steps = 0;       // T: the longest sequence of any batch.
  int64_t rows_max = 0;         // B: the most rows of any batch, for training and evaluation.
  int64_t features = 0;         // F: width of numeric input; 0 with tokens.
  int64_t vocabulary = 0;       // Different tokens; 0 with numeric input.
  int64_t outputs = 0;          // Classes, or width of the target vector.
  bool classification = false;  // Targets are classes (cross-entropy), otherwise values (MSE).
  bool loss_at_last = false;    // One target per row, at its last valid time step.
  bool carries_state = false;   // Rows continue from batch to batch, but for Batch::restart.
  // Of value targets, one name per output: the columns, or "sum", "x".
  std::vector<std::string> target_names;
  // Of numeric input, one name per feature.
  std::vector<std::string> feature_names;
};

// A value target in original units is mean + deviation * value; deviation > 0.
struct TargetScale {
  double mean = 0.0;
  double deviation = 1.0;
};

// "datasets/{id}" that the task names; empty for a generated task.
GRADWATCH_ENGINE_API absl::string_view DatasetNameOf(const v1::Task& task);

// The shape of a job whose defaults are all filled in. `content` is the data set that the task
// names; it may be null for generated tasks. Only task, training.batch_size and evaluation are
// looked at. INVALID_ARGUMENT names the field first, then the value and what is allowed, as
// "task.forecast.target_columns[0]: …": a number out of range, the wrong kind of data set, a column
// that is unknown, named twice, not numeric (with its problem) or, as a target, constant, and data
// too short for batch_size streams of time_steps.
GRADWATCH_ENGINE_API absl::StatusOr<TaskShape> ShapeOf(const v1::Job& job,
                                                       const DatasetContent* content);

// Bytes that the job's Source and two batches will hold, without the content.
GRADWATCH_ENGINE_API int64_t SourceMemoryBytes(const v1::Job& job, const TaskShape& shape);

// Makes the batches of one job.
//
// Same job (task, batch size, evaluation, seed) and content: same batches, on every machine.
// Example number n of a generated task does not depend on the batch size; training batch k holds
// examples k*B … k*B + B - 1, ordered by length. Data sets are read as streams (the state is
// carried over; Batch::restart at the first batch and whenever the data begins again) or as random
// windows. Evaluation has examples of its own, the same ones each time.
// The first call for a batch sizes its buffers for the largest; later ones allocate nothing.
// Threads: one at a time.
class GRADWATCH_ENGINE_API Source {
 public:
  virtual ~Source() = default;

  virtual const TaskShape& shape() const = 0;

  // The next training batch; always batch_size rows. Never ends.
  virtual void NextBatch(Batch* batch) = 0;
  // Goes to training batch `number`, from 0: the next one, exactly as if those before had been
  // read.
  virtual void Seek(int64_t number) = 0;

  // Evaluation batches; 0 when nothing is held out.
  virtual int64_t evaluation_batches() const = 0;
  // Evaluation batch i, 0 <= i < evaluation_batches(): 1 to rows_max rows. Where the state is
  // carried, ask in order: batch 0 restarts every row, the others none. Leaves training alone.
  virtual void EvaluationBatch(int64_t i, Batch* batch) = 0;

  // One per value target; empty for classes.
  virtual absl::Span<const TargetScale> target_scales() const = 0;

  // The position in the training data, for a checkpoint.
  virtual std::string SaveState() const = 0;
  // Goes on from there, exactly. INVALID_ARGUMENT if the bytes are no such position; then nothing
  // is changed.
  virtual absl::Status LoadState(absl::string_view state) = 0;
};

// As ShapeOf, and INVALID_ARGUMENT without a seed.
GRADWATCH_ENGINE_API absl::StatusOr<std::unique_ptr<Source>> NewSource(
    const v1::Job& job, std::shared_ptr<const DatasetContent> content);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_SOURCE_H_
