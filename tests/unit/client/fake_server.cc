#include "tests/unit/client/fake_server.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "client/cli/report.h"
#include "gradwatch/v1/alert_service.grpc.pb.h"
#include "gradwatch/v1/dataset_service.grpc.pb.h"
#include "gradwatch/v1/job_service.grpc.pb.h"
#include "gradwatch/v1/model_service.grpc.pb.h"
#include "gradwatch/v1/stats_service.grpc.pb.h"
#include "grpcpp/ext/health_check_service_server_builder_option.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "proto/support/grpc_status.h"

namespace gradwatch {
namespace {

const grpc::Status kUnimplemented(grpc::StatusCode::UNIMPLEMENTED, "not part of this test");

template <typename Request, typename Response>
grpc::Status Call(const Answer<Request, Response>& answer, const Request& request,
                  Response* response) {
  if (!answer) return kUnimplemented;
  absl::StatusOr<Response> result = answer(request);
  if (!result.ok()) return ToGrpcStatus(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

template <typename Request, typename Response>
grpc::Status Stream(const Answers<Request, Response>& answers, const Request& request,
                    grpc::ServerContext* context, grpc::ServerWriter<Response>* writer) {
  if (!answers) return kUnimplemented;
  const absl::Status status = answers(request, [context, writer](const Response& response) {
    return !context->IsCancelled() && writer->Write(response);
  });
  return ToGrpcStatus(status);
}

using Context = grpc::ServerContext;

}  // namespace

struct FakeServer::Services {
  struct Jobs : v1::JobService::Service {
    explicit Jobs(FakeServer* owner) : fake(owner) {}
    grpc::Status CreateJob(Context*, const v1::CreateJobRequest* in, v1::Job* out) override {
      return Call(fake->create_job, *in, out);
    }
    grpc::Status GetJob(Context*, const v1::GetJobRequest* in, v1::Job* out) override {
      return Call(fake->get_job, *in, out);
    }
    grpc::Status ListJobs(Context*, const v1::ListJobsRequest* in,
                          v1::ListJobsResponse* out) override {
      return Call(fake->list_jobs, *in, out);
    }
    grpc::Status UpdateJob(Context*, const v1::UpdateJobRequest* in,
                           v1::UpdateJobResponse* out) override {
      return Call(fake->update_job, *in, out);
    }
    grpc::Status PauseJob(Context*, const v1::PauseJobRequest* in,
                          v1::JobActionResponse* out) override {
      return Call(fake->pause_job, *in, out);
    }
    grpc::Status CancelJob(Context*, const v1::CancelJobRequest* in,
                           v1::JobActionResponse* out) override {
      return Call(fake->cancel_job, *in, out);
    }
    grpc::Status AdvanceJob(Context*, const v1::AdvanceJobRequest* in,
                            v1::JobActionResponse* out) override {
      return Call(fake->advance_job, *in, out);
    }
    grpc::Status ListInterventions(Context*, const v1::ListInterventionsRequest* in,
                                   v1::ListInterventionsResponse* out) override {
      return Call(fake->list_interventions, *in, out);
    }
    grpc::Status CheckGradients(Context*, const v1::CheckGradientsRequest* in,
                                v1::CheckGradientsResponse* out) override {
      return Call(fake->check_gradients, *in, out);
    }
    grpc::Status GetBatch(Context*, const v1::GetBatchRequest* in,
                          v1::TrainingBatch* out) override {
      return Call(fake->get_batch, *in, out);
    }
    grpc::Status WatchJob(Context* context, const v1::WatchJobRequest* in,
                          grpc::ServerWriter<v1::WatchJobResponse>* out) override {
      return Stream(fake->watch_job, *in, context, out);
    }
    FakeServer* const fake;
  };
  struct Stats : v1::StatsService::Service {
    explicit Stats(FakeServer* owner) : fake(owner) {}
    grpc::Status QueryStats(Context*, const v1::QueryStatsRequest* in,
                            v1::QueryStatsResponse* out) override {
      return Call(fake->query_stats, *in, out);
    }
    grpc::Status GetClipAdvice(Context*, const v1::GetClipAdviceRequest* in,
                               v1::ClipAdvice* out) override {
      return Call(fake->get_clip_advice, *in, out);
    }
    grpc::Status StreamStats(Context* context, const v1::StreamStatsRequest* in,
                             grpc::ServerWriter<v1::StreamStatsResponse>* out) override {
      return Stream(fake->stream_stats, *in, context, out);
    }
    FakeServer* const fake;
  };
  struct Alerts : v1::AlertService::Service {
    explicit Alerts(FakeServer* owner) : fake(owner) {}
    grpc::Status ListAlerts(Context*, const v1::ListAlertsRequest* in,
                            v1::ListAlertsResponse* out) override {
      return Call(fake->list_alerts, *in, out);
    }
    grpc::Status ListRules(Context*, const v1::ListRulesRequest* in,
                           v1::ListRulesResponse* out) override {
      return Call(fake->list_rules, *in, out);
    }
    grpc::Status AcknowledgeAlert(Context*, const v1::AcknowledgeAlertRequest* in,
                                  v1::Alert* out) override {
      return Call(fake->acknowledge_alert, *in, out);
    }
    grpc::Status SilenceRule(Context*, const v1::SilenceRuleRequest* in,
                             v1::Silence* out) override {
      return Call(fake->silence_rule, *in, out);
    }
    grpc::Status ListSilences(Context*, const v1::ListSilencesRequest* in,
                              v1::ListSilencesResponse* out) override {
      return Call(fake->list_silences, *in, out);
    }
    grpc::Status DeleteSilence(Context*, const v1::DeleteSilenceRequest* in,
                               google::protobuf::Empty* out) override {
      return Call(fake->delete_silence, *in, out);
    }
    grpc::Status EvaluateRules(Context*, const v1::EvaluateRulesRequest* in,
                               v1::EvaluateRulesResponse* out) override {
      return Call(fake->evaluate_rules, *in, out);
    }
    grpc::Status WatchAlerts(Context* context, const v1::WatchAlertsRequest* in,
                             grpc::ServerWriter<v1::WatchAlertsResponse>* out) override {
      return Stream(fake->watch_alerts, *in, context, out);
    }
    FakeServer* const fake;
  };
  struct Datasets : v1::DatasetService::Service {
    explicit Datasets(FakeServer* owner) : fake(owner) {}
    grpc::Status ListDatasets(Context*, const v1::ListDatasetsRequest* in,
                              v1::ListDatasetsResponse* out) override {
      return Call(fake->list_datasets, *in, out);
    }
    grpc::Status UploadDataset(Context*, grpc::ServerReader<v1::UploadDatasetRequest>* in,
                               v1::Dataset* out) override {
      if (!fake->upload) return kUnimplemented;
      std::vector<v1::UploadDatasetRequest> parts;
      v1::UploadDatasetRequest part;
      while (in->Read(&part)) parts.push_back(part);
      absl::StatusOr<v1::Dataset> result = fake->upload(parts);
      if (!result.ok()) return ToGrpcStatus(result.status());
      *out = *std::move(result);
      return grpc::Status::OK;
    }
    FakeServer* const fake;
  };
  struct Models : v1::ModelService::Service {
    explicit Models(FakeServer* owner) : fake(owner) {}
    grpc::Status Generate(Context*, const v1::GenerateRequest* in,
                          v1::GenerateResponse* out) override {
      return Call(fake->generate, *in, out);
    }
    grpc::Status DownloadModel(Context* context, const v1::DownloadModelRequest* in,
                               grpc::ServerWriter<v1::DownloadModelResponse>* out) override {
      return Stream(fake->download_model, *in, context, out);
    }
    FakeServer* const fake;
  };

  explicit Services(FakeServer* owner)
      : jobs(owner), stats(owner), alerts(owner), datasets(owner), models(owner) {}
  Jobs jobs;
  Stats stats;
  Alerts alerts;
  Datasets datasets;
  Models models;
  std::unique_ptr<grpc::Server> server;
};

FakeServer::FakeServer() : services_(std::make_unique<Services>(this)) {}

FakeServer::~FakeServer() { Stop(); }

void FakeServer::Start() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address_.empty() ? "127.0.0.1:0" : address_,
                           grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&services_->jobs);
  builder.RegisterService(&services_->stats);
  builder.RegisterService(&services_->alerts);
  builder.RegisterService(&services_->datasets);
  builder.RegisterService(&services_->models);
  services_->server = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

void FakeServer::Stop() {
  if (services_->server == nullptr) return;
  services_->server->Shutdown(std::chrono::system_clock::now());
  services_->server->Wait();
  services_->server.reset();
}

void Serve(const v1::Job& job, const std::vector<v1::StepStats>& steps,
           const std::vector<v1::Alert>& alerts, FakeServer* server) {
  const auto missing = [job](const std::string& name) {
    return name == job.name() ? absl::OkStatus()
                              : absl::NotFoundError(absl::StrCat("there is no job ", name));
  };
  server->get_job = [=](const v1::GetJobRequest& request) -> absl::StatusOr<v1::Job> {
    if (absl::Status status = missing(request.name()); !status.ok()) return status;
    return job;
  };
  server->query_stats =
      [=](const v1::QueryStatsRequest& request) -> absl::StatusOr<v1::QueryStatsResponse> {
    if (absl::Status status = missing(request.name()); !status.ok()) return status;
    v1::QueryStatsResponse response;
    const auto points = static_cast<size_t>(request.has_points() ? request.points() : 200);
    const size_t width = std::max<size_t>((steps.size() + points - 1) / points, 1);
    for (size_t i = 0; i < steps.size(); ++i) {
      if (i % width == 0) response.add_buckets();
      cli::AddStep(steps[i], response.mutable_buckets(response.buckets_size() - 1));
      if (steps[i].has_evaluation()) *response.add_evaluations() = steps[i].evaluation();
    }
    response.set_newest_step(static_cast<int64_t>(steps.size()) - 1);
    return response;
  };
  server->stream_stats = [=](const v1::StreamStatsRequest& request, const auto& write) {
    if (absl::Status status = missing(request.name()); !status.ok()) return status;
    for (const v1::StepStats& step : steps) {
      if (step.step() < request.from_step()) continue;
      v1::StreamStatsResponse response;
      *response.add_steps() = step;
      if (!write(response)) return absl::CancelledError("nobody reads");
    }
    v1::StreamStatsResponse last;
    *last.mutable_final_job() = job;
    write(last);
    return absl::OkStatus();
  };
  server->list_alerts =
      [=](const v1::ListAlertsRequest&) -> absl::StatusOr<v1::ListAlertsResponse> {
    v1::ListAlertsResponse response;
    for (const v1::Alert& alert : alerts) *response.add_alerts() = alert;
    return response;
  };
}

}  // namespace gradwatch
