// Copy memory. Source: Arjovsky, Shah and Bengio, "Unitary evolution recurrent neural networks",
// 2016, with the lengths of Bai, Kolter and Koltun, arXiv:1803.01271.
#include "server/base/status.h"
#include "server/data/example_maker.h"
#include "server/data/field_check.h"

namespace gradwatch::data {
namespace {

constexpr int64_t kMemory = 10;  // Symbols to remember.
constexpr int64_t kLetters = 8;  // Tokens 1 to 8; 0 is the blank.
constexpr int32_t kSignal = 9;   // "Now".
constexpr int64_t kAlphabet = 10;

class CopyMemoryMaker final : public ExampleMaker {
 public:
  explicit CopyMemoryMaker(int64_t delay) : delay_(delay) {}

  int64_t DrawLength(RandomStream*) const override { return delay_ + 2 * kMemory; }

  void Write(Purpose, RandomStream* random, int64_t row, Batch* batch) const override {
    const auto at = [batch, row](int64_t t) { return static_cast<size_t>(t * batch->rows + row); };
    for (int64_t i = 0; i < kMemory; ++i) {
      const int32_t letter = 1 + static_cast<int32_t>(random->NextBelow(kLetters));
      batch->tokens[at(i)] = letter;
      batch->target_classes[at(delay_ + kMemory + i)] = letter;
    }
    batch->tokens[at(kMemory + delay_ - 1)] = kSignal;
    for (int64_t t = 0; t < batch->time_steps; ++t) batch->weights[at(t)] = 1.0;
  }

  absl::Span<const TargetScale> target_scales() const override { return {}; }

 private:
  const int64_t delay_;
};

}  // namespace

absl::StatusOr<TaskShape> CopyMemoryShape(const v1::CopyMemoryTask& task) {
  RETURN_IF_ERROR(CheckRange("task.copy_memory.delay", task.delay(), 1, 9980));
  TaskShape shape;
  shape.time_steps = task.delay() + 2 * kMemory;
  shape.vocabulary = kAlphabet;
  shape.outputs = kAlphabet;
  shape.classification = true;
  return shape;
}

std::unique_ptr<ExampleMaker> NewCopyMemoryMaker(const v1::CopyMemoryTask& task) {
  return std::make_unique<CopyMemoryMaker>(task.delay());
}

}  // namespace gradwatch::data
