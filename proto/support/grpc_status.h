#ifndef GRADWATCH_PROTO_SUPPORT_GRPC_STATUS_H_
#define GRADWATCH_PROTO_SUPPORT_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace gradwatch {

// The one border between absl::Status and grpc::Status, for both ends of the
// wire.
//
// Payloads of an absl::Status (see errors.h) travel as a google.rpc.Status in
// the trailer grpc-status-details-bin. Trailers share one small budget (8 KiB
// with most clients), and a client that gets more sees a broken stream instead
// of the error, so both parts are bounded: the message is cut at
// kGrpcMessageBytesMax with an ellipsis, and beyond kGrpcDetailsBytesMax the
// last field violations go first, then the longest details. Text that is not
// UTF-8 is made so.
inline constexpr size_t kGrpcMessageBytesMax = 1024;
inline constexpr size_t kGrpcDetailsBytesMax = 3072;

grpc::Status ToGrpcStatus(const absl::Status& status);

// The way back: code, message and every detail. Details that do not parse are
// left out; a code that nobody knows becomes UNKNOWN.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace gradwatch

#endif  // GRADWATCH_PROTO_SUPPORT_GRPC_STATUS_H_
