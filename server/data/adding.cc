// The adding problem. Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997, in the
// form with values on [0, 1) and marks 0 and 1.
#include "server/base/status.h"
#include "server/data/example_maker.h"
#include "server/data/field_check.h"
#include "server/data/length_range.h"

namespace gradwatch::data {
namespace {

class AddingMaker final : public ExampleMaker {
 public:
  explicit AddingMaker(const LengthRange& lengths) : lengths_(lengths) {}

  int64_t DrawLength(RandomStream* random) const override { return lengths_.Draw(random); }

  void Write(Purpose, RandomStream* random, int64_t row, Batch* batch) const override {
    const int64_t length = batch->lengths[static_cast<size_t>(row)];
    const int64_t half = length / 2;
    const int64_t first = random->NextBelow(static_cast<uint32_t>(half));
    const int64_t second = half + random->NextBelow(static_cast<uint32_t>(length - half));
    double sum = 0.0;
    for (int64_t t = 0; t < length; ++t) {
      const bool marked = t == first || t == second;
      const double value = random->NextUniform();
      double* input = &batch->inputs[static_cast<size_t>((t * batch->rows + row) * 2)];
      input[0] = value;
      input[1] = marked ? 1.0 : 0.0;
      if (marked) sum += value;
    }
    batch->target_values[static_cast<size_t>(row)] = sum;
    batch->weights[static_cast<size_t>(row)] = 1.0;
  }

  absl::Span<const TargetScale> target_scales() const override {
    return absl::MakeConstSpan(&scale_, 1);
  }

 private:
  const LengthRange lengths_;
  const TargetScale scale_;
};

}  // namespace

absl::StatusOr<TaskShape> AddingShape(const v1::AddingTask& task) {
  RETURN_IF_ERROR(CheckRange("task.adding.time_steps", task.time_steps(), 2, 10000));
  RETURN_IF_ERROR(
      CheckRange("task.adding.time_steps_min", task.time_steps_min(), 2, task.time_steps()));
  TaskShape shape;
  shape.time_steps = task.time_steps();
  shape.features = 2;
  shape.outputs = 1;
  shape.loss_at_last = true;
  shape.target_names = {"sum"};
  shape.feature_names = {"value", "mark"};
  return shape;
}

std::unique_ptr<ExampleMaker> NewAddingMaker(const v1::AddingTask& task) {
  return std::make_unique<AddingMaker>(LengthRange{task.time_steps_min(), task.time_steps()});
}

}  // namespace gradwatch::data
