#ifndef GRADWATCH_SERVER_RPC_STATS_FRAME_H_
#define GRADWATCH_SERVER_RPC_STATS_FRAME_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradwatch/v1/stats_service.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "server/jobs/step_record.h"

namespace gradwatch::rpc {

// The wire bytes of one StreamStatsResponse, put together from step records
// that were serialised once, when they were recorded. Long runs of bytes (of a
// long record, or of records that stand together in memory) are shared with the
// records, which stay alive as long as the transport needs them; short ones are
// copied together, which is cheaper than sharing. Threads: one at a time.
class StatsFrame {
 public:
  // From this size on a run is shared.
  static constexpr size_t kShareBytesMin = 2048;

  // Adds one step, which `owner` keeps; without its details when `scalars_only`.
  void AddStep(const jobs::StepRecord& record, const std::shared_ptr<const void>& owner,
               bool scalars_only);

  // Adds everything of `rest`, which has no steps.
  void AddRest(const v1::StreamStatsResponse& rest);

  // Bytes so far.
  size_t bytes() const { return bytes_; }

  // The message. Call once, last.
  grpc::ByteBuffer Finish();

 private:
  void AddScalars(const jobs::StepRecord& record);
  void FlushRun();
  void FlushCopied();

  size_t bytes_ = 0;
  std::vector<grpc::Slice> slices_;
  std::string copied_;     // Follows the slices.
  absl::string_view run_;  // Follows what is copied; whole records.
  std::shared_ptr<const void> run_owner_;
};

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_STATS_FRAME_H_
