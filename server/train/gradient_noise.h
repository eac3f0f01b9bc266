#ifndef GRADWATCH_SERVER_TRAIN_GRADIENT_NOISE_H_
#define GRADWATCH_SERVER_TRAIN_GRADIENT_NOISE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/base/batch.h"
#include "server/base/thread_team.h"
#include "server/data/source.h"
#include "server/nn/buffer.h"
#include "server/nn/network.h"
#include "server/stats/estimators.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::train {

// Measures how much of a gradient is noise: cuts a batch into parts and compares their gradients
// (Diagnostics.noise_every_steps). Parts take the rows as they were drawn, not as they are ordered
// by length, so that none has the long ones.
//
// With k parts of b rows, their mean m and s^2 = sum |g_i - m|^2 / (k - 1), unbiased estimates are
// |G|^2 = |m|^2 - s^2 / k and tr(S) = b s^2: for two parts those of McCandlish et al. 2018, with a
// part and the whole as small and large batch.
//
// Allocates in its constructor only. Threads: one at a time, and a team's members on its behalf;
// their number changes no bit.
template <typename S>
class GradientNoise {
 public:
  GradientNoise(const data::TaskShape& shape, const nn::Network<S>& network, int parts,
                ThreadTeam* team);

  // Sets `record->noise`; leaves it absent for a batch with fewer rows than parts and where the
  // estimates are not finite. Puts the network's carried state back, and leaves its gradients and
  // traces those of a part.
  void Measure(const Batch& batch, nn::Network<S>* network, v1::StepStats* record);

  // The moving averages.
  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

  // What it holds in bytes; saturates. `state` is how many numbers a network carries on.
  static int64_t MemoryBytesOf(int64_t weights, int64_t state, const data::TaskShape& shape,
                               int parts);

 private:
  // Some entries of one tensor, and sums over them.
  struct Chunk {
    int64_t offset = 0;
    int64_t size = 0;
    double squares = 0.0;     // Of the means over the parts.
    double deviations = 0.0;  // Squares of what the parts differ from them.
    double ratios = 0.0;      // mean^2 / (variance + floor).
  };

  void ForChunks(void (GradientNoise::*work)(Chunk*));
  void OrderRows(const Batch& batch);
  void RunPart(const Batch& batch, absl::Span<int64_t> rows, nn::Network<S>* network);
  void AddPart(Chunk* chunk);
  void SumUp(Chunk* chunk);
  void Record(int64_t rows, v1::StepStats* record);

  const data::TaskShape part_shape_;
  const int parts_;
  ThreadTeam* const team_;
  const nn::NetworkConfig config_;
  const int64_t rows_max_;
  std::vector<Chunk> chunks_;      // Tensor by tensor.
  std::vector<size_t> chunks_of_;  // How many a tensor has.
  nn::Buffer<double> mean_;        // [P], over the parts so far.
  nn::Buffer<double> deviation_;   // [P], sum of squared deviations from it.
  nn::Buffer<S> state_;
  std::vector<int64_t> order_;  // Rows as they were drawn.
  Batch part_;
  absl::Span<const S> gradients_;  // Of the part that is being added.
  int added_ = 0;
  stats::Ema squared_norm_;
  stats::Ema variance_;
};

extern template class GradientNoise<float>;
extern template class GradientNoise<double>;

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_GRADIENT_NOISE_H_
