#ifndef GRADWATCH_SERVER_TRAIN_STEP_RECORD_H_
#define GRADWATCH_SERVER_TRAIN_STEP_RECORD_H_

#include "gradwatch/v1/stats.pb.h"
#include "server/base/batch.h"
#include "server/nn/network.h"
#include "server/stats/gradient_stats.h"

namespace gradwatch::train {

// Clears the record and keeps the memory that it holds, so that filling it
// again takes none.
void ClearRecord(v1::StepStats* record);

// Takes the `growth` of a cleared record away again: it does not exist at this
// step.
void DropGrowth(v1::StepStats* record);

// Writes what `summary` says; `histogram` may be null. Leaves the weights'
// fields alone.
void FillTensorStats(const stats::TensorSummary& summary, const stats::Log2Histogram* histogram,
                     v1::TensorStats* message);

// Where the network's last run first left the finite numbers, in the words of
// v1::NonFiniteOrigin.
void FillOrigin(const nn::NonFinite& origin, v1::NonFiniteOrigin* message);

// One message for each layer from the last ForwardBackward at nn::Detail::kFull. The lag profile
// exists only for a loss at the last step.
template <typename S>
void FillLayerTimeStats(const nn::Network<S>& network, v1::StepStats* record);

extern template void FillLayerTimeStats(const nn::Network<float>&, v1::StepStats*);
extern template void FillLayerTimeStats(const nn::Network<double>&, v1::StepStats*);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_STEP_RECORD_H_
