#ifndef GRADWATCH_SERVER_TRAIN_LOSS_BY_LENGTH_H_
#define GRADWATCH_SERVER_TRAIN_LOSS_BY_LENGTH_H_

#include <cstdint>
#include <vector>

#include "gradwatch/v1/stats.pb.h"
#include "server/base/batch.h"
#include "server/nn/network.h"

namespace gradwatch::train {

// Splits the loss of a batch by the length of its rows (StepStats.lengths). Allocates in its
// constructor only.
class LossByLength {
 public:
  static constexpr int kGroupsMax = 8;

  // For batches of at most `rows_max` rows.
  explicit LossByLength(int64_t rows_max);

  // Adds the groups to `record`, shortest first, from the network's last ForwardBackward, which was
  // of `batch`. Nothing for a batch of one length. With at most 8 lengths each has a group of its
  // own; with more, a length goes to the eighth of the rows that its middle row is in. A group
  // without weight in the loss is left out.
  template <typename S>
  void Record(const Batch& batch, const nn::Network<S>& network, v1::StepStats* record);

  // What it holds in bytes.
  static int64_t MemoryBytesOf(int64_t rows_max);

 private:
  void WeighRows(const Batch& batch, bool loss_at_last);

  std::vector<double> losses_;   // [B], each row's part of the loss.
  std::vector<double> weights_;  // [B], each row's weight in it.
};

extern template void LossByLength::Record(const Batch&, const nn::Network<float>&, v1::StepStats*);
extern template void LossByLength::Record(const Batch&, const nn::Network<double>&, v1::StepStats*);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_LOSS_BY_LENGTH_H_
