#ifndef GRADWATCH_SERVER_RPC_STATS_FRAME_H_
#define GRADWATCH_SERVER_RPC_STATS_FRAME_H_

#include <memory>
#include <string>
#include <vector>

#include "gradwatch/v1/stats_service.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "server/jobs/step_log.h"

namespace gradwatch::rpc {

// The wire bytes of one StreamStatsResponse, put together from step records
// that were serialised once, when they were recorded. Long parts are shared
// with the record, which stays alive as long as the transport needs them; short
// ones are copied together, which is cheaper than sharing. Threads: one at a
// time.
class StatsFrame {
 public:
  // From this size on a part is shared.
  static constexpr size_t kShareBytesMin = 2048;

  // Adds one step; without its details when `scalars_only`.
  void AddStep(const std::shared_ptr<const jobs::StepRecord>& record, bool scalars_only);

  // Adds everything of `rest`, which has no steps.
  void AddRest(const v1::StreamStatsResponse& rest);

  // Bytes so far.
  size_t bytes() const { return bytes_; }

  // The message. Call once, last.
  grpc::ByteBuffer Finish();

 private:
  void AddPart(const std::shared_ptr<const jobs::StepRecord>& record, const std::string& part);
  void FlushCopied();

  size_t bytes_ = 0;
  std::string copied_;  // Follows the slices.
  std::vector<grpc::Slice> slices_;
};

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_STATS_FRAME_H_
