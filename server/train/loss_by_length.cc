#include "server/train/loss_by_length.h"

#include <algorithm>
#include <numeric>

#include "absl/types/span.h"
#include "server/nn/buffer.h"

namespace gradwatch::train {
namespace {

using Rows = std::vector<int32_t>::const_reverse_iterator;  // Lengths, shortest first.

// One past the last row that is as long as the one at `first`.
Rows EndOfLength(Rows first, Rows end) {
  return std::find_if(first, end, [&](int32_t length) { return length != *first; });
}

// Which eighth of all rows, counted from the shortest, the middle one of [first, last) is in.
int64_t EighthOf(const std::vector<int32_t>& lengths, Rows first, Rows last) {
  const int64_t twice_the_middle = (first - lengths.rbegin()) + (last - lengths.rbegin());
  return LossByLength::kGroupsMax * twice_the_middle / (2 * std::ssize(lengths));
}

bool FewLengths(const std::vector<int32_t>& lengths) {
  int count = 0;
  for (Rows at = lengths.rbegin(); at != lengths.rend(); at = EndOfLength(at, lengths.rend())) {
    ++count;
  }
  return count <= LossByLength::kGroupsMax;
}

// One past the last row of the group that begins at `first`.
Rows EndOfGroup(const std::vector<int32_t>& lengths, bool each_length, Rows first) {
  const Rows end = lengths.rend();
  Rows last = EndOfLength(first, end);
  if (each_length) return last;
  const int64_t eighth = EighthOf(lengths, first, last);
  while (last != end) {
    const Rows next = EndOfLength(last, end);
    if (EighthOf(lengths, last, next) != eighth) break;
    last = next;
  }
  return last;
}

}  // namespace

LossByLength::LossByLength(int64_t rows_max) {
  losses_.reserve(static_cast<size_t>(rows_max));
  weights_.reserve(static_cast<size_t>(rows_max));
}

void LossByLength::WeighRows(const Batch& batch, bool loss_at_last) {
  weights_.assign(static_cast<size_t>(batch.rows), 0.0);
  const int64_t steps = loss_at_last ? 1 : batch.time_steps;
  for (int64_t t = 0; t < steps; ++t) {
    const double* weights = batch.weights.data() + t * batch.rows;
    for (size_t row = 0; row < weights_.size(); ++row) {
      if (loss_at_last || batch.lengths[row] > t) weights_[row] += weights[row];
    }
  }
}

template <typename S>
void LossByLength::Record(const Batch& batch, const nn::Network<S>& network,
                          v1::StepStats* record) {
  if (batch.lengths.front() == batch.lengths.back()) return;
  losses_.resize(static_cast<size_t>(batch.rows));
  network.RowLosses(absl::MakeSpan(losses_));
  WeighRows(batch, network.config().loss_at == nn::LossAt::kLastStep);
  const double total = std::accumulate(weights_.begin(), weights_.end(), 0.0);

  // Room for all groups at once: a later step may have more of them.
  while (record->lengths_size() < kGroupsMax) record->add_lengths();
  record->clear_lengths();
  const bool each_length = FewLengths(batch.lengths);
  const Rows end = batch.lengths.rend();
  for (Rows first = batch.lengths.rbegin(), last; first != end; first = last) {
    last = EndOfGroup(batch.lengths, each_length, first);
    double loss = 0.0;
    double weight = 0.0;
    for (int64_t row = end - last; row < end - first; ++row) {
      loss += losses_[static_cast<size_t>(row)];
      weight += weights_[static_cast<size_t>(row)];
    }
    if (weight > 0.0) {
      v1::LengthStats* group = record->add_lengths();
      group->set_minimum(*first);
      group->set_maximum(*(last - 1));
      group->set_rows(static_cast<int32_t>(last - first));
      group->set_loss(loss * total / weight);
    }
  }
}

int64_t LossByLength::MemoryBytesOf(int64_t rows_max) {
  return nn::SaturatingMultiply(rows_max, 2 * static_cast<int64_t>(sizeof(double)));
}

template void LossByLength::Record(const Batch&, const nn::Network<float>&, v1::StepStats*);
template void LossByLength::Record(const Batch&, const nn::Network<double>&, v1::StepStats*);

}  // namespace gradwatch::train
