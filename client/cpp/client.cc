#include "client/cpp/client.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/sha256.h"
#include "google/protobuf/empty.pb.h"
#include "gradwatch/v1/alert_service.grpc.pb.h"
#include "gradwatch/v1/dataset_service.grpc.pb.h"
#include "gradwatch/v1/job_service.grpc.pb.h"
#include "gradwatch/v1/model_service.grpc.pb.h"
#include "gradwatch/v1/stats_service.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "proto/support/grpc_status.h"

namespace gradwatch::client {
namespace {

using google::protobuf::Empty;

constexpr int kChunkBytes = 256 << 10;
// Records at the fullest level of the longest sequences are large; the server bounds its messages.
constexpr int kReceiveBytesMax = 16 << 20;
constexpr absl::Duration kPauseMin = absl::Milliseconds(100);
constexpr absl::Duration kPauseMax = absl::Seconds(5);

// Only what may be repeated without harm: reads, and CreateJob, which always has a request_id.
constexpr char kServiceConfig[] = R"({"methodConfig": [{
  "name": [
    {"service": "gradwatch.v1.JobService", "method": "CreateJob"},
    {"service": "gradwatch.v1.JobService", "method": "GetJob"},
    {"service": "gradwatch.v1.JobService", "method": "ListJobs"},
    {"service": "gradwatch.v1.JobService", "method": "GetBatch"},
    {"service": "gradwatch.v1.StatsService", "method": "QueryStats"},
    {"service": "gradwatch.v1.StatsService", "method": "GetClipAdvice"},
    {"service": "gradwatch.v1.AlertService", "method": "ListAlerts"},
    {"service": "gradwatch.v1.AlertService", "method": "ListRules"},
    {"service": "gradwatch.v1.AlertService", "method": "ListSilences"},
    {"service": "gradwatch.v1.AlertService", "method": "EvaluateRules"},
    {"service": "gradwatch.v1.DatasetService", "method": "GetDataset"},
    {"service": "gradwatch.v1.DatasetService", "method": "ListDatasets"}],
  "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s",
                  "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]})";

// A proxy from the environment is for servers elsewhere.
bool IsLoopback(absl::string_view server) {
  return absl::StartsWith(server, "127.") || absl::StartsWith(server, "localhost:") ||
         absl::StartsWith(server, "[::1]") || absl::StartsWith(server, "unix:");
}

grpc::ChannelArguments CommonArguments(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetMaxReceiveMessageSize(kReceiveBytesMax);
  arguments.SetUserAgentPrefix("gradwatch-cpp");
  if (IsLoopback(server)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

std::shared_ptr<grpc::Channel> CallChannel(const std::string& server,
                                           std::shared_ptr<grpc::ChannelCredentials> credentials) {
  grpc::ChannelArguments arguments = CommonArguments(server);
  arguments.SetServiceConfigJSON(kServiceConfig);
  return grpc::CreateCustomChannel(server, credentials, arguments);
}

// A small window: a reader that stops is noticed by the server after some tens of messages
// instead of thousands, and what it then reads is fresh.
std::shared_ptr<grpc::Channel> WatchChannel(const std::string& server,
                                            std::shared_ptr<grpc::ChannelCredentials> credentials) {
  grpc::ChannelArguments arguments = CommonArguments(server);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16'384);
  return grpc::CreateCustomChannel(server, credentials, arguments);
}

absl::Status ReadPem(const std::string& path, std::string* pem) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("cannot read the certificate or key file ", path));
  }
  *pem = content.str();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(
    const ClientOptions& options) {
  if (!options.use_tls) return grpc::InsecureChannelCredentials();
  if (options.tls.cert_file.empty() != options.tls.key_file.empty()) {
    return absl::InvalidArgumentError(
        "a client certificate needs its key and a key its certificate: give both or none");
  }
  grpc::SslCredentialsOptions ssl;
  for (const auto& [path, pem] : {std::pair(&options.tls.ca_file, &ssl.pem_root_certs),
                                  std::pair(&options.tls.cert_file, &ssl.pem_cert_chain),
                                  std::pair(&options.tls.key_file, &ssl.pem_private_key)}) {
    if (absl::Status status = ReadPem(*path, pem); !status.ok()) return status;
  }
  return grpc::SslCredentials(ssl);
}

std::string RandomRequestId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) absl::StrAppend(&id, absl::Hex(random(), absl::kZeroPad8));
  return id;
}

// One call: its context, and its registration for cancellation while it lives.
class Call {
 public:
  explicit Call(Cancellation* cancellation) : cancellation_(cancellation) {
    if (cancellation_ != nullptr) id_ = cancellation_->Add([this] { context_.TryCancel(); });
  }
  ~Call() {
    if (cancellation_ != nullptr) cancellation_->Remove(id_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  Cancellation* const cancellation_;
  int64_t id_ = 0;
};

template <typename Request, typename Message>
class GrpcStreamReader : public StreamReader<Message> {
 public:
  using Open = std::function<std::unique_ptr<grpc::ClientReader<Message>>(grpc::ClientContext*,
                                                                          const Request&)>;
  // Changes the request so that it asks for what comes after the message.
  using Advance = std::function<void(const Message&, Request*)>;

  GrpcStreamReader(Request request, StreamOptions options,
                   std::shared_ptr<Cancellation> cancellation, Open open, Advance advance)
      : options_(std::move(options)),
        cancellation_(std::move(cancellation)),
        open_(std::move(open)),
        advance_(std::move(advance)),
        request_(std::move(request)) {}

  ~GrpcStreamReader() override {
    if (reader_ == nullptr) return;
    call_->context()->TryCancel();
    Message ignored;
    while (reader_->Read(&ignored)) {
    }
    reader_->Finish();
  }

  bool Next(Message* message) override {
    while (!ended_) {
      if (reader_ == nullptr) OpenStream();
      if (reader_->Read(message)) {
        pause_ = kPauseMin;
        advance_(*message, &request_);
        return true;
      }
      status_ = FromGrpcStatus(reader_->Finish());
      reader_.reset();
      call_.reset();
      ended_ = !options_.reconnect || !absl::IsUnavailable(status_) || !Pause();
    }
    return false;
  }

  absl::Status Finish() override { return status_; }

 private:
  void OpenStream() {
    call_.emplace(cancellation_.get());
    if (options_.deadline != absl::InfiniteFuture()) {
      call_->context()->set_deadline(absl::ToChronoTime(options_.deadline));
    }
    reader_ = open_(call_->context(), request_);
  }

  // Waits before the next attempt; false when there is none.
  bool Pause() {
    if (options_.on_reconnect) options_.on_reconnect(status_);
    const absl::Duration left = options_.deadline - absl::Now();
    if (left <= pause_) {
      status_ = absl::DeadlineExceededError("the time is over and the server has not come back");
      return false;
    }
    const bool cancelled =
        cancellation_ != nullptr ? cancellation_->WaitFor(pause_) : (absl::SleepFor(pause_), false);
    if (cancelled) status_ = absl::CancelledError("interrupted");
    pause_ = std::min(2 * pause_, kPauseMax);
    return !cancelled;
  }

  const StreamOptions options_;
  const std::shared_ptr<Cancellation> cancellation_;
  const Open open_;
  const Advance advance_;
  Request request_;
  // The context outlives the reader.
  std::optional<Call> call_;
  std::unique_ptr<grpc::ClientReader<Message>> reader_;
  absl::Duration pause_ = kPauseMin;
  absl::Status status_;
  bool ended_ = false;
};

void ContinueAfter(const v1::StreamStatsResponse& message, v1::StreamStatsRequest* request) {
  int64_t last = -1;
  if (message.has_folded() && message.folded().count() > 0) last = message.folded().last_step();
  if (message.steps_size() > 0) last = std::max(last, message.steps().rbegin()->step());
  if (last >= 0) request->set_from_step(last + 1);
}

class GrpcClient : public Client {
 public:
  GrpcClient(const ClientOptions& options, std::shared_ptr<grpc::Channel> calls,
             std::shared_ptr<grpc::Channel> watches)
      : options_(options),
        calls_(std::move(calls)),
        jobs_(calls_),
        stats_(calls_),
        alerts_(calls_),
        datasets_(calls_),
        models_(calls_),
        watch_jobs_(watches),
        watch_stats_(watches),
        watch_alerts_(watches) {}

  absl::StatusOr<v1::Job> CreateJob(const v1::CreateJobRequest& request) override {
    if (!request.request_id().empty()) return Unary(&jobs_, &Jobs::CreateJob, request);
    v1::CreateJobRequest with_id = request;
    with_id.set_request_id(RandomRequestId());
    return Unary(&jobs_, &Jobs::CreateJob, with_id);
  }
  absl::StatusOr<v1::Job> GetJob(const v1::GetJobRequest& request) override {
    return Unary(&jobs_, &Jobs::GetJob, request);
  }
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) override {
    return Unary(&jobs_, &Jobs::ListJobs, request);
  }
  absl::StatusOr<v1::UpdateJobResponse> UpdateJob(const v1::UpdateJobRequest& request) override {
    return Unary(&jobs_, &Jobs::UpdateJob, request);
  }
  absl::Status DeleteJob(const v1::DeleteJobRequest& request) override {
    return Unary(&jobs_, &Jobs::DeleteJob, request).status();
  }
  absl::StatusOr<v1::JobActionResponse> PauseJob(const v1::PauseJobRequest& request) override {
    return Unary(&jobs_, &Jobs::PauseJob, request);
  }
  absl::StatusOr<v1::JobActionResponse> ResumeJob(const v1::ResumeJobRequest& request) override {
    return Unary(&jobs_, &Jobs::ResumeJob, request);
  }
  absl::StatusOr<v1::JobActionResponse> CancelJob(const v1::CancelJobRequest& request) override {
    return Unary(&jobs_, &Jobs::CancelJob, request);
  }
  absl::StatusOr<v1::JobActionResponse> AdvanceJob(const v1::AdvanceJobRequest& request) override {
    return Unary(&jobs_, &Jobs::AdvanceJob, request);
  }
  absl::StatusOr<v1::ListInterventionsResponse> ListInterventions(
      const v1::ListInterventionsRequest& request) override {
    return Unary(&jobs_, &Jobs::ListInterventions, request);
  }
  absl::StatusOr<v1::TrainingBatch> GetBatch(const v1::GetBatchRequest& request) override {
    return Unary(&jobs_, &Jobs::GetBatch, request);
  }
  absl::StatusOr<v1::CheckGradientsResponse> CheckGradients(
      const v1::CheckGradientsRequest& request) override {
    return Unary(&jobs_, &Jobs::CheckGradients, request);
  }
  std::unique_ptr<JobReader> WatchJob(const v1::WatchJobRequest& request,
                                      const StreamOptions& options) override {
    return Stream<v1::WatchJobRequest, v1::WatchJobResponse>(
        request, options,
        [this](grpc::ClientContext* context, const v1::WatchJobRequest& wanted) {
          return watch_jobs_.WatchJob(context, wanted);
        },
        [](const v1::WatchJobResponse&, v1::WatchJobRequest*) {});
  }

  absl::StatusOr<v1::QueryStatsResponse> QueryStats(const v1::QueryStatsRequest& request) override {
    return Unary(&stats_, &Stats::QueryStats, request);
  }
  absl::StatusOr<v1::ClipAdvice> GetClipAdvice(const v1::GetClipAdviceRequest& request) override {
    return Unary(&stats_, &Stats::GetClipAdvice, request);
  }
  std::unique_ptr<StatsReader> StreamStats(const v1::StreamStatsRequest& request,
                                           const StreamOptions& options) override {
    // A reader of recorded history wants throughput; one that follows a job wants fresh steps.
    Stats* const stub = request.history_only() ? &stats_ : &watch_stats_;
    return Stream<v1::StreamStatsRequest, v1::StreamStatsResponse>(
        request, options,
        [stub](grpc::ClientContext* context, const v1::StreamStatsRequest& wanted) {
          return stub->StreamStats(context, wanted);
        },
        &ContinueAfter);
  }

  absl::StatusOr<v1::ListAlertsResponse> ListAlerts(const v1::ListAlertsRequest& request) override {
    return Unary(&alerts_, &Alerts::ListAlerts, request);
  }
  absl::StatusOr<v1::ListRulesResponse> ListRules(const v1::ListRulesRequest& request) override {
    return Unary(&alerts_, &Alerts::ListRules, request);
  }
  absl::StatusOr<v1::Alert> AcknowledgeAlert(const v1::AcknowledgeAlertRequest& request) override {
    return Unary(&alerts_, &Alerts::AcknowledgeAlert, request);
  }
  absl::StatusOr<v1::Silence> SilenceRule(const v1::SilenceRuleRequest& request) override {
    return Unary(&alerts_, &Alerts::SilenceRule, request);
  }
  absl::StatusOr<v1::ListSilencesResponse> ListSilences(
      const v1::ListSilencesRequest& request) override {
    return Unary(&alerts_, &Alerts::ListSilences, request);
  }
  absl::Status DeleteSilence(const v1::DeleteSilenceRequest& request) override {
    return Unary(&alerts_, &Alerts::DeleteSilence, request).status();
  }
  absl::StatusOr<v1::EvaluateRulesResponse> EvaluateRules(
      const v1::EvaluateRulesRequest& request) override {
    return Unary(&alerts_, &Alerts::EvaluateRules, request);
  }
  std::unique_ptr<AlertReader> WatchAlerts(const v1::WatchAlertsRequest& request,
                                           const StreamOptions& options) override {
    return Stream<v1::WatchAlertsRequest, v1::WatchAlertsResponse>(
        request, options,
        [this](grpc::ClientContext* context, const v1::WatchAlertsRequest& wanted) {
          return watch_alerts_.WatchAlerts(context, wanted);
        },
        [](const v1::WatchAlertsResponse&, v1::WatchAlertsRequest*) {});
  }

  absl::StatusOr<v1::Dataset> GetDataset(const v1::GetDatasetRequest& request) override {
    return Unary(&datasets_, &Datasets::GetDataset, request);
  }
  absl::StatusOr<v1::ListDatasetsResponse> ListDatasets(
      const v1::ListDatasetsRequest& request) override {
    return Unary(&datasets_, &Datasets::ListDatasets, request);
  }
  absl::Status DeleteDataset(const v1::DeleteDatasetRequest& request) override {
    return Unary(&datasets_, &Datasets::DeleteDataset, request).status();
  }
  absl::StatusOr<UploadResult> UploadFile(const Upload& upload, bool reuse) override;

  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request) override {
    return Unary(&models_, &Models::Generate, request);
  }
  std::unique_ptr<ModelReader> DownloadModel(const v1::DownloadModelRequest& request,
                                             const StreamOptions& options) override {
    StreamOptions once = options;
    once.reconnect = false;
    return Stream<v1::DownloadModelRequest, v1::DownloadModelResponse>(
        request, once,
        [this](grpc::ClientContext* context, const v1::DownloadModelRequest& wanted) {
          return models_.DownloadModel(context, wanted);
        },
        [](const v1::DownloadModelResponse&, v1::DownloadModelRequest*) {});
  }

  absl::Status CheckHealth(const std::string& service) override;

 private:
  using Jobs = v1::JobService::Stub;
  using Stats = v1::StatsService::Stub;
  using Alerts = v1::AlertService::Stub;
  using Datasets = v1::DatasetService::Stub;
  using Models = v1::ModelService::Stub;

  void SetDeadline(grpc::ClientContext* context) const {
    context->set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout));
  }

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(Stub* stub,
                                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                                 const Request& request) {
    Call call(options_.cancellation.get());
    SetDeadline(call.context());
    Response response;
    const grpc::Status status = (stub->*method)(call.context(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  template <typename Request, typename Message>
  std::unique_ptr<StreamReader<Message>> Stream(
      const Request& request, const StreamOptions& options,
      typename GrpcStreamReader<Request, Message>::Open open,
      typename GrpcStreamReader<Request, Message>::Advance advance) {
    return std::make_unique<GrpcStreamReader<Request, Message>>(
        request, options, options_.cancellation, std::move(open), std::move(advance));
  }

  absl::StatusOr<std::optional<v1::Dataset>> FindDataset(v1::Dataset::Kind kind,
                                                         const std::string& sha256);

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> calls_;
  Jobs jobs_;
  Stats stats_;
  Alerts alerts_;
  Datasets datasets_;
  Models models_;
  Jobs watch_jobs_;
  Stats watch_stats_;
  Alerts watch_alerts_;
};

absl::StatusOr<std::optional<v1::Dataset>> GrpcClient::FindDataset(v1::Dataset::Kind kind,
                                                                   const std::string& sha256) {
  v1::ListDatasetsRequest request;
  request.set_page_size(1000);
  do {
    const absl::StatusOr<v1::ListDatasetsResponse> page = ListDatasets(request);
    if (!page.ok()) return page.status();
    for (const v1::Dataset& dataset : page->datasets()) {
      if (dataset.kind() == kind && dataset.sha256() == sha256) return dataset;
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return std::nullopt;
}

absl::StatusOr<UploadResult> GrpcClient::UploadFile(const Upload& upload, bool reuse) {
  const absl::StatusOr<FileDigest> digest = DigestFile(upload.path);
  if (!digest.ok()) return digest.status();
  if (reuse) {
    absl::StatusOr<std::optional<v1::Dataset>> found = FindDataset(upload.kind, digest->sha256);
    if (!found.ok()) return found.status();
    if (found->has_value()) return UploadResult{**found, true};
  }
  std::ifstream file(upload.path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", upload.path));

  Call call(options_.cancellation.get());
  UploadResult result;
  const auto writer = datasets_.UploadDataset(call.context(), &result.dataset);
  v1::UploadDatasetRequest request;
  v1::UploadDatasetRequest::Header& header = *request.mutable_header();
  header.set_dataset_id(upload.dataset_id);
  header.set_kind(upload.kind);
  header.set_display_name(upload.display_name);
  header.set_sha256(digest->sha256);
  header.set_size_bytes(digest->size_bytes);
  std::string buffer;
  // A write that fails means that the server has answered already: Finish says what.
  while (writer->Write(request) && file) {
    buffer.resize(kChunkBytes);
    file.read(buffer.data(), kChunkBytes);
    buffer.resize(static_cast<size_t>(file.gcount()));
    if (buffer.empty()) break;
    request.set_chunk(buffer);
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  if (!status.ok()) return FromGrpcStatus(status);
  return result;
}

// The health service has two messages of one field each; as unknown fields of an empty message
// they need no generated code, of which a program may hold only one copy.
absl::Status GrpcClient::CheckHealth(const std::string& service) {
  Empty request;
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(1, service);
  Call call(options_.cancellation.get());
  SetDeadline(call.context());
  grpc::TemplatedGenericStub<Empty, Empty> stub(calls_);
  grpc::CompletionQueue queue;
  const auto pending =
      stub.PrepareUnaryCall(call.context(), "/grpc.health.v1.Health/Check", request, &queue);
  pending->StartCall();
  Empty response;
  grpc::Status status;
  pending->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (!status.ok()) return FromGrpcStatus(status);

  constexpr uint64_t kServing = 1;
  const auto& fields = response.GetReflection()->GetUnknownFields(response);
  for (int i = 0; i < fields.field_count(); ++i) {
    if (fields.field(i).number() == 1 &&
        fields.field(i).type() == google::protobuf::UnknownField::TYPE_VARINT &&
        fields.field(i).varint() == kServing) {
      return absl::OkStatus();
    }
  }
  return absl::UnavailableError("the server answers but is not serving");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  if (options.server.empty()) return absl::InvalidArgumentError("the server's address is empty");
  const auto credentials = Credentials(options);
  if (!credentials.ok()) return credentials.status();
  return std::make_unique<GrpcClient>(options, CallChannel(options.server, *credentials),
                                      WatchChannel(options.server, *credentials));
}

}  // namespace gradwatch::client
