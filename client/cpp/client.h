#ifndef GRADWATCH_CLIENT_CPP_CLIENT_H_
#define GRADWATCH_CLIENT_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cpp/cancellation.h"
#include "gradwatch/v1/alert_service.pb.h"
#include "gradwatch/v1/dataset_service.pb.h"
#include "gradwatch/v1/job_service.pb.h"
#include "gradwatch/v1/model_service.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

namespace gradwatch::client {

// How a client reaches its server.
struct TlsOptions {
  std::string ca_file;    // PEM; empty: the system's authorities.
  std::string cert_file;  // PEM chain, for mutual TLS; together with key_file.
  std::string key_file;   // PEM.
};

struct ClientOptions {
  std::string server = "127.0.0.1:7070";  // HOST:PORT, or any gRPC target.
  bool use_tls = false;
  TlsOptions tls;
  // For each call that is not a stream.
  absl::Duration timeout = absl::Seconds(10);
  // Ends all calls at once when it is cancelled; null: nobody does.
  std::shared_ptr<Cancellation> cancellation;
};

// What a stream does when the server goes away.
struct StreamOptions {
  // Open the stream again after UNAVAILABLE, from where it stood, with growing pauses (0.1 to 5 s).
  bool reconnect = false;
  // Ends the stream with DEADLINE_EXCEEDED. Default: never.
  absl::Time deadline = absl::InfiniteFuture();
  // Called before each attempt to open it again, with the error that made it necessary.
  std::function<void(const absl::Status&)> on_reconnect;
};

// The messages of one stream, pulled. Destroying it ends the stream.
// Threads: one at a time.
template <typename Message>
class StreamReader {
 public:
  virtual ~StreamReader() = default;

  // Waits for the next message; false when the stream has ended: see Finish.
  virtual bool Next(Message* message) = 0;

  // How the stream ended, once Next has returned false. OK: the server had no more to say.
  virtual absl::Status Finish() = 0;
};

using StatsReader = StreamReader<v1::StreamStatsResponse>;
using JobReader = StreamReader<v1::WatchJobResponse>;
using AlertReader = StreamReader<v1::WatchAlertsResponse>;
using ModelReader = StreamReader<v1::DownloadModelResponse>;

// What UploadFile sends.
struct Upload {
  std::string path;
  v1::Dataset::Kind kind = v1::Dataset::KIND_UNSPECIFIED;
  std::string dataset_id;    // Empty: made by the server.
  std::string display_name;  // Empty: none.
};

struct UploadResult {
  v1::Dataset dataset;
  bool reused = false;  // The server had the same bytes already; nothing was sent.
};

// A typed client of all gradwatch services.
//
// Errors: the server's code and message, with every google.rpc detail (proto/support/errors.h reads
// them); UNAVAILABLE when there is no server, DEADLINE_EXCEEDED after `timeout`, CANCELLED by
// `cancellation`. Calls that only read, and CreateJob, are tried up to three times while the server
// is UNAVAILABLE.
// Threads: calls may overlap. Streams must end before the client is destroyed.
class Client {
 public:
  // Opens no connection yet: the first call does. INVALID_ARGUMENT or NOT_FOUND for TLS files that
  // cannot be read.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options);

  virtual ~Client() = default;

  // Jobs. CreateJob fills in a random request_id where there is none, so that trying again is safe.
  virtual absl::StatusOr<v1::Job> CreateJob(const v1::CreateJobRequest& request) = 0;
  virtual absl::StatusOr<v1::Job> GetJob(const v1::GetJobRequest& request) = 0;
  virtual absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) = 0;
  virtual absl::StatusOr<v1::UpdateJobResponse> UpdateJob(const v1::UpdateJobRequest& request) = 0;
  virtual absl::Status DeleteJob(const v1::DeleteJobRequest& request) = 0;
  virtual absl::StatusOr<v1::JobActionResponse> PauseJob(const v1::PauseJobRequest& request) = 0;
  virtual absl::StatusOr<v1::JobActionResponse> ResumeJob(const v1::ResumeJobRequest& request) = 0;
  virtual absl::StatusOr<v1::JobActionResponse> CancelJob(const v1::CancelJobRequest& request) = 0;
  virtual absl::StatusOr<v1::JobActionResponse> AdvanceJob(
      const v1::AdvanceJobRequest& request) = 0;
  virtual absl::StatusOr<v1::ListInterventionsResponse> ListInterventions(
      const v1::ListInterventionsRequest& request) = 0;
  virtual absl::StatusOr<v1::TrainingBatch> GetBatch(const v1::GetBatchRequest& request) = 0;
  virtual absl::StatusOr<v1::CheckGradientsResponse> CheckGradients(
      const v1::CheckGradientsRequest& request) = 0;
  // Resumes with the job as it is then.
  virtual std::unique_ptr<JobReader> WatchJob(const v1::WatchJobRequest& request,
                                              const StreamOptions& options) = 0;

  // Statistics. The stream resumes with the step after the last one that was read.
  virtual absl::StatusOr<v1::QueryStatsResponse> QueryStats(
      const v1::QueryStatsRequest& request) = 0;
  virtual absl::StatusOr<v1::ClipAdvice> GetClipAdvice(const v1::GetClipAdviceRequest& request) = 0;
  virtual std::unique_ptr<StatsReader> StreamStats(const v1::StreamStatsRequest& request,
                                                   const StreamOptions& options) = 0;

  // Alerts. The stream resumes with the alerts that fire then.
  virtual absl::StatusOr<v1::ListAlertsResponse> ListAlerts(
      const v1::ListAlertsRequest& request) = 0;
  virtual absl::StatusOr<v1::ListRulesResponse> ListRules(const v1::ListRulesRequest& request) = 0;
  virtual absl::StatusOr<v1::Alert> AcknowledgeAlert(
      const v1::AcknowledgeAlertRequest& request) = 0;
  virtual absl::StatusOr<v1::Silence> SilenceRule(const v1::SilenceRuleRequest& request) = 0;
  virtual absl::StatusOr<v1::ListSilencesResponse> ListSilences(
      const v1::ListSilencesRequest& request) = 0;
  virtual absl::Status DeleteSilence(const v1::DeleteSilenceRequest& request) = 0;
  virtual absl::StatusOr<v1::EvaluateRulesResponse> EvaluateRules(
      const v1::EvaluateRulesRequest& request) = 0;
  virtual std::unique_ptr<AlertReader> WatchAlerts(const v1::WatchAlertsRequest& request,
                                                   const StreamOptions& options) = 0;

  // Data sets.
  virtual absl::StatusOr<v1::Dataset> GetDataset(const v1::GetDatasetRequest& request) = 0;
  virtual absl::StatusOr<v1::ListDatasetsResponse> ListDatasets(
      const v1::ListDatasetsRequest& request) = 0;
  virtual absl::Status DeleteDataset(const v1::DeleteDatasetRequest& request) = 0;
  // Sends a file with its SHA-256. With `reuse`, a data set of the same kind and checksum that is
  // there already is returned instead. NOT_FOUND and the like when the file cannot be read.
  virtual absl::StatusOr<UploadResult> UploadFile(const Upload& upload, bool reuse) = 0;

  // Models. `reconnect` is ignored: a download starts anew.
  virtual absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request) = 0;
  virtual std::unique_ptr<ModelReader> DownloadModel(const v1::DownloadModelRequest& request,
                                                     const StreamOptions& options) = 0;

  // grpc.health.v1: OK when the server (empty `service`: as a whole) is SERVING, UNAVAILABLE with
  // what it says otherwise, NOT_FOUND for a service that it does not know.
  virtual absl::Status CheckHealth(const std::string& service) = 0;
};

}  // namespace gradwatch::client

#endif  // GRADWATCH_CLIENT_CPP_CLIENT_H_
