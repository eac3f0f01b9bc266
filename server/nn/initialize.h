#ifndef GRADWATCH_SERVER_NN_INITIALIZE_H_
#define GRADWATCH_SERVER_NN_INITIALIZE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "server/nn/network_config.h"

namespace gradwatch::nn {

// Fills one tensor, row-major, with its first values, drawn in double from stream (seed,
// parameter.name) and rounded. Makes no second copy of the tensor; orthogonal and identity make one
// of a gate block, in double.
template <typename S>
void FillInitialValues(const NetworkConfig& config, const Parameter& parameter, uint64_t seed,
                       absl::Span<S> values);

extern template void FillInitialValues(const NetworkConfig&, const Parameter&, uint64_t,
                                       absl::Span<float>);
extern template void FillInitialValues(const NetworkConfig&, const Parameter&, uint64_t,
                                       absl::Span<double>);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_INITIALIZE_H_
