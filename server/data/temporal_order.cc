// Temporal order. Source: Hochreiter and Schmidhuber, 1997, with the places of Pascanu, Mikolov and
// Bengio, "On the difficulty of training recurrent neural networks", 2013.
#include "server/base/status.h"
#include "server/data/example_maker.h"
#include "server/data/field_check.h"
#include "server/data/length_range.h"

namespace gradwatch::data {
namespace {

constexpr int64_t kSymbols = 6;   // A, B, then the distractors.
constexpr int64_t kRelevant = 2;  // A and B.

// Even on [low, high).
int64_t DrawBetween(int64_t low, int64_t high, RandomStream* random) {
  return low + random->NextBelow(static_cast<uint32_t>(high - low));
}

class TemporalOrderMaker final : public ExampleMaker {
 public:
  explicit TemporalOrderMaker(const LengthRange& lengths) : lengths_(lengths) {}

  int64_t DrawLength(RandomStream* random) const override { return lengths_.Draw(random); }

  void Write(Purpose, RandomStream* random, int64_t row, Batch* batch) const override {
    const int64_t length = batch->lengths[static_cast<size_t>(row)];
    const int64_t first = DrawBetween(length / 10, 2 * length / 10, random);
    const int64_t second = DrawBetween(5 * length / 10, 6 * length / 10, random);
    const int64_t first_symbol = DrawBetween(0, kRelevant, random);
    const int64_t second_symbol = DrawBetween(0, kRelevant, random);
    for (int64_t t = 0; t < length; ++t) {
      int64_t symbol = DrawBetween(kRelevant, kSymbols, random);
      if (t == first) symbol = first_symbol;
      if (t == second) symbol = second_symbol;
      batch->tokens[static_cast<size_t>(t * batch->rows + row)] = static_cast<int32_t>(symbol);
    }
    batch->target_classes[static_cast<size_t>(row)] =
        static_cast<int32_t>(kRelevant * first_symbol + second_symbol);
    batch->weights[static_cast<size_t>(row)] = 1.0;
  }

  absl::Span<const TargetScale> target_scales() const override { return {}; }

 private:
  const LengthRange lengths_;
};

}  // namespace

absl::StatusOr<TaskShape> TemporalOrderShape(const v1::TemporalOrderTask& task) {
  RETURN_IF_ERROR(CheckRange("task.temporal_order.time_steps", task.time_steps(), 10, 10000));
  RETURN_IF_ERROR(CheckRange("task.temporal_order.time_steps_min", task.time_steps_min(), 10,
                             task.time_steps()));
  TaskShape shape;
  shape.time_steps = task.time_steps();
  shape.vocabulary = kSymbols;
  shape.outputs = kRelevant * kRelevant;
  shape.classification = true;
  shape.loss_at_last = true;
  return shape;
}

std::unique_ptr<ExampleMaker> NewTemporalOrderMaker(const v1::TemporalOrderTask& task) {
  return std::make_unique<TemporalOrderMaker>(
      LengthRange{task.time_steps_min(), task.time_steps()});
}

}  // namespace gradwatch::data
