#ifndef GRADWATCH_SERVER_DATA_GENERATED_SOURCE_H_
#define GRADWATCH_SERVER_DATA_GENERATED_SOURCE_H_

#include <memory>
#include <string>
#include <vector>

#include "server/data/example_maker.h"
#include "server/data/source.h"

namespace gradwatch::data {

// Examples made on the fly, each from its own random stream (seed, purpose, number).
class GeneratedSource final : public Source {
  struct Place {
    int64_t length;
    int64_t example;
  };

 public:
  // Held beside the batches, per row.
  static constexpr int64_t kBytesPerRow = sizeof(Place);

  GeneratedSource(const TaskShape& shape, std::unique_ptr<ExampleMaker> maker, uint64_t seed,
                  int64_t evaluation_examples);

  const TaskShape& shape() const override { return shape_; }
  void NextBatch(Batch* batch) override;
  void Seek(int64_t number) override { next_batch_ = number; }
  int64_t evaluation_batches() const override;
  void EvaluationBatch(int64_t i, Batch* batch) override;
  absl::Span<const TargetScale> target_scales() const override { return maker_->target_scales(); }
  std::string SaveState() const override;
  absl::Status LoadState(absl::string_view state) override;

 private:
  RandomStream StreamFor(Purpose purpose, int64_t example) const;
  void MakeBatch(Purpose purpose, int64_t first_example, int64_t rows, Batch* batch);

  const TaskShape shape_;
  const std::unique_ptr<ExampleMaker> maker_;
  const uint64_t seed_;
  const int64_t evaluation_examples_;
  int64_t next_batch_ = 0;
  std::vector<Place> order_;  // Scratch: the rows of a batch.
};

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_GENERATED_SOURCE_H_
