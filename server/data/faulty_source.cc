#include "server/data/faulty_source.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gradwatch::data {
namespace {

class FaultySource final : public Source {
 public:
  FaultySource(const v1::FaultInjection& fault, std::unique_ptr<Source> source)
      : fault_(fault), source_(std::move(source)) {}

  const TaskShape& shape() const override { return source_->shape(); }

  void NextBatch(Batch* batch) override {
    source_->NextBatch(batch);
    if (!IsSpoilt(fault_, next_++)) return;
    fault_.not_a_number() ? MakeHoles(batch) : Scale(batch);
  }

  void Seek(int64_t number) override {
    source_->Seek(number);
    next_ = number;
  }

  int64_t evaluation_batches() const override { return source_->evaluation_batches(); }
  void EvaluationBatch(int64_t i, Batch* batch) override { source_->EvaluationBatch(i, batch); }
  absl::Span<const TargetScale> target_scales() const override { return source_->target_scales(); }

  // The number of the next batch, then the position of what is spoilt.
  std::string SaveState() const override {
    std::string number(sizeof(next_), '\0');
    std::memcpy(number.data(), &next_, sizeof(next_));
    return absl::StrCat(number, source_->SaveState());
  }

  absl::Status LoadState(absl::string_view state) override {
    int64_t next = -1;
    if (state.size() >= sizeof(next)) std::memcpy(&next, state.data(), sizeof(next));
    if (next < 0) return absl::InvalidArgumentError("not a position of a job with faults");
    const absl::Status status = source_->LoadState(state.substr(sizeof(next)));
    if (status.ok()) next_ = next;
    return status;
  }

 private:
  void Scale(Batch* batch) const {
    for (double& value : batch->inputs) value *= fault_.factor();
    for (double& value : batch->target_values) value *= fault_.factor();
  }

  // [T, B, F]: the first time step stands in front.
  static void MakeHoles(Batch* batch) {
    for (int64_t row = 0; row < batch->rows; ++row) {
      batch->inputs[static_cast<size_t>(row * batch->features)] =
          std::numeric_limits<double>::quiet_NaN();
    }
  }

  const v1::FaultInjection fault_;
  const std::unique_ptr<Source> source_;
  int64_t next_ = 0;
};

}  // namespace

bool IsSpoilt(const v1::FaultInjection& fault, int64_t number) {
  const int64_t into = number - fault.first_batch();
  return into >= 0 && into < fault.batches();
}

std::unique_ptr<Source> NewFaultySource(const v1::FaultInjection& fault,
                                        std::unique_ptr<Source> source) {
  return std::make_unique<FaultySource>(fault, std::move(source));
}

}  // namespace gradwatch::data
