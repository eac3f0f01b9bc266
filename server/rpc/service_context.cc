#include "server/rpc/service_context.h"

#include "absl/time/time.h"
#include "proto/support/errors.h"
#include "server/base/check.h"

namespace gradwatch::rpc {
namespace {

const char* TypeLabel(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) return "client_stream";
  return method.server_streaming() ? "server_stream" : "unary";
}

}  // namespace

MethodTable::MethodTable(const google::protobuf::ServiceDescriptor* service,
                         metrics::Metrics* metrics) {
  for (int i = 0; i < service->method_count(); ++i) {
    const google::protobuf::MethodDescriptor& method = *service->method(i);
    methods_[method.name()] =
        metrics->Method(service->full_name(), method.name(), TypeLabel(method));
  }
}

metrics::RpcMethod* MethodTable::operator[](absl::string_view method) const {
  const auto found = methods_.find(method);
  GRADWATCH_CHECK(found != methods_.end());
  return found->second;
}

absl::Status BusyError() {
  return WithRetryDelay(
      ErrorWithReason(absl::StatusCode::kResourceExhausted,
                      "the server has too many calls under way; try again in a second",
                      "TOO_MANY_CALLS"),
      absl::Seconds(1));
}

}  // namespace gradwatch::rpc
