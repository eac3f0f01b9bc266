#include "gradwatch/v1/stats_service.grpc.pb.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "server/rpc/service_context.h"
#include "server/rpc/stats_frame.h"
#include "server/rpc/unary.h"
#include "server/rpc/write_stream.h"

namespace gradwatch::rpc {
namespace {

// A message holds at least one step, and further ones up to about so many
// bytes.
constexpr size_t kMessageBytes = 256 << 10;

class StreamStatsCall final : public WriteStream<grpc::ByteBuffer> {
 public:
  StreamStatsCall(const ServiceContext& services, metrics::RpcMethod* method,
                  grpc::CallbackServerContext* context, const grpc::ByteBuffer& request)
      : WriteStream(services.streams, method, context),
        services_(services),
        request_bytes_(request) {}

 private:
  absl::Status Open() override {
    v1::StreamStatsRequest request;
    const grpc::Status parsed =
        grpc::GenericDeserialize<grpc::ProtoBufferReader, v1::StreamStatsRequest>(&request_bytes_,
                                                                                  &request);
    if (!parsed.ok()) return absl::InvalidArgumentError("not a StreamStatsRequest");
    scalars_only_ = request.scalars_only();
    auto reader = services_.jobs->OpenStats(request, [this] { Wake(); });
    if (reader.ok()) reader_ = *std::move(reader);
    return reader.status();
  }

  absl::StatusOr<Pulled> Pull(grpc::ByteBuffer* response) override {
    if (next_ == portion_.steps.size()) {
      if (ended_) return Pulled::kEnd;
      next_ = 0;
      portion_ = jobs::JobManager::StatsPortion();
      const absl::StatusOr<bool> read = reader_->Read(&portion_);
      if (!read.ok()) return read.status();
      if (!*read) return Pulled::kNothing;
      services_.metrics->EventsDropped(portion_.dropped_before);
    }
    *response = NextMessage();
    return Pulled::kMessage;
  }

  // The next piece of the portion: what was dropped and folded stands before
  // the first step, the final job behind the last.
  grpc::ByteBuffer NextMessage() {
    v1::StreamStatsResponse rest;
    if (next_ == 0) {
      rest.set_dropped_before(portion_.dropped_before);
      if (portion_.folded.count() > 0) *rest.mutable_folded() = std::move(portion_.folded);
    }
    StatsFrame frame;
    const size_t first = next_;
    while (next_ < portion_.steps.size() && (next_ == first || frame.bytes() < kMessageBytes)) {
      frame.AddStep(*portion_.steps[next_], portion_.steps.owner(next_), scalars_only_);
      ++next_;
    }
    services_.metrics->EventsSent(static_cast<int64_t>(next_ - first));
    if (next_ == portion_.steps.size() && portion_.final_job != nullptr) {
      rest.set_allocated_final_job(portion_.final_job.release());
      ended_ = true;
    }
    // A stream that waits keeps nothing.
    if (next_ == portion_.steps.size()) {
      portion_.steps = jobs::StepRecords();
      next_ = 0;
    }
    frame.AddRest(rest);
    return frame.Finish();
  }

  bool Heartbeat(grpc::ByteBuffer* response) override {
    v1::StreamStatsResponse heartbeat;
    heartbeat.set_heartbeat(true);
    StatsFrame frame;
    frame.AddRest(heartbeat);
    *response = frame.Finish();
    return true;
  }

  void Close() override { reader_.reset(); }

  const ServiceContext services_;
  grpc::ByteBuffer request_bytes_;
  bool scalars_only_ = false;
  std::unique_ptr<jobs::JobManager::StatsReader> reader_;
  jobs::JobManager::StatsPortion portion_;
  size_t next_ = 0;  // Of portion_.steps.
  bool ended_ = false;
};

// StreamStats is served raw: its messages are put together from bytes.
using Base = v1::StatsService::WithRawCallbackMethod_StreamStats<
    v1::StatsService::WithCallbackMethod_QueryStats<
        v1::StatsService::WithCallbackMethod_GetClipAdvice<v1::StatsService::Service>>>;

class StatsService final : public Base {
 public:
  explicit StatsService(const ServiceContext& services)
      : services_(services),
        methods_(v1::StreamStatsRequest::descriptor()->file()->FindServiceByName("StatsService"),
                 services.metrics) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamStats(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) override {
    return (new StreamStatsCall(services_, methods_["StreamStats"], context, *request))
        ->Start(services_.reads);
  }

  grpc::ServerUnaryReactor* QueryStats(grpc::CallbackServerContext* context,
                                       const v1::QueryStatsRequest* request,
                                       v1::QueryStatsResponse* response) override {
    return RunUnary(services_.reads, methods_["QueryStats"], context, request, response,
                    [this](const auto& r) { return services_.jobs->QueryStats(r); });
  }

  grpc::ServerUnaryReactor* GetClipAdvice(grpc::CallbackServerContext* context,
                                          const v1::GetClipAdviceRequest* request,
                                          v1::ClipAdvice* response) override {
    return RunUnary(services_.reads, methods_["GetClipAdvice"], context, request, response,
                    [this](const auto& r) { return services_.jobs->GetClipAdvice(r); });
  }

 private:
  const ServiceContext services_;
  const MethodTable methods_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewStatsService(const ServiceContext& context) {
  return std::make_unique<StatsService>(context);
}

}  // namespace gradwatch::rpc
