#include "server/train/gradient_noise.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "server/base/range.h"
#include "server/data/batch_buffers.h"
#include "server/stats/gradient_stats.h"

namespace gradwatch::train {
namespace {

constexpr double kAverageBeta = 0.99;
constexpr double kVarianceFloor = 1e-5;

data::TaskShape PartShapeOf(data::TaskShape shape, int parts) {
  shape.rows_max /= std::max(parts, 1);
  return shape;
}

}  // namespace

template <typename S>
GradientNoise<S>::GradientNoise(const data::TaskShape& shape, const nn::Network<S>& network,
                                int parts, ThreadTeam* team)
    : part_shape_(PartShapeOf(shape, parts)),
      parts_(parts),
      team_(team),
      config_(network.config()),
      rows_max_(shape.rows_max),
      mean_(static_cast<int64_t>(network.weights().size())),
      deviation_(static_cast<int64_t>(network.weights().size())),
      state_(static_cast<int64_t>(network.state().size())),
      squared_norm_(kAverageBeta),
      variance_(kAverageBeta) {
  for (const nn::Parameter& parameter : network.parameters()) {
    const size_t before = chunks_.size();
    for (int64_t begin = 0; begin < parameter.size; begin += stats::kChunk) {
      Chunk chunk;
      chunk.offset = parameter.offset + begin;
      chunk.size = std::min(stats::kChunk, parameter.size - begin);
      chunks_.push_back(chunk);
    }
    chunks_of_.push_back(chunks_.size() - before);
  }
  order_.reserve(static_cast<size_t>(shape.rows_max));
  if (part_shape_.rows_max > 0) {
    data::ResizeBatch(part_shape_, part_shape_.time_steps, part_shape_.rows_max, &part_);
  }
}

template <typename S>
void GradientNoise<S>::ForChunks(void (GradientNoise::*work)(Chunk*)) {
  const auto count = static_cast<int64_t>(chunks_.size());
  team_->Run([&](int member) {
    const Range part = PartOf(count, member, team_->threads());
    for (int64_t i = part.begin; i < part.end; ++i) (this->*work)(&chunks_[static_cast<size_t>(i)]);
  });
}

// A batch of equal lengths stands as it was drawn. Others are of generated examples, whose numbers
// rise as they are drawn.
template <typename S>
void GradientNoise<S>::OrderRows(const Batch& batch) {
  order_.resize(static_cast<size_t>(batch.rows));
  std::iota(order_.begin(), order_.end(), int64_t{0});
  if (batch.lengths.front() == batch.lengths.back()) return;
  const auto origin = [&](int64_t row) { return batch.origins[static_cast<size_t>(row)]; };
  std::sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) {
    return origin(a) != origin(b) ? origin(a) < origin(b) : a < b;
  });
}

// Row i of the part starts from the state of its row of the batch.
template <typename S>
void GradientNoise<S>::RunPart(const Batch& batch, absl::Span<int64_t> rows,
                               nn::Network<S>* network) {
  std::sort(rows.begin(), rows.end());  // Longest first again.
  data::TakeRows(part_shape_, batch, rows, &part_);
  const absl::Span<S> state = network->state();
  const int64_t width = config_.hidden;
  const int64_t layer = rows_max_ * width;
  for (int64_t begin = 0; begin < state_.size(); begin += layer) {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(state_.data() + begin + rows[i] * width, width,
                  state.data() + begin + static_cast<int64_t>(i) * width);
    }
  }
  network->ForwardBackward(part_);
  gradients_ = network->gradients();
  ++added_;
  ForChunks(&GradientNoise::AddPart);
}

// Welford's update: no difference of large sums.
template <typename S>
void GradientNoise<S>::AddPart(Chunk* chunk) {
  const double share = 1.0 / added_;
  const S* const gradient = gradients_.data() + chunk->offset;
  double* const mean = mean_.data() + chunk->offset;
  double* const deviation = deviation_.data() + chunk->offset;
  for (int64_t i = 0; i < chunk->size; ++i) {
    const double value = static_cast<double>(gradient[i]);
    const double before = added_ == 1 ? 0.0 : mean[i];
    const double after = before + (value - before) * share;
    const double product = (value - before) * (value - after);
    deviation[i] = added_ == 1 ? 0.0 : deviation[i] + product;
    mean[i] = after;
  }
}

template <typename S>
void GradientNoise<S>::SumUp(Chunk* chunk) {
  const double share = 1.0 / (parts_ - 1);
  const double* const mean = mean_.data() + chunk->offset;
  const double* const deviation = deviation_.data() + chunk->offset;
  chunk->squares = chunk->deviations = chunk->ratios = 0.0;
  for (int64_t i = 0; i < chunk->size; ++i) {
    const double square = mean[i] * mean[i];
    chunk->squares += square;
    chunk->deviations += deviation[i];
    chunk->ratios += square / (deviation[i] * share + kVarianceFloor);
  }
}

template <typename S>
void GradientNoise<S>::Measure(const Batch& batch, nn::Network<S>* network, v1::StepStats* record) {
  const int64_t rows = std::min(batch.rows / parts_, part_shape_.rows_max);
  if (rows < 1) return;
  const absl::Span<S> state = network->state();
  std::copy(state.begin(), state.end(), state_.data());
  OrderRows(batch);
  added_ = 0;
  for (int part = 0; part < parts_; ++part) {
    RunPart(
        batch,
        absl::MakeSpan(order_).subspan(static_cast<size_t>(part * rows), static_cast<size_t>(rows)),
        network);
  }
  std::copy_n(state_.data(), state.size(), state.begin());
  ForChunks(&GradientNoise::SumUp);
  Record(rows, record);
}

template <typename S>
void GradientNoise<S>::Record(int64_t rows, v1::StepStats* record) {
  Chunk total;
  for (const Chunk& chunk : chunks_) {
    total.size += chunk.size;
    total.squares += chunk.squares;
    total.deviations += chunk.deviations;
    total.ratios += chunk.ratios;
  }
  const double of_a_part = total.deviations / (parts_ - 1);
  const double squared_norm = total.squares - of_a_part / parts_;
  const double variance = static_cast<double>(rows) * of_a_part;
  if (!std::isfinite(squared_norm) || !std::isfinite(variance)) return;
  squared_norm_.Add(squared_norm);
  variance_.Add(variance);

  v1::NoiseStats* noise = record->mutable_noise();
  noise->set_squared_norm(squared_norm);
  noise->set_variance(variance);
  if (squared_norm_.value() > 0.0) {
    noise->set_noise_scale(variance_.value() / squared_norm_.value());
  }
  noise->set_signal_to_noise(total.ratios / static_cast<double>(total.size));
  noise->mutable_tensor_signal_to_noise()->Reserve(static_cast<int>(chunks_of_.size()));
  auto chunk = chunks_.begin();
  for (const size_t count : chunks_of_) {
    double ratios = 0.0;
    int64_t entries = 0;
    for (const auto end = chunk + static_cast<ptrdiff_t>(count); chunk != end; ++chunk) {
      ratios += chunk->ratios;
      entries += chunk->size;
    }
    noise->add_tensor_signal_to_noise(ratios / static_cast<double>(entries));
  }
}

template <typename S>
void GradientNoise<S>::SaveState(stats::StateWriter* writer) const {
  squared_norm_.SaveState(writer);
  variance_.SaveState(writer);
}

template <typename S>
void GradientNoise<S>::LoadState(stats::StateReader* reader) {
  squared_norm_.LoadState(reader);
  variance_.LoadState(reader);
}

template <typename S>
int64_t GradientNoise<S>::MemoryBytesOf(int64_t weights, int64_t state,
                                        const data::TaskShape& shape, int parts) {
  const int64_t batch = data::BatchBytes(PartShapeOf(shape, parts));
  const int64_t kept = nn::SaturatingMultiply(weights, 2 * static_cast<int64_t>(sizeof(double)));
  const int64_t aside = nn::SaturatingMultiply(state, static_cast<int64_t>(sizeof(S)));
  return nn::SaturatingAdd(nn::SaturatingAdd(kept, aside), batch);
}

template class GradientNoise<float>;
template class GradientNoise<double>;

}  // namespace gradwatch::train
