#include "gradwatch/v1/alert_service.grpc.pb.h"
#include "server/rpc/service_context.h"
#include "server/rpc/unary.h"
#include "server/rpc/write_stream.h"

namespace gradwatch::rpc {
namespace {

class WatchAlertsCall final : public WriteStream<v1::WatchAlertsResponse> {
 public:
  WatchAlertsCall(const ServiceContext& services, metrics::RpcMethod* method,
                  grpc::CallbackServerContext* context, const v1::WatchAlertsRequest& request)
      : WriteStream(services.streams, method, context), services_(services), request_(request) {}

 private:
  using Outcome = jobs::JobManager::AlertReader::Outcome;

  absl::Status Open() override {
    auto reader = services_.jobs->OpenAlerts(request_.parent(), [this] { Wake(); });
    if (reader.ok()) reader_ = *std::move(reader);
    return reader.status();
  }

  absl::StatusOr<Pulled> Pull(v1::WatchAlertsResponse* response) override {
    response->Clear();
    int64_t dropped = 0;
    const absl::StatusOr<Outcome> read = reader_->Read(response->mutable_alert(), &dropped);
    if (!read.ok()) return read.status();
    if (*read == Outcome::kEnd) return Pulled::kEnd;
    if (*read == Outcome::kNothing) return Pulled::kNothing;
    response->set_dropped_before(dropped);
    services_.metrics->EventsDropped(dropped);
    services_.metrics->EventsSent(1);
    return Pulled::kMessage;
  }

  bool Heartbeat(v1::WatchAlertsResponse* response) override {
    response->Clear();
    return true;
  }

  void Close() override { reader_.reset(); }

  const ServiceContext services_;
  const v1::WatchAlertsRequest request_;
  std::unique_ptr<jobs::JobManager::AlertReader> reader_;
};

class AlertService final : public v1::AlertService::CallbackService {
 public:
  explicit AlertService(const ServiceContext& services)
      : services_(services),
        methods_(v1::ListRulesRequest::descriptor()->file()->FindServiceByName("AlertService"),
                 services.metrics) {}

  grpc::ServerUnaryReactor* ListAlerts(grpc::CallbackServerContext* context,
                                       const v1::ListAlertsRequest* request,
                                       v1::ListAlertsResponse* response) override {
    return RunUnary(services_.reads, methods_["ListAlerts"], context, request, response,
                    [this](const auto& r) { return services_.jobs->ListAlerts(r); });
  }

  grpc::ServerWriteReactor<v1::WatchAlertsResponse>* WatchAlerts(
      grpc::CallbackServerContext* context, const v1::WatchAlertsRequest* request) override {
    return (new WatchAlertsCall(services_, methods_["WatchAlerts"], context, *request))
        ->Start(services_.reads);
  }

  grpc::ServerUnaryReactor* AcknowledgeAlert(grpc::CallbackServerContext* context,
                                             const v1::AcknowledgeAlertRequest* request,
                                             v1::Alert* response) override {
    return RunUnary(services_.control, methods_["AcknowledgeAlert"], context, request, response,
                    [this](const auto& r) { return services_.jobs->AcknowledgeAlert(r); });
  }

  grpc::ServerUnaryReactor* SilenceRule(grpc::CallbackServerContext* context,
                                        const v1::SilenceRuleRequest* request,
                                        v1::Silence* response) override {
    return RunUnary(services_.control, methods_["SilenceRule"], context, request, response,
                    [this](const auto& r) { return services_.jobs->SilenceRule(r); });
  }

  grpc::ServerUnaryReactor* ListSilences(grpc::CallbackServerContext* context,
                                         const v1::ListSilencesRequest* request,
                                         v1::ListSilencesResponse* response) override {
    return RunUnary(services_.reads, methods_["ListSilences"], context, request, response,
                    [this](const auto& r) { return services_.jobs->ListSilences(r); });
  }

  grpc::ServerUnaryReactor* DeleteSilence(grpc::CallbackServerContext* context,
                                          const v1::DeleteSilenceRequest* request,
                                          google::protobuf::Empty* response) override {
    return RunUnary(services_.control, methods_["DeleteSilence"], context, request, response,
                    [this](const auto& r) -> absl::StatusOr<google::protobuf::Empty> {
                      const absl::Status status = services_.jobs->DeleteSilence(r);
                      if (!status.ok()) return status;
                      return google::protobuf::Empty();
                    });
  }

  grpc::ServerUnaryReactor* EvaluateRules(grpc::CallbackServerContext* context,
                                          const v1::EvaluateRulesRequest* request,
                                          v1::EvaluateRulesResponse* response) override {
    return RunUnary(services_.heavy, methods_["EvaluateRules"], context, request, response,
                    [this](const auto& r) { return services_.jobs->EvaluateRules(r); });
  }

  grpc::ServerUnaryReactor* ListRules(grpc::CallbackServerContext* context,
                                      const v1::ListRulesRequest* request,
                                      v1::ListRulesResponse* response) override {
    return RunUnary(services_.reads, methods_["ListRules"], context, request, response,
                    [this](const auto& r) { return services_.jobs->ListRules(r); });
  }

 private:
  const ServiceContext services_;
  const MethodTable methods_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewAlertService(const ServiceContext& context) {
  return std::make_unique<AlertService>(context);
}

}  // namespace gradwatch::rpc
