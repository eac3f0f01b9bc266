#include "server/train/evaluator.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gradwatch::train {
namespace {

// An adding example counts as solved below this squared error.
constexpr double kSolvedSquaredError = 0.04;

}  // namespace

template <typename S>
Evaluator<S>::Evaluator(const v1::Task& task, data::Source* source, nn::Network<S>* network)
    : adding_(task.has_adding()),
      source_(source),
      network_(network),
      state_aside_(static_cast<int64_t>(network->state().size())),
      squares_(static_cast<size_t>(source->shape().outputs)) {}

template <typename S>
v1::EvaluationResult Evaluator<S>::Run() {
  std::copy(network_->state().begin(), network_->state().end(), state_aside_.data());
  std::fill(squares_.begin(), squares_.end(), 0.0);
  Sums sums;
  for (int64_t i = 0; i < source_->evaluation_batches(); ++i) {
    source_->EvaluationBatch(i, &batch_);
    AddBatch(&sums);
  }
  std::copy_n(state_aside_.data(), state_aside_.size(), network_->state().data());

  v1::EvaluationResult result;
  result.set_examples(sums.examples);
  if (sums.weight == 0.0) {
    result.set_loss(std::numeric_limits<double>::quiet_NaN());
    return result;
  }
  result.set_loss(sums.loss / sums.weight);
  const double positions = static_cast<double>(sums.positions);
  if (source_->shape().classification) {
    result.set_accuracy(static_cast<double>(sums.right) / positions);
    return result;
  }
  for (size_t o = 0; o < squares_.size(); ++o) {
    const double scale = source_->target_scales()[o].deviation;
    result.add_rmse_original_units(scale * std::sqrt(squares_[o] / sums.weight));
  }
  if (adding_) result.set_solved_share(static_cast<double>(sums.solved) / positions);
  return result;
}

template <typename S>
void Evaluator<S>::AddBatch(Sums* sums) {
  const double loss = network_->Forward(batch_);
  double weight = 0.0;
  const auto add = [&](int64_t t, int64_t row, size_t index) {
    if (batch_.weights[index] <= 0.0) return;
    weight += batch_.weights[index];
    AddPosition(t, row, index, sums);
  };
  if (source_->shape().loss_at_last) {
    for (int64_t row = 0; row < batch_.rows; ++row) {
      const auto index = static_cast<size_t>(row);
      add(batch_.lengths[index] - 1, row, index);
    }
  } else {
    for (int64_t t = 0; t < batch_.time_steps; ++t) {
      const int64_t valid = batch_.valid_rows(t);
      for (int64_t row = 0; row < valid; ++row) {
        add(t, row, static_cast<size_t>(t * batch_.rows + row));
      }
    }
  }
  sums->weight += weight;
  sums->loss += weight * loss;
  sums->examples += batch_.rows;
}

template <typename S>
void Evaluator<S>::AddPosition(int64_t t, int64_t row, size_t index, Sums* sums) {
  const absl::Span<const S> output = network_->output(t, row);
  ++sums->positions;
  if (source_->shape().classification) {
    const auto best = std::max_element(output.begin(), output.end()) - output.begin();
    sums->right += best == batch_.target_classes[index];
    return;
  }
  double sum = 0.0;
  for (size_t o = 0; o < output.size(); ++o) {
    const double error =
        static_cast<double>(output[o]) - batch_.target_values[index * output.size() + o];
    squares_[o] += batch_.weights[index] * error * error;
    sum += error * error;
  }
  sums->solved += sum < kSolvedSquaredError * static_cast<double>(output.size());
}

template class Evaluator<float>;
template class Evaluator<double>;

}  // namespace gradwatch::train
