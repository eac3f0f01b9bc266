#ifndef GRADWATCH_SERVER_DATA_FAULTY_SOURCE_H_
#define GRADWATCH_SERVER_DATA_FAULTY_SOURCE_H_

#include <cstdint>
#include <memory>

#include "gradwatch/v1/job.pb.h"
#include "server/base/export.h"
#include "server/data/source.h"

namespace gradwatch::data {

// Whether `fault`, which has its defaults filled in, spoils training batch `number`.
GRADWATCH_ENGINE_API bool IsSpoilt(const v1::FaultInjection& fault, int64_t number);

// The batches of `source`, of which some training batches are spoilt as `fault` says, which has its
// defaults filled in.
std::unique_ptr<Source> NewFaultySource(const v1::FaultInjection& fault,
                                        std::unique_ptr<Source> source);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_FAULTY_SOURCE_H_
