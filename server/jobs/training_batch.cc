#include "server/jobs/training_batch.h"

#include <algorithm>
#include <string>

#include "server/data/utf8.h"

namespace gradwatch::jobs {
namespace {

// One row of a batch, which is time-major.
class Row {
 public:
  Row(const Batch& batch, const data::TaskShape& shape, const data::DatasetContent* text,
      int64_t row)
      : batch_(batch), shape_(shape), text_(text), row_(row) {}

  void Show(v1::TrainingExample* example) const {
    example->set_origin(batch_.origins[static_cast<size_t>(row_)]);
    example->set_time_steps(static_cast<int32_t>(length()));
    for (int64_t t = 0; t < length(); ++t) ShowInput(At(t), example);
    if (shape_.loss_at_last) {
      ShowTarget(static_cast<size_t>(row_), example);
    } else {
      for (int64_t t = 0; t < length(); ++t) ShowTarget(At(t), example);
      ShowWeights(example);
    }
  }

 private:
  int64_t length() const { return batch_.lengths[static_cast<size_t>(row_)]; }
  size_t At(int64_t t) const { return static_cast<size_t>(t * batch_.rows + row_); }

  void ShowInput(size_t at, v1::TrainingExample* example) const {
    if (text_ != nullptr) {
      Append(batch_.tokens[at], example->mutable_text());
    } else if (shape_.vocabulary > 0) {
      example->add_inputs(static_cast<float>(batch_.tokens[at]));
    } else {
      const auto features = static_cast<size_t>(batch_.features);
      for (size_t f = 0; f < features; ++f) {
        example->add_inputs(static_cast<float>(batch_.inputs[at * features + f]));
      }
    }
  }

  void ShowTarget(size_t at, v1::TrainingExample* example) const {
    if (text_ != nullptr) {
      Append(batch_.target_classes[at], example->mutable_target_text());
    } else if (shape_.classification) {
      example->add_target_classes(batch_.target_classes[at]);
    } else {
      const auto outputs = static_cast<size_t>(batch_.outputs);
      for (size_t o = 0; o < outputs; ++o) {
        example->add_target_values(static_cast<float>(batch_.target_values[at * outputs + o]));
      }
    }
  }

  // Nothing where all count alike.
  void ShowWeights(v1::TrainingExample* example) const {
    bool alike = true;
    for (int64_t t = 0; t < length(); ++t) {
      example->add_weights(static_cast<float>(batch_.weights[At(t)]));
      alike = alike && batch_.weights[At(t)] == 1.0;
    }
    if (alike) example->clear_weights();
  }

  void Append(int32_t token, std::string* text) const {
    data::AppendUtf8(text_->vocabulary[static_cast<size_t>(token)], text);
  }

  const Batch& batch_;
  const data::TaskShape& shape_;
  const data::DatasetContent* const text_;
  const int64_t row_;
};

}  // namespace

void ShowBatch(const Batch& batch, const data::TaskShape& shape, const data::DatasetContent* text,
               int examples_max, int64_t bytes_max, v1::TrainingBatch* shown) {
  shown->set_rows(static_cast<int32_t>(batch.rows));
  shown->mutable_target_names()->Assign(shape.target_names.begin(), shape.target_names.end());
  shown->mutable_feature_names()->Assign(shape.feature_names.begin(), shape.feature_names.end());
  if (text == nullptr && shape.vocabulary > 0) shown->add_feature_names("token");
  int64_t bytes = 0;
  for (int64_t row = 0; row < std::min<int64_t>(batch.rows, examples_max); ++row) {
    v1::TrainingExample* const example = shown->add_examples();
    Row(batch, shape, text, row).Show(example);
    bytes += static_cast<int64_t>(example->ByteSizeLong());
    if (bytes <= bytes_max || row == 0) continue;
    shown->mutable_examples()->RemoveLast();
    return;
  }
}

}  // namespace gradwatch::jobs
