#ifndef GRADWATCH_SERVER_NN_INITIALIZE_H_
#define GRADWATCH_SERVER_NN_INITIALIZE_H_

#include <cstdint>
#include <vector>

#include "server/nn/network_config.h"

namespace gradwatch::nn {

// First values of one tensor, row-major, drawn from stream (seed, parameter.name).
std::vector<double> InitialValues(const NetworkConfig& config, const Parameter& parameter,
                                  uint64_t seed);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_INITIALIZE_H_
