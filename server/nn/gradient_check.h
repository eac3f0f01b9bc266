#ifndef GRADWATCH_SERVER_NN_GRADIENT_CHECK_H_
#define GRADWATCH_SERVER_NN_GRADIENT_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/base/batch.h"
#include "server/nn/network.h"

namespace gradwatch::nn {

struct GradientCheckOptions {
  uint64_t seed = 0;
  int64_t entries_per_tensor = 64;  // At most this many, drawn without repetition; 0 = all.
  double step = 1e-5;
};

// One tensor: analytic gradient a against central difference f over the checked entries.
struct TensorCheck {
  std::string name;
  int64_t entries = 0;          // Compared.
  int64_t kinks = 0;            // Left out: the step moved a ReLU unit across its kink.
  double worst_absolute = 0.0;  // max |a - f|
  double worst_excess = 0.0;    // max |a - f| / (1e-9 + 1e-6 |a|): at most 1 is a pass.
  double worst_relative = 0.0;  // max |a - f| / max(|a|, |f|) where that is above 1e-8.
  double norm_relative = 0.0;   // ||a - f|| / ||a||; 0 when both are zero.
  int64_t worst_entry = -1;     // Index in the tensor of the worst excess.
};

// Compares the network's gradient on `batch` with central differences of its loss, in double.
// The states at the start of truncated chunks are held constant, as the truncated gradient
// supposes. Weights and carried state are as before on return; gradients() belong to `batch`.
// Costs two forward runs for each entry; allocates.
std::vector<TensorCheck> CheckGradients(Network<double>& network, const Batch& batch,
                                        const GradientCheckOptions& options);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_GRADIENT_CHECK_H_
