#ifndef GRADWATCH_TESTS_UNIT_CLIENT_FAKE_SERVER_H_
#define GRADWATCH_TESTS_UNIT_CLIENT_FAKE_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradwatch/v1/alert_service.pb.h"
#include "gradwatch/v1/dataset_service.pb.h"
#include "gradwatch/v1/job_service.pb.h"
#include "gradwatch/v1/model_service.pb.h"
#include "gradwatch/v1/stats_service.pb.h"

namespace gradwatch {

// Answers one request; an empty one makes the method UNIMPLEMENTED.
template <typename Request, typename Response>
using Answer = std::function<absl::StatusOr<Response>(const Request&)>;

// Writes a stream: `write` is false once nobody reads any more.
template <typename Request, typename Response>
using Answers =
    std::function<absl::Status(const Request&, const std::function<bool(const Response&)>& write)>;

// A gradwatch server whose methods a test writes. Set the functions before Start; they are called
// from several threads.
class FakeServer {
 public:
  FakeServer();
  ~FakeServer();

  // Listens on a free loopback port, or again on the one that it had.
  void Start();
  // Ends every call.
  void Stop();
  // HOST:PORT.
  const std::string& address() const { return address_; }

  Answer<v1::CreateJobRequest, v1::Job> create_job;
  Answer<v1::GetJobRequest, v1::Job> get_job;
  Answer<v1::ListJobsRequest, v1::ListJobsResponse> list_jobs;
  Answer<v1::UpdateJobRequest, v1::UpdateJobResponse> update_job;
  Answer<v1::PauseJobRequest, v1::JobActionResponse> pause_job;
  Answer<v1::CancelJobRequest, v1::JobActionResponse> cancel_job;
  Answer<v1::AdvanceJobRequest, v1::JobActionResponse> advance_job;
  Answer<v1::ListInterventionsRequest, v1::ListInterventionsResponse> list_interventions;
  Answer<v1::CheckGradientsRequest, v1::CheckGradientsResponse> check_gradients;
  Answer<v1::GetBatchRequest, v1::TrainingBatch> get_batch;
  Answers<v1::WatchJobRequest, v1::WatchJobResponse> watch_job;
  Answer<v1::QueryStatsRequest, v1::QueryStatsResponse> query_stats;
  Answer<v1::GetClipAdviceRequest, v1::ClipAdvice> get_clip_advice;
  Answers<v1::StreamStatsRequest, v1::StreamStatsResponse> stream_stats;
  Answer<v1::ListAlertsRequest, v1::ListAlertsResponse> list_alerts;
  Answer<v1::ListRulesRequest, v1::ListRulesResponse> list_rules;
  Answer<v1::AcknowledgeAlertRequest, v1::Alert> acknowledge_alert;
  Answer<v1::SilenceRuleRequest, v1::Silence> silence_rule;
  Answer<v1::ListSilencesRequest, v1::ListSilencesResponse> list_silences;
  Answer<v1::DeleteSilenceRequest, google::protobuf::Empty> delete_silence;
  Answer<v1::EvaluateRulesRequest, v1::EvaluateRulesResponse> evaluate_rules;
  Answers<v1::WatchAlertsRequest, v1::WatchAlertsResponse> watch_alerts;
  Answer<v1::ListDatasetsRequest, v1::ListDatasetsResponse> list_datasets;
  // All messages of one upload.
  std::function<absl::StatusOr<v1::Dataset>(const std::vector<v1::UploadDatasetRequest>&)> upload;
  Answer<v1::GenerateRequest, v1::GenerateResponse> generate;
  Answers<v1::DownloadModelRequest, v1::DownloadModelResponse> download_model;

 private:
  struct Services;
  std::unique_ptr<Services> services_;
  std::string address_;
};

// Plays one job with everything that `watch`, `export` and `compare` ask about it: its steps are
// 0, 1, … of `steps`, its stream ends with the job.
void Serve(const v1::Job& job, const std::vector<v1::StepStats>& steps,
           const std::vector<v1::Alert>& alerts, FakeServer* server);

}  // namespace gradwatch

#endif  // GRADWATCH_TESTS_UNIT_CLIENT_FAKE_SERVER_H_
