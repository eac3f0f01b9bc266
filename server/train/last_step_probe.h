#ifndef GRADWATCH_SERVER_TRAIN_LAST_STEP_PROBE_H_
#define GRADWATCH_SERVER_TRAIN_LAST_STEP_PROBE_H_

#include <cstdint>
#include <vector>

#include "gradwatch/v1/stats.pb.h"
#include "server/base/batch.h"
#include "server/nn/buffer.h"
#include "server/nn/network.h"

namespace gradwatch::train {

// Sends a gradient back from the last time step alone (Diagnostics.probe_every_steps). With a loss
// at each time step that takes a forward and backward pass of its own, over the same batch with
// weight only where each row has its last loss. Allocates in its constructor only.
template <typename S>
class LastStepProbe {
 public:
  // For batches of at most `positions_max` loss weights.
  LastStepProbe(const nn::Network<S>& network, int64_t positions_max);

  // Runs the batch, whose weights are put back, as is the network's carried state. Leaves the
  // network's gradients and traces those of the probe.
  void Run(Batch* batch, nn::Network<S>* network);

  // What it holds in bytes; saturates. `state` is how many numbers a network carries on.
  static int64_t MemoryBytesOf(int64_t state, int64_t positions_max);

 private:
  nn::Buffer<S> state_;
  std::vector<double> weights_;
};

// Writes one entry for each layer, from the last ForwardBackward at nn::Detail::kFull, in which a
// gradient entered at the last time step only.
template <typename S>
void FillProbe(const nn::Network<S>& network, v1::StepStats* record);

extern template class LastStepProbe<float>;
extern template class LastStepProbe<double>;
extern template void FillProbe(const nn::Network<float>&, v1::StepStats*);
extern template void FillProbe(const nn::Network<double>&, v1::StepStats*);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_LAST_STEP_PROBE_H_
