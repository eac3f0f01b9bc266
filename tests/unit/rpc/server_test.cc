#include "server/rpc/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gradwatch/v1/alert_service.grpc.pb.h"
#include "gradwatch/v1/dataset_service.grpc.pb.h"
#include "gradwatch/v1/job_service.grpc.pb.h"
#include "gradwatch/v1/model_service.grpc.pb.h"
#include "gradwatch/v1/stats_service.grpc.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "proto/support/errors.h"
#include "proto/support/grpc_status.h"
#include "server/alerts/rule_catalogue.h"
#include "server/base/log.h"

namespace gradwatch::rpc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Runs in microseconds a step.
v1::Job SmallJob(int64_t steps) {
  v1::Job job;
  job.mutable_task()->mutable_adding()->set_time_steps(2);
  job.mutable_model()->set_hidden_units(1);
  job.mutable_training()->set_batch_size(1);
  job.mutable_training()->set_step_limit(steps);
  job.mutable_evaluation()->set_every_steps(0);
  return job;
}

constexpr int64_t kForEver = 1'000'000'000;

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override { InitLog(LogFormat::kText, LogLevel::kError); }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(absl::Seconds(5));
  }

  void Start(ServerOptions options = {}) {
    options.listen = "127.0.0.1:0";
    auto server = Server::Start(options, &jobs_, &datasets_, &metrics_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->SetReady(true);
    Connect({});
  }
  void Connect(const grpc::ChannelArguments& arguments) {
    channel_ = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    jobs_stub_ = v1::JobService::NewStub(channel_);
    stats_stub_ = v1::StatsService::NewStub(channel_);
    alerts_stub_ = v1::AlertService::NewStub(channel_);
    datasets_stub_ = v1::DatasetService::NewStub(channel_);
    models_stub_ = v1::ModelService::NewStub(channel_);
  }

  absl::StatusOr<v1::Job> Create(const v1::Job& job) {
    grpc::ClientContext context;
    v1::CreateJobRequest request;
    *request.mutable_job() = job;
    v1::Job created;
    const grpc::Status status = jobs_stub_->CreateJob(&context, request, &created);
    if (!status.ok()) return FromGrpcStatus(status);
    return created;
  }
  std::string MustCreate(const v1::Job& job) {
    const auto created = Create(job);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->name() : "";
  }

  // Watches a job until `until`, or to the end of the stream.
  absl::Status Watch(const std::string& name, const std::function<bool(const v1::Job&)>& until) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_name(name);
    auto reader = jobs_stub_->WatchJob(&context, request);
    v1::WatchJobResponse response;
    while (reader->Read(&response)) {
      if (response.has_job() && until(response.job())) {
        context.TryCancel();
        reader->Finish();
        return absl::OkStatus();
      }
    }
    return FromGrpcStatus(reader->Finish());
  }
  void AwaitEnd(const std::string& name) {
    EXPECT_TRUE(Watch(name, [](const v1::Job&) { return false; }).ok());
  }
  void AwaitState(const std::string& name, v1::Job::State state) {
    EXPECT_TRUE(Watch(name, [=](const v1::Job& job) { return job.state() == state; }).ok());
  }

  // The value of one series now; -1 when there is none.
  double Metric(const std::string& series) {
    std::istringstream text(metrics_.Render());
    for (std::string line; std::getline(text, line);) {
      if (line.rfind(series + " ", 0) == 0) return std::stod(line.substr(series.size()));
    }
    return -1;
  }
  // For what another thread of the server is about to do.
  template <typename Predicate>
  bool Eventually(Predicate predicate) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (!predicate()) {
      if (absl::Now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  RealClock clock_;
  jobs::DatasetStore datasets_{{}, &clock_};
  jobs::JobManager jobs_{{}, &datasets_, &clock_};
  metrics::Metrics metrics_{
      {}, alerts::RuleCatalogue(), [this] { return metrics::ReadJobs(jobs_); }, &clock_};
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> jobs_stub_;
  std::unique_ptr<v1::StatsService::Stub> stats_stub_;
  std::unique_ptr<v1::AlertService::Stub> alerts_stub_;
  std::unique_ptr<v1::DatasetService::Stub> datasets_stub_;
  std::unique_ptr<v1::ModelService::Stub> models_stub_;
};

TEST_F(ServerTest, ErrorsNameEveryBadField) {
  Start();
  v1::Job job = SmallJob(-5);
  job.mutable_model()->set_layers(99);

  const absl::Status status = Create(job).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : FieldViolationsOf(status)) {
    fields.push_back(violation.field);
  }
  EXPECT_THAT(fields, ::testing::UnorderedElementsAre("model.layers", "training.step_limit"));
  EXPECT_EQ(Metric("grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method="
                   "\"CreateJob\",grpc_service=\"gradwatch.v1.JobService\",grpc_type="
                   "\"unary\"}"),
            1);
}

TEST_F(ServerTest, GetsListsAndDeletesJobs) {
  Start();
  const std::string name = MustCreate(SmallJob(3));
  AwaitEnd(name);

  grpc::ClientContext get_context, list_context, delete_context, gone_context;
  v1::GetJobRequest get;
  get.set_name(name);
  v1::Job job;
  EXPECT_TRUE(jobs_stub_->GetJob(&get_context, get, &job).ok());
  v1::ListJobsResponse list;
  EXPECT_TRUE(jobs_stub_->ListJobs(&list_context, {}, &list).ok());
  v1::DeleteJobRequest forget;
  forget.set_name(name);
  google::protobuf::Empty empty;
  EXPECT_TRUE(jobs_stub_->DeleteJob(&delete_context, forget, &empty).ok());

  EXPECT_EQ(job.state(), v1::Job::STATE_SUCCEEDED);
  EXPECT_EQ(job.step(), 3);
  EXPECT_EQ(list.jobs_size(), 1);
  EXPECT_EQ(jobs_stub_->GetJob(&gone_context, get, &job).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, PausesUpdatesResumesAndCancels) {
  Start();
  const std::string name = MustCreate(SmallJob(kForEver));
  AwaitState(name, v1::Job::STATE_RUNNING);

  grpc::ClientContext pause_context, update_context, resume_context, cancel_context;
  v1::JobActionResponse paused, resumed, cancelled;
  v1::PauseJobRequest pause;
  pause.set_name(name);
  ASSERT_TRUE(jobs_stub_->PauseJob(&pause_context, pause, &paused).ok());
  v1::UpdateJobRequest update;
  update.mutable_job()->set_name(name);
  update.mutable_job()->mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(9);
  v1::UpdateJobResponse updated;
  ASSERT_TRUE(jobs_stub_->UpdateJob(&update_context, update, &updated).ok());
  v1::ResumeJobRequest resume;
  resume.set_name(name);
  ASSERT_TRUE(jobs_stub_->ResumeJob(&resume_context, resume, &resumed).ok());
  v1::CancelJobRequest cancel;
  cancel.set_name(name);
  ASSERT_TRUE(jobs_stub_->CancelJob(&cancel_context, cancel, &cancelled).ok());

  EXPECT_EQ(paused.job().state(), v1::Job::STATE_PAUSED);
  EXPECT_EQ(updated.job().clipping().policies(0).global_norm().max_norm(), 9);
  EXPECT_EQ(resumed.effective_step(), paused.effective_step());
  EXPECT_EQ(cancelled.job().state(), v1::Job::STATE_CANCELLED);
}

TEST_F(ServerTest, AdvancesAPausedJobAndListsWhatChangedIt) {
  Start();
  const std::string name = MustCreate(SmallJob(kForEver));
  AwaitState(name, v1::Job::STATE_RUNNING);
  v1::JobActionResponse paused, advanced;
  {
    grpc::ClientContext context;
    v1::PauseJobRequest request;
    request.set_name(name);
    ASSERT_TRUE(jobs_stub_->PauseJob(&context, request, &paused).ok());
  }
  {
    grpc::ClientContext context;
    v1::UpdateJobRequest request;
    request.mutable_job()->set_name(name);
    request.mutable_job()->set_statistics_level(v1::STATISTICS_LEVEL_FULL);
    request.set_author("ann");
    v1::UpdateJobResponse response;
    ASSERT_TRUE(jobs_stub_->UpdateJob(&context, request, &response).ok());
  }
  {
    grpc::ClientContext context;
    v1::AdvanceJobRequest request;
    request.set_name(name);
    request.set_steps(3);
    ASSERT_TRUE(jobs_stub_->AdvanceJob(&context, request, &advanced).ok());
  }
  EXPECT_EQ(advanced.job().state(), v1::Job::STATE_PAUSED);
  EXPECT_EQ(advanced.job().step(), paused.effective_step() + 3);

  grpc::ClientContext context;
  v1::ListInterventionsRequest request;
  request.set_parent(name);
  v1::ListInterventionsResponse list;
  ASSERT_TRUE(jobs_stub_->ListInterventions(&context, request, &list).ok());
  ASSERT_EQ(list.interventions_size(), 1);
  EXPECT_EQ(list.interventions(0).author(), "ann");
  EXPECT_EQ(list.interventions(0).step(), paused.effective_step());
}

TEST_F(ServerTest, WatchShowsChangesAndEndsWithTheJob) {
  Start();
  const std::string name = MustCreate(SmallJob(2000));
  std::vector<v1::Job::State> states;

  const absl::Status end = Watch(name, [&](const v1::Job& job) {
    if (states.empty() || states.back() != job.state()) states.push_back(job.state());
    return false;
  });

  EXPECT_TRUE(end.ok()) << end;
  EXPECT_EQ(states.back(), v1::Job::STATE_SUCCEEDED);
}

TEST_F(ServerTest, StreamReplaysHistoryAndGoesLiveWithoutGap) {
  Start();
  v1::Job job = SmallJob(3000);
  job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  const std::string name = MustCreate(job);
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_from_step(7);
  request.set_lossless(true);

  auto reader = stats_stub_->StreamStats(&context, request);
  v1::StreamStatsResponse response;
  int64_t next = 7;
  bool details = true;
  while (reader->Read(&response) && !response.has_final_job()) {
    for (const v1::StepStats& stats : response.steps()) {
      ASSERT_EQ(stats.step(), next++);
      details = details && stats.layers_size() == 1 && stats.tensors_size() > 0;
    }
  }
  for (const v1::StepStats& stats : response.steps()) ASSERT_EQ(stats.step(), next++);

  EXPECT_TRUE(details);
  EXPECT_EQ(next, 3000);
  EXPECT_EQ(response.final_job().state(), v1::Job::STATE_SUCCEEDED);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(Metric("gradwatch_stream_events_sent_total"), 2993);
}

TEST_F(ServerTest, ScalarsOnlyLeavesDetailsOut) {
  Start();
  v1::Job job = SmallJob(5);
  job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  const std::string name = MustCreate(job);
  AwaitEnd(name);
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_from_step(0);
  request.set_scalars_only(true);

  auto reader = stats_stub_->StreamStats(&context, request);
  v1::StreamStatsResponse all, part;
  while (reader->Read(&part)) all.MergeFrom(part);

  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_EQ(all.steps_size(), 5);
  for (const v1::StepStats& stats : all.steps()) {
    EXPECT_GT(stats.norm_before(), 0);
    EXPECT_EQ(stats.tensors_size() + stats.layers_size(), 0);
  }
}

TEST_F(ServerTest, LongHistoryComesInBoundedMessages) {
  Start();
  v1::Job job = SmallJob(3000);
  job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  job.mutable_model()->set_layers(2);
  const std::string name = MustCreate(job);
  AwaitEnd(name);
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_from_step(0);

  auto reader = stats_stub_->StreamStats(&context, request);
  v1::StreamStatsResponse part;
  size_t largest = 0, total = 0;
  int64_t steps = 0;
  while (reader->Read(&part)) {
    largest = std::max(largest, part.ByteSizeLong());
    total += part.ByteSizeLong();
    steps += part.steps_size();
  }

  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(steps, 3000);
  EXPECT_GT(total, size_t{1} << 20);
  EXPECT_LT(largest, size_t{300} << 10);
}

TEST_F(ServerTest, SlowReaderLosesStepsIsToldAndCostsTrainingNothing) {
  Start();
  grpc::ChannelArguments small_window;
  small_window.SetInt("grpc.http2.bdp_probe", 0);
  small_window.SetInt("grpc.http2.lookahead_bytes", 16384);
  Connect(small_window);
  const int64_t steps = 20'000;
  v1::Job job = SmallJob(steps);
  const std::string name = MustCreate(job);
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_from_step(0);
  auto reader = stats_stub_->StreamStats(&context, request);
  v1::StreamStatsResponse response;
  ASSERT_TRUE(reader->Read(&response));
  int64_t seen = response.steps_size(), dropped = response.dropped_before();

  // Does not read while the job trains to its end.
  AwaitEnd(name);
  v1::Job final_job;
  while (reader->Read(&response)) {
    dropped += response.dropped_before();
    for (const v1::StepStats& stats : response.steps()) {
      ASSERT_EQ(stats.step(), seen + dropped);
      ++seen;
    }
    if (response.has_final_job()) final_job = response.final_job();
  }

  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(seen + dropped, steps);
  EXPECT_EQ(final_job.step(), steps);
  EXPECT_EQ(Metric("gradwatch_stream_events_dropped_total{reason=\"slow_reader\"}"),
            static_cast<double>(dropped));
}

TEST_F(ServerTest, CancelFreesTheReader) {
  Start();
  const std::string name = MustCreate(SmallJob(kForEver));
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  auto reader = stats_stub_->StreamStats(&context, request);
  v1::StreamStatsResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(Metric("gradwatch_stream_subscribers"), 1);

  context.TryCancel();

  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Metric("gradwatch_stream_subscribers") == 0; }));
}

TEST_F(ServerTest, CancelFreesAReaderThatStalled) {
  Start();
  grpc::ChannelArguments small_window;
  small_window.SetInt("grpc.http2.bdp_probe", 0);
  small_window.SetInt("grpc.http2.lookahead_bytes", 16384);
  Connect(small_window);
  const std::string name = MustCreate(SmallJob(20'000));
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_from_step(0);
  auto reader = stats_stub_->StreamStats(&context, request);
  AwaitEnd(name);

  context.TryCancel();

  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Metric("gradwatch_stream_subscribers") == 0; }));
}

TEST_F(ServerTest, ReaderThatTakesNothingForTooLongIsCutOff) {
  ServerOptions options;
  options.streams.heartbeat = absl::Milliseconds(4);
  options.streams.write_stall_max = absl::ZeroDuration();
  Start(options);
  grpc::ChannelArguments small_window;
  small_window.SetInt("grpc.http2.bdp_probe", 0);
  small_window.SetInt("grpc.http2.lookahead_bytes", 16384);
  Connect(small_window);
  const std::string name = MustCreate(SmallJob(20'000));
  // Not by a stream, which could be cut off as well.
  ASSERT_TRUE(Eventually([&] { return jobs_.Get(name)->state() == v1::Job::STATE_SUCCEEDED; }));
  grpc::ClientContext context;
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_from_step(0);

  auto reader = stats_stub_->StreamStats(&context, request);

  EXPECT_TRUE(Eventually([&] {
    return Metric(
               "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"StreamStats\","
               "grpc_service=\"gradwatch.v1.StatsService\",grpc_type=\"server_stream\"}") == 1;
  }));
  v1::StreamStatsResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerTest, QuietStreamsHaveHeartbeats) {
  ServerOptions options;
  options.streams.heartbeat = absl::Milliseconds(4);
  Start(options);
  const std::string name = MustCreate(SmallJob(kForEver));
  AwaitState(name, v1::Job::STATE_RUNNING);
  grpc::ClientContext pause_context, stats_context, job_context, alert_context;
  v1::PauseJobRequest pause;
  pause.set_name(name);
  v1::JobActionResponse paused;
  ASSERT_TRUE(jobs_stub_->PauseJob(&pause_context, pause, &paused).ok());

  v1::StreamStatsRequest stats_request;
  stats_request.set_name(name);
  auto stats = stats_stub_->StreamStats(&stats_context, stats_request);
  v1::StreamStatsResponse stats_response;
  ASSERT_TRUE(stats->Read(&stats_response));
  v1::WatchJobRequest job_request;
  job_request.set_name(name);
  auto job = jobs_stub_->WatchJob(&job_context, job_request);
  v1::WatchJobResponse first, later;
  ASSERT_TRUE(job->Read(&first));
  bool job_heartbeat = false;
  while (!job_heartbeat && job->Read(&later)) job_heartbeat = !later.has_job();
  v1::WatchAlertsRequest alert_request;
  alert_request.set_parent("jobs/-");
  auto alerts = alerts_stub_->WatchAlerts(&alert_context, alert_request);
  v1::WatchAlertsResponse alert;
  bool alert_heartbeat = false;
  while (!alert_heartbeat && alerts->Read(&alert)) alert_heartbeat = !alert.has_alert();

  EXPECT_TRUE(stats_response.heartbeat());
  EXPECT_EQ(stats_response.steps_size(), 0);
  EXPECT_TRUE(first.has_job());
  EXPECT_TRUE(job_heartbeat);
  EXPECT_TRUE(alert_heartbeat);
  for (auto* context : {&stats_context, &job_context, &alert_context}) context->TryCancel();
  stats->Finish();
  job->Finish();
  alerts->Finish();
}

TEST_F(ServerTest, AlertsAreStreamedUntilTheJobEndsAndListed) {
  Start();
  v1::Job job = SmallJob(1000);
  job.mutable_optimizer()->mutable_sgd();
  job.mutable_optimizer()->set_learning_rate(1000);
  job.mutable_clipping();
  job.mutable_model()->set_cell(v1::Model::CELL_RNN_RELU);
  job.mutable_model()->set_hidden_units(16);
  const std::string name = MustCreate(job);
  grpc::ClientContext context, list_context;
  v1::WatchAlertsRequest request;
  request.set_parent(name);

  auto reader = alerts_stub_->WatchAlerts(&context, request);
  v1::WatchAlertsResponse response;
  std::vector<v1::RuleId> rules;
  while (reader->Read(&response)) {
    if (response.has_alert()) rules.push_back(response.alert().rule());
  }
  const grpc::Status end = reader->Finish();
  v1::ListAlertsRequest list_request;
  list_request.set_parent(name);
  v1::ListAlertsResponse list;
  ASSERT_TRUE(alerts_stub_->ListAlerts(&list_context, list_request, &list).ok());

  EXPECT_TRUE(end.ok()) << end.error_message();
  EXPECT_THAT(rules, ::testing::Contains(v1::RULE_ID_NON_FINITE));
  EXPECT_GT(list.alerts_size(), 0);
}

TEST_F(ServerTest, AlertsAreNotedSilencedAndReplayed) {
  Start();
  v1::Job job = SmallJob(20);
  job.set_seed(1);  // A single row whose first loss is next to nothing would raise an alert.
  const std::string name = MustCreate(job);
  AwaitEnd(name);
  v1::AcknowledgeAlertRequest note;
  note.set_name(name + "/alerts/1");
  note.set_author("ann");
  v1::SilenceRuleRequest silence;
  silence.set_job(name);
  silence.set_rule_name("EXPLODING_ABS");
  silence.set_author("ann");
  silence.mutable_duration()->set_seconds(60);
  v1::DeleteSilenceRequest heard;
  heard.set_job(name);
  heard.set_rule_name("EXPLODING_ABS");
  v1::ListSilencesRequest list;
  list.set_parent("jobs/-");
  v1::EvaluateRulesRequest replay;
  replay.set_name(name);
  v1::CustomRule& rule = *replay.add_custom_rules();
  rule.set_name("ANY");
  rule.set_expression("loss > 0");
  rule.set_warmup_steps(3);
  grpc::ClientContext contexts[5];
  v1::Alert alert;
  v1::Silence silenced;
  v1::ListSilencesResponse silences;
  google::protobuf::Empty nothing;
  v1::EvaluateRulesResponse replayed;

  EXPECT_EQ(alerts_stub_->AcknowledgeAlert(&contexts[0], note, &alert).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(alerts_stub_->SilenceRule(&contexts[1], silence, &silenced).ok());
  EXPECT_TRUE(alerts_stub_->ListSilences(&contexts[2], list, &silences).ok());
  EXPECT_TRUE(alerts_stub_->DeleteSilence(&contexts[3], heard, &nothing).ok());
  EXPECT_TRUE(alerts_stub_->EvaluateRules(&contexts[4], replay, &replayed).ok());

  EXPECT_EQ(silenced.rule_name(), "EXPLODING_ABS");
  EXPECT_EQ(silences.silences_size(), 1);
  EXPECT_EQ(replayed.steps(), 20);
  ASSERT_EQ(replayed.alerts_size(), 1);
  EXPECT_EQ(replayed.alerts(0).firing_step(), 3);
}

TEST_F(ServerTest, ListsTheRules) {
  Start();
  grpc::ClientContext context;
  v1::ListRulesResponse rules;

  ASSERT_TRUE(alerts_stub_->ListRules(&context, {}, &rules).ok());

  EXPECT_EQ(rules.rules_size(), static_cast<int>(alerts::RuleCatalogue().size()));
}

TEST_F(ServerTest, ListsTheRulesOfAJobThatThereIs) {
  Start();
  grpc::ClientContext context;
  v1::ListRulesRequest request;
  request.set_job("jobs/nobody");
  v1::ListRulesResponse rules;

  const grpc::Status status = alerts_stub_->ListRules(&context, request, &rules);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "there is no 'jobs/nobody'");
}

class UploadTest : public ServerTest {
 protected:
  static constexpr char kLine[] = "hello gradient, hello world\n";
  static constexpr char kSha256[] =
      "d744e8135bded2eaeed0536031d9cfe3fe4737b067c09ab338b2ce60ea6483fa";

  v1::UploadDatasetRequest::Header Header() {
    v1::UploadDatasetRequest::Header header;
    header.set_dataset_id("greetings");
    header.set_kind(v1::Dataset::KIND_TEXT);
    header.set_sha256(kSha256);
    header.set_size_bytes(8 * 28);
    return header;
  }
  absl::StatusOr<v1::Dataset> Upload(const v1::UploadDatasetRequest::Header& header, int lines) {
    grpc::ClientContext context;
    v1::Dataset dataset;
    auto writer = datasets_stub_->UploadDataset(&context, &dataset);
    v1::UploadDatasetRequest part;
    *part.mutable_header() = header;
    writer->Write(part);
    part.set_chunk(kLine);
    for (int i = 0; i < lines; ++i) writer->Write(part);
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return dataset;
  }
};

TEST_F(UploadTest, StoresAndHandsOut) {
  Start();

  const auto dataset = Upload(Header(), 8);

  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->name(), "datasets/greetings");
  EXPECT_EQ(dataset->characters(), 8 * 28);
  grpc::ClientContext get_context, list_context, delete_context;
  v1::GetDatasetRequest get;
  get.set_name(dataset->name());
  v1::Dataset got;
  EXPECT_TRUE(datasets_stub_->GetDataset(&get_context, get, &got).ok());
  v1::ListDatasetsResponse list;
  EXPECT_TRUE(datasets_stub_->ListDatasets(&list_context, {}, &list).ok());
  EXPECT_EQ(list.datasets_size(), 1);
  v1::DeleteDatasetRequest forget;
  forget.set_name(dataset->name());
  google::protobuf::Empty empty;
  EXPECT_TRUE(datasets_stub_->DeleteDataset(&delete_context, forget, &empty).ok());
}

TEST_F(UploadTest, WrongChecksumKeepsNothing) {
  Start();
  auto header = Header();
  header.set_sha256(std::string(64, '0'));

  const auto dataset = Upload(header, 8);

  EXPECT_EQ(dataset.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(datasets_.List({})->datasets_size(), 0);
}

TEST_F(UploadTest, BrokenOffUploadKeepsNothing) {
  Start();
  {
    grpc::ClientContext context;
    v1::Dataset dataset;
    auto writer = datasets_stub_->UploadDataset(&context, &dataset);
    v1::UploadDatasetRequest part;
    *part.mutable_header() = Header();
    writer->Write(part);
    part.set_chunk(kLine);
    writer->Write(part);
    EXPECT_TRUE(Eventually([&] { return Metric("gradwatch_stream_subscribers") == 1; }));
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }

  EXPECT_TRUE(Eventually([&] { return Metric("gradwatch_stream_subscribers") == 0; }));
  EXPECT_EQ(datasets_.List({})->datasets_size(), 0);
  EXPECT_TRUE(Upload(Header(), 8).ok());
}

TEST_F(UploadTest, SilentUploadEnds) {
  ServerOptions options;
  options.streams.upload_idle_max = absl::Milliseconds(1);
  options.streams.heartbeat = absl::Milliseconds(4);
  Start(options);
  grpc::ClientContext context;
  v1::Dataset dataset;
  auto writer = datasets_stub_->UploadDataset(&context, &dataset);

  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(UploadTest, RefusesPartsOutOfOrder) {
  Start();
  for (const bool header_first : {false, true}) {
    grpc::ClientContext context;
    v1::Dataset dataset;
    auto writer = datasets_stub_->UploadDataset(&context, &dataset);
    v1::UploadDatasetRequest header, chunk;
    *header.mutable_header() = Header();
    chunk.set_chunk("x");
    writer->Write(header_first ? header : chunk);
    writer->Write(header);
    writer->WritesDone();
    const absl::Status status = FromGrpcStatus(writer->Finish());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    ASSERT_EQ(FieldViolationsOf(status).size(), 1u);
    EXPECT_EQ(FieldViolationsOf(status)[0].field, "header");
  }
}

TEST_F(UploadTest, RefusesAnEmptyCallAndALongChunk) {
  Start();
  grpc::ClientContext empty_context, long_context;
  v1::Dataset dataset;
  auto empty = datasets_stub_->UploadDataset(&empty_context, &dataset);
  empty->WritesDone();
  EXPECT_EQ(empty->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  auto header = Header();
  header.set_size_bytes(2 << 20);
  auto writer = datasets_stub_->UploadDataset(&long_context, &dataset);
  v1::UploadDatasetRequest part;
  *part.mutable_header() = header;
  writer->Write(part);
  part.set_chunk(std::string((1 << 20) + 1, 'x'));
  writer->Write(part);
  writer->WritesDone();
  const absl::Status status = FromGrpcStatus(writer->Finish());
  ASSERT_EQ(FieldViolationsOf(status).size(), 1u);
  EXPECT_EQ(FieldViolationsOf(status)[0].field, "chunk");
}

TEST_F(ServerTest, DownloadComesInBoundedChunks) {
  Start();
  v1::Job job = SmallJob(1);
  job.mutable_model()->set_hidden_units(200);
  const std::string name = MustCreate(job);
  AwaitEnd(name);
  grpc::ClientContext context;
  v1::DownloadModelRequest request;
  request.set_name(name);

  auto reader = models_stub_->DownloadModel(&context, request);
  v1::DownloadModelResponse part;
  std::string file;
  int64_t announced = 0, step = 0;
  while (reader->Read(&part)) {
    if (file.empty()) {
      announced = part.size_bytes();
      step = part.step();
    }
    EXPECT_LE(part.chunk().size(), size_t{256} << 10);
    file += part.chunk();
  }

  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(announced, static_cast<int64_t>(file.size()));
  EXPECT_GT(file.size(), size_t{4} * 200 * 200 * 4);
  EXPECT_EQ(step, 1);
  EXPECT_THAT(file.substr(0, 2000), HasSubstr("rnn.weight_hh_l0"));
}

TEST_F(ServerTest, GenerateNeedsALanguageJob) {
  Start();
  const std::string name = MustCreate(SmallJob(1));
  AwaitEnd(name);
  grpc::ClientContext context;
  v1::GenerateRequest request;
  request.set_name(name);
  v1::GenerateResponse response;

  EXPECT_EQ(models_stub_->Generate(&context, request, &response).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ServerTest, ChecksGradients) {
  Start();
  grpc::ClientContext context;
  v1::CheckGradientsRequest request;
  *request.mutable_job() = SmallJob(1);
  v1::CheckGradientsResponse response;

  const grpc::Status status = jobs_stub_->CheckGradients(&context, request, &response);

  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.passed());
}

TEST_F(ServerTest, QueriesHistory) {
  Start();
  const std::string name = MustCreate(SmallJob(100));
  AwaitEnd(name);
  grpc::ClientContext context;
  v1::QueryStatsRequest request;
  request.set_name(name);
  request.set_points(10);
  v1::QueryStatsResponse response;

  ASSERT_TRUE(stats_stub_->QueryStats(&context, request, &response).ok());

  EXPECT_EQ(response.buckets_size(), 10);
  EXPECT_EQ(response.newest_step(), 99);
}

TEST_F(ServerTest, AdvisesOnTheThresholdFromTheNormsOfTheJob) {
  Start();
  v1::Job job = SmallJob(300);
  job.add_shadow_clips()->mutable_global_norm()->set_max_norm(1e-9);
  const std::string name = MustCreate(job);
  AwaitEnd(name);
  grpc::ClientContext context;
  v1::GetClipAdviceRequest request;
  request.set_name(name);
  request.add_thresholds(0.25);
  v1::ClipAdvice advice;

  ASSERT_TRUE(stats_stub_->GetClipAdvice(&context, request, &advice).ok());

  EXPECT_EQ(advice.window().steps(), 300);
  EXPECT_GT(advice.recommended().max_norm(), 0.0);
  EXPECT_EQ(advice.asked(0).max_norm(), 0.25);
  ASSERT_EQ(advice.shadows_size(), 1);
  EXPECT_EQ(advice.shadows(0).clip_rate(), 1.0);
}

TEST_F(ServerTest, FullQueueAnswersAtOnceWhenToTryAgain) {
  ServerOptions options;
  options.pools.heavy_queued_max = 0;
  Start(options);
  grpc::ClientContext context;
  v1::GenerateResponse response;

  const absl::Status status = FromGrpcStatus(models_stub_->Generate(&context, {}, &response));

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "TOO_MANY_CALLS");
  EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
}

TEST_F(ServerTest, StreamsAreBounded) {
  ServerOptions options;
  options.streams.streams_max = 1;
  Start(options);
  grpc::ClientContext first_context, second_context;
  v1::WatchAlertsRequest request;
  request.set_parent("jobs/-");
  auto first = alerts_stub_->WatchAlerts(&first_context, request);
  ASSERT_TRUE(Eventually([&] { return Metric("gradwatch_stream_subscribers") == 1; }));

  auto second = alerts_stub_->WatchAlerts(&second_context, request);
  const absl::Status status = FromGrpcStatus(second->Finish());

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "TOO_MANY_STREAMS");
  first_context.TryCancel();
  first->Finish();
}

TEST_F(ServerTest, UnknownJobsEndStreamsWithNotFound) {
  Start();
  grpc::ClientContext stats_context, alert_context, model_context;
  v1::StreamStatsRequest stats;
  stats.set_name("jobs/none");
  v1::WatchAlertsRequest alerts;
  alerts.set_parent("jobs/none");
  v1::DownloadModelRequest model;
  model.set_name("jobs/none");

  EXPECT_EQ(stats_stub_->StreamStats(&stats_context, stats)->Finish().error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(alerts_stub_->WatchAlerts(&alert_context, alerts)->Finish().error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(models_stub_->DownloadModel(&model_context, model)->Finish().error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Watch("jobs/none", [](const v1::Job&) { return false; }).code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ServerTest, ShutdownEndsStreamsWithUnavailable) {
  Start();
  const std::string name = MustCreate(SmallJob(kForEver));
  AwaitState(name, v1::Job::STATE_RUNNING);
  grpc::ClientContext context, silent_context;
  v1::WatchAlertsRequest request;
  request.set_parent("jobs/-");
  auto alerts = alerts_stub_->WatchAlerts(&context, request);
  v1::StreamStatsRequest silent_request;
  silent_request.set_name(name);
  auto silent = stats_stub_->StreamStats(&silent_context, silent_request);
  ASSERT_TRUE(Eventually([&] { return Metric("gradwatch_stream_subscribers") == 2; }));

  server_->Shutdown(absl::Seconds(1));

  v1::WatchAlertsResponse alert;
  while (alerts->Read(&alert)) {
  }
  EXPECT_EQ(alerts->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Metric("gradwatch_stream_subscribers"), 0);
  EXPECT_FALSE(server_->ready());
  EXPECT_EQ(Create(SmallJob(1)).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ServerTest, SecondServerOnThePortFailsClearly) {
  Start();
  ServerOptions options;
  options.listen = absl::StrCat("127.0.0.1:", server_->port());

  const auto second = Server::Start(options, &jobs_, &datasets_, &metrics_);

  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr(options.listen), HasSubstr("Address already in use")));
}

class HealthTest : public ServerTest {
 protected:
  using Request = grpc::health::v1::HealthCheckRequest;
  using Response = grpc::health::v1::HealthCheckResponse;

  grpc::Status Check(const std::string& service, Response* response) {
    grpc::TemplatedGenericStub<Request, Response> stub(channel_);
    grpc::ClientContext context;
    Request request;
    request.set_service(service);
    grpc::Status status;
    absl::Notification done;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request,
                   response, [&](grpc::Status s) {
                     status = std::move(s);
                     done.Notify();
                   });
    done.WaitForNotification();
    return status;
  }
};

TEST_F(HealthTest, LivenessAndReadinessAreApart) {
  Start();
  Response live, ready, unready;
  EXPECT_TRUE(Check(Server::kReadinessService, &ready).ok());
  server_->SetReady(false);
  EXPECT_TRUE(Check("", &live).ok());
  EXPECT_TRUE(Check(Server::kReadinessService, &unready).ok());

  EXPECT_EQ(ready.status(), Response::SERVING);
  EXPECT_EQ(live.status(), Response::SERVING);
  EXPECT_EQ(unready.status(), Response::NOT_SERVING);
}

TEST_F(HealthTest, UnknownServiceIsNotFound) {
  Start();
  Response response;

  EXPECT_EQ(Check("nobody", &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

// Asks reflection for the list of services, in bytes: its messages must not be
// compiled into a program that links gRPC's own. Field 7, list_services, is
// "*".
std::string ListServices(int port) {
  auto channel =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice bytes(std::string("\x3a\x01*"));
  call->Write(grpc::ByteBuffer(&bytes, 1), nullptr);
  queue.Next(&tag, &ok);
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  queue.Next(&tag, &ok);
  grpc::Slice slice;
  const bool got = ok && answer.DumpToSingleSlice(&slice).ok();
  const std::string text =
      got ? std::string(reinterpret_cast<const char*>(slice.begin()), slice.size()) : "";
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  return text;
}

TEST_F(ServerTest, ReflectionListsTheServicesOnLoopback) {
  Start();

  const std::string services = ListServices(server_->port());

  for (const char* name :
       {"JobService", "StatsService", "AlertService", "DatasetService", "ModelService"}) {
    EXPECT_THAT(services, HasSubstr(absl::StrCat("gradwatch.v1.", name)));
  }
  EXPECT_THAT(services, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(ServerTest, BeyondLoopbackReflectionIsOnTheAdminPortOnly) {
  ServerOptions options;
  options.listen = "0.0.0.0:0";
  options.insecure_listen = true;
  options.admin_listen = "127.0.0.1:0";

  auto server = Server::Start(options, &jobs_, &datasets_, &metrics_);

  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(ListServices((*server)->port()), "");
  EXPECT_THAT(ListServices((*server)->admin_port()), HasSubstr("gradwatch.v1.JobService"));
}

TEST_F(ServerTest, AdminPortMustBeLoopback) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.admin_listen = "0.0.0.0:0";

  EXPECT_EQ(Server::Start(options, &jobs_, &datasets_, &metrics_).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(ServerTest, BufCurlListsTheMethods) {
  const char* const given = std::getenv("GRADWATCH_BUF");
  const std::string buf = given != nullptr ? given
                                           : GRADWATCH_SOURCE_DIR
                              "/build/tools/buf-1.75.0/node_modules/@bufbuild/buf/bin/buf";
  if (!std::ifstream(buf)) GTEST_SKIP() << "no buf at " << buf;
  Start();
  const std::string path = ::testing::TempDir() + "/buf_methods.txt";

  const int code =
      std::system(absl::StrCat(buf, " curl --protocol grpc --http2-prior-knowledge ",
                               "--list-methods http://127.0.0.1:", server_->port(), " >", path)
                      .c_str());

  std::ifstream in(path);
  std::ostringstream methods;
  methods << in.rdbuf();
  EXPECT_EQ(code, 0);
  EXPECT_THAT(methods.str(), AllOf(HasSubstr("gradwatch.v1.JobService/CreateJob"),
                                   HasSubstr("grpc.health.v1.Health/Check")));
}

TEST_F(ServerTest, SpeaksTlsAndRefusesClientsWithoutCertificate) {
  const std::string folder = ::testing::TempDir();
  const std::string key = folder + "/server_test.key", certificate = folder + "/server_test.pem";
  const std::string make = absl::StrCat(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
      "-nodes -days 1 ",
      "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout ", key, " -out ",
      certificate, " 2>/dev/null");
  if (std::system(make.c_str()) != 0) GTEST_SKIP() << "no openssl to make a certificate with";
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.tls = {certificate, key, certificate};
  auto server = Server::Start(options, &jobs_, &datasets_, &metrics_);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto read = [](const std::string& path) {
    std::ifstream in(path);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  grpc::SslCredentialsOptions known{read(certificate), read(key), read(certificate)};
  grpc::SslCredentialsOptions stranger{read(certificate), "", ""};

  std::vector<grpc::StatusCode> codes;
  for (const auto& client : {known, stranger}) {
    auto stub = v1::AlertService::NewStub(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", (*server)->port()), grpc::SslCredentials(client)));
    grpc::ClientContext context;
    v1::ListRulesResponse rules;
    codes.push_back(stub->ListRules(&context, {}, &rules).error_code());
  }

  EXPECT_THAT(codes, ElementsAre(grpc::StatusCode::OK, grpc::StatusCode::UNAVAILABLE));
}

}  // namespace
}  // namespace gradwatch::rpc
