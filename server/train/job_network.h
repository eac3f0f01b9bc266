#ifndef GRADWATCH_SERVER_TRAIN_JOB_NETWORK_H_
#define GRADWATCH_SERVER_TRAIN_JOB_NETWORK_H_

#include <vector>

#include "gradwatch/v1/job.pb.h"
#include "server/data/source.h"
#include "server/nn/network_config.h"

namespace gradwatch::train {

// The network of a job whose defaults are filled in, for a task of that shape.
nn::NetworkConfig NetworkConfigOf(const v1::Job& job, const data::TaskShape& shape);

// The same tensors as messages.
std::vector<v1::ParameterInfo> ParameterInfosOf(const std::vector<nn::Parameter>& parameters);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_JOB_NETWORK_H_
