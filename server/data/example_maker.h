#ifndef GRADWATCH_SERVER_DATA_EXAMPLE_MAKER_H_
#define GRADWATCH_SERVER_DATA_EXAMPLE_MAKER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradwatch/v1/task.pb.h"
#include "server/base/batch.h"
#include "server/base/philox.h"
#include "server/data/source.h"

namespace gradwatch::data {

// What examples are drawn for; they never share a random stream.
enum class Purpose { kTraining, kEvaluation };

// Makes the examples of one generated task. An example is a function of its random stream alone.
class ExampleMaker {
 public:
  virtual ~ExampleMaker() = default;

  // The length of the example that `random` begins; always drawn first.
  virtual int64_t DrawLength(RandomStream* random) const = 0;

  // Writes the example into `row`: its inputs, targets and weights. The batch has its sizes and
  // lengths, everything else is zero. `random` stands behind the length.
  virtual void Write(Purpose purpose, RandomStream* random, int64_t row, Batch* batch) const = 0;

  // As Source::target_scales.
  virtual absl::Span<const TargetScale> target_scales() const = 0;
};

// The generated tasks: shape (all but rows_max), with INVALID_ARGUMENT as ShapeOf, and the maker
// of a task whose shape was found good.
absl::StatusOr<TaskShape> AddingShape(const v1::AddingTask& task);
std::unique_ptr<ExampleMaker> NewAddingMaker(const v1::AddingTask& task);

absl::StatusOr<TaskShape> TemporalOrderShape(const v1::TemporalOrderTask& task);
std::unique_ptr<ExampleMaker> NewTemporalOrderMaker(const v1::TemporalOrderTask& task);

absl::StatusOr<TaskShape> CopyMemoryShape(const v1::CopyMemoryTask& task);
std::unique_ptr<ExampleMaker> NewCopyMemoryMaker(const v1::CopyMemoryTask& task);

absl::StatusOr<TaskShape> MackeyGlassShape(const v1::MackeyGlassTask& task);
std::unique_ptr<ExampleMaker> NewMackeyGlassMaker(const v1::MackeyGlassTask& task);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_EXAMPLE_MAKER_H_
