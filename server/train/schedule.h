#ifndef GRADWATCH_SERVER_TRAIN_SCHEDULE_H_
#define GRADWATCH_SERVER_TRAIN_SCHEDULE_H_

#include <cstdint>

#include "gradwatch/v1/job.pb.h"

namespace gradwatch::train {

// The learning rate of `step`, counted from 0, in double: constant, or as
// v1::WarmupCosine says. From the step limit on it stays at the cosine's end.
// `spec` has its defaults filled in.
double LearningRateAt(const v1::Optimizer& spec, int64_t step_limit, int64_t step);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_SCHEDULE_H_
