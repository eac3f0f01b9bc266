#include "google/protobuf/empty.pb.h"
#include "gradwatch/v1/job_service.grpc.pb.h"
#include "server/rpc/service_context.h"
#include "server/rpc/unary.h"
#include "server/rpc/write_stream.h"

namespace gradwatch::rpc {
namespace {

class WatchJobCall final : public WriteStream<v1::WatchJobResponse> {
 public:
  WatchJobCall(const ServiceContext& services, metrics::RpcMethod* method,
               grpc::CallbackServerContext* context, const v1::WatchJobRequest& request)
      : WriteStream(services.streams, method, context), services_(services), request_(request) {}

 private:
  absl::Status Open() override {
    auto reader = services_.jobs->OpenJob(request_.name(), [this] { Wake(); });
    if (reader.ok()) reader_ = *std::move(reader);
    return reader.status();
  }

  absl::StatusOr<Pulled> Pull(v1::WatchJobResponse* response) override {
    if (ended_) return Pulled::kEnd;
    response->Clear();
    const absl::StatusOr<bool> read = reader_->Read(response->mutable_job());
    if (!read.ok()) return read.status();
    if (!*read) return Pulled::kNothing;
    ended_ = response->job().state() == v1::Job::STATE_SUCCEEDED ||
             response->job().state() == v1::Job::STATE_FAILED ||
             response->job().state() == v1::Job::STATE_CANCELLED;
    services_.metrics->EventsSent(1);
    return Pulled::kMessage;
  }

  bool Heartbeat(v1::WatchJobResponse* response) override {
    response->Clear();
    return true;
  }

  void Close() override { reader_.reset(); }

  const ServiceContext services_;
  const v1::WatchJobRequest request_;
  std::unique_ptr<jobs::JobManager::JobReader> reader_;
  bool ended_ = false;
};

class JobService final : public v1::JobService::CallbackService {
 public:
  explicit JobService(const ServiceContext& services)
      : services_(services),
        methods_(v1::CreateJobRequest::descriptor()->file()->FindServiceByName("JobService"),
                 services.metrics) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request,
                                      v1::Job* response) override {
    const auto create = [this](const auto& r) { return services_.jobs->Create(r); };
    metrics::RpcMethod* const method = methods_["CreateJob"];
    // Checking the settings is arithmetic on a few numbers.
    if (request->validate_only()) return RunAtOnce(method, context, request, response, create);
    return RunUnary(services_.reads, method, context, request, response, create);
  }

  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request, v1::Job* response) override {
    return RunAtOnce(methods_["GetJob"], context, request, response,
                     [this](const auto& r) { return services_.jobs->Get(r.name()); });
  }

  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return RunUnary(services_.reads, methods_["ListJobs"], context, request, response,
                    [this](const auto& r) { return services_.jobs->List(r); });
  }

  grpc::ServerUnaryReactor* UpdateJob(grpc::CallbackServerContext* context,
                                      const v1::UpdateJobRequest* request,
                                      v1::UpdateJobResponse* response) override {
    return RunUnary(services_.control, methods_["UpdateJob"], context, request, response,
                    [this](const auto& r) { return services_.jobs->Update(r); });
  }

  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context,
                                      const v1::DeleteJobRequest* request,
                                      google::protobuf::Empty* response) override {
    return RunUnary(services_.control, methods_["DeleteJob"], context, request, response,
                    [this](const auto& r) -> absl::StatusOr<google::protobuf::Empty> {
                      const absl::Status status = services_.jobs->Delete(r);
                      if (!status.ok()) return status;
                      return google::protobuf::Empty();
                    });
  }

  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context,
                                     const v1::PauseJobRequest* request,
                                     v1::JobActionResponse* response) override {
    return RunUnary(services_.control, methods_["PauseJob"], context, request, response,
                    [this](const auto& r) { return services_.jobs->Pause(r.name()); });
  }

  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context,
                                      const v1::ResumeJobRequest* request,
                                      v1::JobActionResponse* response) override {
    return RunUnary(services_.control, methods_["ResumeJob"], context, request, response,
                    [this](const auto& r) { return services_.jobs->Resume(r.name()); });
  }

  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request,
                                      v1::JobActionResponse* response) override {
    return RunUnary(services_.control, methods_["CancelJob"], context, request, response,
                    [this](const auto& r) { return services_.jobs->Cancel(r.name()); });
  }

  grpc::ServerUnaryReactor* AdvanceJob(grpc::CallbackServerContext* context,
                                       const v1::AdvanceJobRequest* request,
                                       v1::JobActionResponse* response) override {
    return RunUnary(services_.control, methods_["AdvanceJob"], context, request, response,
                    [this](const auto& r) { return services_.jobs->Advance(r); });
  }

  grpc::ServerUnaryReactor* ListInterventions(grpc::CallbackServerContext* context,
                                              const v1::ListInterventionsRequest* request,
                                              v1::ListInterventionsResponse* response) override {
    return RunUnary(services_.reads, methods_["ListInterventions"], context, request, response,
                    [this](const auto& r) { return services_.jobs->ListInterventions(r); });
  }

  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) override {
    return (new WatchJobCall(services_, methods_["WatchJob"], context, *request))
        ->Start(services_.reads);
  }

  grpc::ServerUnaryReactor* GetBatch(grpc::CallbackServerContext* context,
                                     const v1::GetBatchRequest* request,
                                     v1::TrainingBatch* response) override {
    return RunUnary(services_.heavy, methods_["GetBatch"], context, request, response,
                    [this](const auto& r) { return services_.jobs->GetBatch(r); });
  }

  grpc::ServerUnaryReactor* CheckGradients(grpc::CallbackServerContext* context,
                                           const v1::CheckGradientsRequest* request,
                                           v1::CheckGradientsResponse* response) override {
    return RunUnary(services_.heavy, methods_["CheckGradients"], context, request, response,
                    [this](const auto& r) { return services_.jobs->CheckGradients(r); });
  }

 private:
  const ServiceContext services_;
  const MethodTable methods_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewJobService(const ServiceContext& context) {
  return std::make_unique<JobService>(context);
}

}  // namespace gradwatch::rpc
