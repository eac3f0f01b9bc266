// The whole program against a fake server: what it prints, what it sends, its exit codes.
#include "client/cli/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "proto/support/errors.h"
#include "tests/unit/client/fake_server.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class AppTest : public testing::Test {
 protected:
  void SetUp() override {
    environment_.out = &out_;
    environment_.err = &err_;
    environment_.interrupt = std::make_shared<client::Cancellation>();
  }

  // Runs the program with GRADWATCH_SERVER set to the fake server, when that is started.
  int RunWith(std::vector<std::string> arguments) {
    environment_.variables["GRADWATCH_SERVER"] = server_.address();
    return cli::Run(arguments, environment_);
  }

  void ExpectHelp(const Command& command, const std::string& path) {
    out_.str("");
    std::vector<std::string> arguments = absl::StrSplit(path, ' ');
    arguments.emplace_back("--help");
    EXPECT_EQ(RunWith(arguments), 0) << path;
    EXPECT_THAT(out_.str(), StartsWith(command.purpose + "\n")) << path;
    EXPECT_THAT(out_.str(), HasSubstr("\nExamples:\n  gradwatch " + path)) << path;
    EXPECT_GE(command.examples.size(), 2u) << path;
    for (const Flag& flag : command.flags) {
      EXPECT_THAT(out_.str(), HasSubstr(flag.help.substr(0, 9))) << path;
    }
    for (const Command& sub : command.subcommands) ExpectHelp(sub, path + " " + sub.name);
  }

  // A job with 40 steps that ended in `state`.
  v1::Job ServeJob(v1::Job::State state) {
    v1::Job job;
    job.set_name("jobs/x");
    job.set_state(state);
    job.set_step(40);
    job.set_clip_rate(0.25);
    job.mutable_training()->set_step_limit(40);
    job.add_parameters()->set_name("rnn.weight_hh_l0");
    server_.get_clip_advice =
        [](const v1::GetClipAdviceRequest&) -> absl::StatusOr<v1::ClipAdvice> {
      v1::ClipAdvice advice;
      advice.set_basis(v1::ClipAdvice::BASIS_NO_DATA);
      return advice;
    };
    std::vector<v1::StepStats> steps(40);
    for (int i = 0; i < 40; ++i) {
      steps[static_cast<size_t>(i)].set_step(i);
      steps[static_cast<size_t>(i)].set_loss(2.0 - 0.01 * i);
      steps[static_cast<size_t>(i)].set_norm_before(1.5);
      steps[static_cast<size_t>(i)].add_tensors()->set_norm(0.5);
    }
    v1::Alert alert;
    alert.set_name("jobs/x/alerts/1");
    alert.set_rule_name("EXPLODING_ABS");
    alert.set_severity(v1::SEVERITY_CRIT);
    alert.set_state(v1::Alert::STATE_FIRING);
    alert.set_firing_step(12);
    alert.set_message("the norm passed 1000");
    alert.set_advice("clip at 1");
    Serve(job, steps, {alert}, &server_);
    return job;
  }

  FakeServer server_;
  std::ostringstream out_, err_;
  Environment environment_;
};

TEST_F(AppTest, HelpOfEveryCommandHasPurposeAndExamples) {
  for (const Command& command : AllCommands()) ExpectHelp(command, command.name);
}

TEST_F(AppTest, HelpNamesEveryDefaultOfAJob) {
  EXPECT_EQ(RunWith({"submit", "--help"}), 0);

  for (const char* text : {"Default: adding.", "Default: lstm.", "Default: 128.", "Default: 0.002.",
                           "Default: 2000.", "Default: 32.", "Default: 1.0."}) {
    EXPECT_THAT(out_.str(), HasSubstr(text));
  }
}

TEST_F(AppTest, SuggestsCommandsAndFlags) {
  EXPECT_EQ(RunWith({"sumbit"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("no command 'sumbit'; did you mean 'submit'?"));
  EXPECT_EQ(RunWith({"datasets", "uplod"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("did you mean 'upload'?"));
  EXPECT_EQ(RunWith({"list", "--sate", "RUNNING"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("no flag --sate; did you mean '--state'?"));
}

TEST_F(AppTest, RefusesWrongUsage) {
  EXPECT_EQ(RunWith({}), 2);
  EXPECT_EQ(RunWith({"watch"}), 2);
  EXPECT_EQ(RunWith({"get", "a", "b"}), 2);
  EXPECT_EQ(RunWith({"list", "--timeout", "soon"}), 2);
  EXPECT_EQ(RunWith({"list", "-o", "xml"}), 2);
  EXPECT_EQ(RunWith({"alerts"}), 2);
  EXPECT_EQ(RunWith({"submit", "--file", "/nowhere.yaml"}), 2);
  EXPECT_EQ(out_.str(), "");
}

TEST_F(AppTest, NamesAFlagWithoutItsValue) {
  EXPECT_EQ(RunWith({"submit", "--compare-steps", "--id", "x"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--compare-steps needs a value, true|false, before --id\n"));
  EXPECT_EQ(RunWith({"list", "--timeout"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--timeout needs a value, TIME\n"));
  EXPECT_EQ(RunWith({"list", "--state", "-q"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--state needs a value, "));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(AppTest, NamesAServerThatDoesNotAnswer) {
  server_.Start();
  const std::string address = server_.address();
  server_.Stop();

  EXPECT_EQ(RunWith({"list"}), 7);
  EXPECT_THAT(err_.str(), HasSubstr("no server answers at " + address + " (Connection refused)"));
  EXPECT_THAT(err_.str(), HasSubstr("start gradwatchd, or name another server with --server"));
}

TEST_F(AppTest, MapsTheServersCodes) {
  std::vector<absl::Status> answers = {absl::NotFoundError("a"), absl::PermissionDeniedError("b"),
                                       absl::FailedPreconditionError("c"),
                                       absl::ResourceExhaustedError("d"),
                                       absl::DeadlineExceededError("e")};
  size_t next = 0;
  server_.get_job = [&](const v1::GetJobRequest&) -> absl::StatusOr<v1::Job> {
    return answers[next++];
  };
  server_.Start();

  EXPECT_EQ(RunWith({"get", "x"}), 3);
  EXPECT_EQ(RunWith({"get", "x"}), 4);
  EXPECT_EQ(RunWith({"get", "x"}), 5);
  EXPECT_EQ(RunWith({"get", "x"}), 1);
  EXPECT_EQ(RunWith({"get", "x"}), 6);
}

TEST_F(AppTest, SubmitSendsWhatTheFlagsSay) {
  v1::CreateJobRequest sent;
  server_.create_job = [&sent](const v1::CreateJobRequest& request) -> absl::StatusOr<v1::Job> {
    sent = request;
    v1::Job job = request.job();
    job.set_name("jobs/mine");
    return job;
  };
  server_.Start();

  EXPECT_EQ(RunWith({"submit", "--task", "temporal-order", "--clip", "0.5", "--clip-value", "-1,1",
                     "--id", "mine", "--seed", "3"}),
            0);

  EXPECT_EQ(out_.str(), "jobs/mine\n");
  EXPECT_EQ(sent.job_id(), "mine");
  EXPECT_FALSE(sent.request_id().empty());
  EXPECT_TRUE(sent.job().task().has_temporal_order());
  EXPECT_EQ(sent.job().clipping().policies_size(), 2);
  EXPECT_EQ(sent.job().seed(), 3u);
}

TEST_F(AppTest, SubmitListsEveryBadFieldWithItsFlag) {
  server_.create_job = [](const v1::CreateJobRequest&) -> absl::StatusOr<v1::Job> {
    return InvalidFields({{"model.hidden_units", "must be 1 to 4096, is -3"},
                          {"training.batch_size", "must be 1 to 65536, is 0"}});
  };
  server_.Start();

  EXPECT_EQ(RunWith({"submit", "--hidden", "-3", "--batch", "0"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("model.hidden_units (--hidden): must be 1 to 4096, is -3"));
  EXPECT_THAT(err_.str(), HasSubstr("training.batch_size (--batch): must be 1 to 65536, is 0"));
}

TEST_F(AppTest, SubmitUploadsATextAndUsesIt) {
  const std::string path = testing::TempDir() + "/submit_uploads.txt";
  std::ofstream(path) << "to be or not to be";
  v1::CreateJobRequest sent;
  server_.list_datasets = [](const v1::ListDatasetsRequest&) {
    return absl::StatusOr<v1::ListDatasetsResponse>(v1::ListDatasetsResponse());
  };
  server_.upload = [](const std::vector<v1::UploadDatasetRequest>&) {
    v1::Dataset dataset;
    dataset.set_name("datasets/d1");
    return absl::StatusOr<v1::Dataset>(dataset);
  };
  server_.create_job = [&sent](const v1::CreateJobRequest& request) -> absl::StatusOr<v1::Job> {
    sent = request;
    return request.job();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"submit", "--text", path, "--time-steps", "20"}), 0);

  EXPECT_EQ(sent.job().task().language().dataset(), "datasets/d1");
  EXPECT_EQ(sent.job().task().language().time_steps(), 20);
}

TEST_F(AppTest, SubmitNamesATextThatIsNotThere) {
  server_.Start();

  EXPECT_EQ(RunWith({"submit", "--text", "/nowhere.txt"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("cannot read /nowhere.txt"));
}

TEST_F(AppTest, SubmitWaitEndsWithTheJobsCode) {
  server_.create_job = [](const v1::CreateJobRequest&) -> absl::StatusOr<v1::Job> {
    v1::Job job;
    job.set_name("jobs/x");
    return job;
  };
  server_.watch_job = [](const v1::WatchJobRequest&, const auto& write) {
    v1::WatchJobResponse message;
    write(message);  // A heartbeat.
    message.mutable_job()->set_name("jobs/x");
    message.mutable_job()->set_state(v1::Job::STATE_FAILED);
    write(message);
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"submit", "--wait"}), 1);
  EXPECT_THAT(out_.str(), HasSubstr("jobs/x FAILED"));
}

TEST_F(AppTest, ListPrintsJsonWithProtoNames) {
  v1::ListJobsRequest asked;
  server_.list_jobs = [&asked](const v1::ListJobsRequest& request) {
    asked = request;
    v1::ListJobsResponse response;
    response.add_jobs()->set_name("jobs/x");
    response.mutable_jobs(0)->mutable_latest_stats()->set_loss(std::nan(""));
    response.mutable_jobs(0)->set_clip_rate(0.5);
    return absl::StatusOr<v1::ListJobsResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"-o", "json", "list", "--state", "running", "--label", "a=b", "--label", "c"}),
            0);

  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["jobs"][0]["clip_rate"], 0.5);
  EXPECT_EQ(json["jobs"][0]["latest_stats"]["loss"], "NaN");
  EXPECT_EQ(asked.filter(), "state = RUNNING AND labels.a = \"b\" AND labels:c");
}

TEST_F(AppTest, ListFollowsPages) {
  server_.list_jobs = [](const v1::ListJobsRequest& request) {
    v1::ListJobsResponse response;
    response.add_jobs()->set_name("jobs/page" + request.page_token());
    if (request.page_token().empty()) response.set_next_page_token("2");
    return absl::StatusOr<v1::ListJobsResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"list"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("page2"));
}

TEST_F(AppTest, WatchReplaysAFinishedJob) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x"}), 0);

  EXPECT_THAT(out_.str(), StartsWith("jobs/x: "));
  EXPECT_THAT(out_.str(), HasSubstr("norm before"));
  EXPECT_THAT(out_.str(), HasSubstr("! FIRING CRIT EXPLODING_ABS at step 12"));
  EXPECT_THAT(out_.str(), HasSubstr("clip at 1"));
  EXPECT_THAT(out_.str(), HasSubstr("gradient norm before clipping"));
  EXPECT_THAT(out_.str(), HasSubstr("jobs/x SUCCEEDED after 40 steps"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("\033[")));
}

TEST_F(AppTest, WatchEndsWithTheJobsCode) {
  ServeJob(v1::Job::STATE_FAILED);
  server_.Start();
  EXPECT_EQ(RunWith({"watch", "jobs/x"}), 1);
  server_.Stop();

  ServeJob(v1::Job::STATE_CANCELLED);
  server_.Start();
  EXPECT_EQ(RunWith({"watch", "x"}), 5);
  EXPECT_EQ(RunWith({"watch", "nobody"}), 3);
}

TEST_F(AppTest, WatchFollowsARunningJob) {
  v1::Job job = ServeJob(v1::Job::STATE_SUCCEEDED);
  v1::Job running = job;
  running.set_state(v1::Job::STATE_RUNNING);
  server_.get_job = [running](const v1::GetJobRequest&) {
    return absl::StatusOr<v1::Job>(running);
  };
  v1::StreamStatsRequest asked;
  server_.stream_stats = [&asked, job](const v1::StreamStatsRequest& request, const auto& write) {
    asked = request;
    v1::StreamStatsResponse message;
    message.add_steps()->set_step(40);
    message.mutable_steps(0)->set_loss(0.125);
    message.set_dropped_before(3);
    write(message);
    message.Clear();
    *message.mutable_final_job() = job;
    write(message);
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x"}), 0);

  EXPECT_EQ(asked.from_step(), 40);
  EXPECT_EQ(asked.min_interval().seconds(), 1);
  EXPECT_TRUE(asked.scalars_only());
  EXPECT_THAT(out_.str(), HasSubstr("0.125"));
  EXPECT_THAT(err_.str(), HasSubstr("3 steps were dropped"));
}

TEST_F(AppTest, WatchSaysThatTheServerWentAway) {
  v1::Job job = ServeJob(v1::Job::STATE_RUNNING);
  server_.stream_stats = [](const v1::StreamStatsRequest&, const auto&) {
    return absl::UnavailableError("shutting down");
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x"}), 7);
  EXPECT_THAT(err_.str(), HasSubstr("went away"));
  EXPECT_THAT(err_.str(), HasSubstr("gradwatch watch x --reconnect"));
}

TEST_F(AppTest, WatchReconnectsWhenAsked) {
  const v1::Job job = ServeJob(v1::Job::STATE_RUNNING);
  int streams = 0;
  server_.stream_stats = [&streams, job](const v1::StreamStatsRequest&, const auto& write) {
    if (++streams == 1) return absl::UnavailableError("shutting down");
    v1::StreamStatsResponse last;
    *last.mutable_final_job() = job;
    last.mutable_final_job()->set_state(v1::Job::STATE_SUCCEEDED);
    write(last);
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x", "--reconnect"}), 0);
  EXPECT_EQ(streams, 2);
  EXPECT_THAT(err_.str(), HasSubstr("trying again"));
}

TEST_F(AppTest, WatchExplainsAJobThatARestartForgot) {
  ServeJob(v1::Job::STATE_RUNNING);
  server_.stream_stats = [](const v1::StreamStatsRequest&, const auto&) {
    return absl::NotFoundError("there is no job jobs/x");
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x"}), 3);
  EXPECT_THAT(err_.str(), HasSubstr("jobs live in its memory"));
}

TEST_F(AppTest, WatchEndsWithTheTimeout) {
  ServeJob(v1::Job::STATE_RUNNING);
  server_.stream_stats = [](const v1::StreamStatsRequest&, const auto& write) {
    v1::StreamStatsResponse heartbeat;
    heartbeat.set_heartbeat(true);
    while (write(heartbeat)) {
    }
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x", "--timeout", "300ms"}), 6);
  EXPECT_THAT(err_.str(), HasSubstr("it goes on"));
}

TEST_F(AppTest, CtrlCLeavesTheJobAlone) {
  ServeJob(v1::Job::STATE_RUNNING);
  bool cancelled = false;
  server_.cancel_job = [&cancelled](const v1::CancelJobRequest&) {
    cancelled = true;
    return absl::StatusOr<v1::JobActionResponse>(v1::JobActionResponse());
  };
  server_.stream_stats = [interrupt = environment_.interrupt](const v1::StreamStatsRequest&,
                                                              const auto& write) {
    v1::StreamStatsResponse heartbeat;
    heartbeat.set_heartbeat(true);
    interrupt->Cancel();
    while (write(heartbeat)) {
    }
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x"}), 130);
  EXPECT_THAT(err_.str(), HasSubstr("jobs/x goes on"));
  EXPECT_THAT(err_.str(), HasSubstr("gradwatch cancel x"));
  EXPECT_FALSE(cancelled);
}

TEST_F(AppTest, WatchJsonIsOneMessageALine) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x", "-o", "json"}), 0);

  const std::vector<std::string> lines = absl::StrSplit(out_.str(), '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 41u);
  EXPECT_EQ(nlohmann::json::parse(lines[0])["steps"][0]["step"], "0");
  EXPECT_EQ(nlohmann::json::parse(lines[3])["steps"][0]["step"], "3");
  EXPECT_EQ(nlohmann::json::parse(lines[40])["final_job"]["state"], "STATE_SUCCEEDED");
}

TEST_F(AppTest, WatchRedrawsInATerminal) {
  const v1::Job job = ServeJob(v1::Job::STATE_SUCCEEDED);
  v1::Job running = job;
  running.set_state(v1::Job::STATE_RUNNING);
  server_.get_job = [running](const v1::GetJobRequest&) {
    return absl::StatusOr<v1::Job>(running);
  };
  server_.Start();
  environment_.out_is_terminal = true;

  EXPECT_EQ(RunWith({"watch", "x"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("\033[5F\033[J"));
  out_.str("");
  EXPECT_EQ(RunWith({"watch", "x", "--plain", "--color", "never"}), 0);
  EXPECT_THAT(out_.str(), Not(HasSubstr("\033[")));
}

TEST_F(AppTest, ColoursObeyFlagAndEnvironment) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.Start();

  RunWith({"watch", "x", "--color", "always"});
  EXPECT_THAT(out_.str(), HasSubstr("\033[32m"));
  out_.str("");
  environment_.out_is_terminal = true;
  environment_.variables["NO_COLOR"] = "1";
  RunWith({"watch", "x", "--plain"});
  EXPECT_THAT(out_.str(), Not(HasSubstr("\033[")));
}

TEST_F(AppTest, ExportsEveryStep) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.Start();
  const std::string path = testing::TempDir() + "/exports_every_step.csv";

  EXPECT_EQ(RunWith({"export", "x", "--output", path}), 0);
  EXPECT_EQ(RunWith({"export", "x", "--format", "jsonl"}), 0);

  std::ostringstream csv;
  csv << std::ifstream(path).rdbuf();
  const std::vector<std::string> rows = absl::StrSplit(csv.str(), '\n', absl::SkipEmpty());
  ASSERT_EQ(rows.size(), 41u);
  EXPECT_THAT(rows[0], HasSubstr("norm/rnn.weight_hh_l0"));
  EXPECT_THAT(rows[4], StartsWith("3,0,,0,1.97,"));
  const std::vector<std::string> lines = absl::StrSplit(out_.str(), '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 40u);
  EXPECT_EQ(nlohmann::json::parse(lines[3])["norm_before"], 1.5);
}

TEST_F(AppTest, WritesAReportAndPrintsItsPath) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.Start();
  const std::string path = testing::TempDir() + "/writes_a_report.html";

  EXPECT_EQ(RunWith({"report", "x", "--output", path}), 0);

  std::ostringstream page;
  page << std::ifstream(path).rdbuf();
  EXPECT_EQ(out_.str(), path + "\n");
  EXPECT_THAT(page.str(), StartsWith("<!DOCTYPE html>"));
  EXPECT_THAT(page.str(), HasSubstr("1.5 at step 0"));
  EXPECT_THAT(page.str(), HasSubstr("the norm passed 1000"));
  EXPECT_EQ(RunWith({"report", "nobody"}), 3);
}

TEST_F(AppTest, WritesAMarkdownReportToStandardOutput) {
  ServeJob(v1::Job::STATE_RUNNING);
  server_.Start();

  EXPECT_EQ(RunWith({"report", "x", "--markdown", "--output", "-"}), 0);

  EXPECT_THAT(out_.str(), StartsWith("# x\n"));
  EXPECT_THAT(out_.str(), HasSubstr("| state | RUNNING |"));
}

TEST_F(AppTest, ReportTellsTheAdviceOfTheServer) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.get_clip_advice =
      [](const v1::GetClipAdviceRequest& request) -> absl::StatusOr<v1::ClipAdvice> {
    if (request.name() != "jobs/x") return absl::InternalError("another job");
    v1::ClipAdvice advice;
    advice.mutable_recommended()->set_max_norm(0.125);
    return advice;
  };
  server_.Start();

  EXPECT_EQ(RunWith({"report", "x", "--markdown", "--output", "-"}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("clip the global L2 norm at 0.125"));
}

TEST_F(AppTest, ReportFailsWhereTheAdviceDoes) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.get_clip_advice = [](const v1::GetClipAdviceRequest&) -> absl::StatusOr<v1::ClipAdvice> {
    return absl::InternalError("no advice today");
  };
  server_.Start();

  EXPECT_NE(RunWith({"report", "x", "--markdown", "--output", "-"}), 0);

  EXPECT_THAT(err_.str(), HasSubstr("no advice today"));
}

// Arrays are asked for only where the job has some.
TEST_F(AppTest, ReportAsksForWhatDiagnosticsMeasured) {
  v1::Job job = ServeJob(v1::Job::STATE_SUCCEEDED);
  std::vector<bool> scalars_only;
  const auto stream = server_.stream_stats;
  server_.stream_stats = [&](const v1::StreamStatsRequest& request, const auto& write) {
    scalars_only.push_back(request.scalars_only());
    return stream(request, write);
  };
  server_.get_job = [&job](const v1::GetJobRequest&) { return job; };
  server_.Start();

  for (const bool probes : {false, true}) {
    if (probes) job.mutable_diagnostics()->set_probe_every_steps(10);
    EXPECT_EQ(RunWith({"report", "x", "--markdown", "--output", "-"}), 0);
  }

  EXPECT_EQ(scalars_only, (std::vector<bool>{true, false}));
}

// A job that runs while its report is written: what was forgotten meanwhile is left out.
TEST_F(AppTest, ReportGoesOnWhereHistoryWasForgotten) {
  ServeJob(v1::Job::STATE_RUNNING);
  const auto query = server_.query_stats;
  server_.query_stats = [query](const v1::QueryStatsRequest& request) {
    auto history = query(request);
    if (request.points() == 1) history->set_oldest_step(30);
    return history;
  };
  const auto stream = server_.stream_stats;
  server_.stream_stats = [stream](const v1::StreamStatsRequest& request,
                                  const auto& write) -> absl::Status {
    if (request.from_step() < 30) return absl::OutOfRangeError("the oldest kept step is 30");
    return stream(request, write);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"report", "x", "--markdown", "--output", "-"}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("1.5 at step 30"));
}

TEST_F(AppTest, ComparesJobsInWords) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.Start();

  EXPECT_EQ(RunWith({"compare", "x", "jobs/x"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("LARGEST NORM"));
  EXPECT_THAT(out_.str(), HasSubstr("clipped in 25 % of its steps"));
  EXPECT_EQ(RunWith({"compare", "x", "nobody"}), 3);
}

TEST_F(AppTest, ComparesShadowClips) {
  v1::Job job = ServeJob(v1::Job::STATE_SUCCEEDED);
  job.add_shadow_clips()->mutable_global_norm()->set_max_norm(0.25);
  job.add_shadow_summaries()->set_clip_rate(0.75);
  server_.get_job = [&job](const v1::GetJobRequest&) { return job; };
  server_.Start();

  EXPECT_EQ(RunWith({"compare", "x"}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("SHADOW CLIP"));
  EXPECT_THAT(out_.str(), HasSubstr("norm 0.25     75 %"));
}

TEST_F(AppTest, ShowsAlertsWithAdvice) {
  ServeJob(v1::Job::STATE_RUNNING);
  server_.Start();

  EXPECT_EQ(RunWith({"alerts", "x"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("EXPLODING_ABS"));
  EXPECT_THAT(out_.str(), HasSubstr("clip at 1"));
}

// Answers GetBatch with one example of the step that is asked for.
void ServeBatch(FakeServer* server, v1::GetBatchRequest* sent) {
  server->get_batch = [sent](const v1::GetBatchRequest& request) {
    *sent = request;
    if (request.step() >= 40) return absl::StatusOr<v1::TrainingBatch>(absl::OutOfRangeError("no"));
    v1::TrainingBatch batch;
    batch.set_step(request.step());
    batch.set_rows(32);
    batch.add_target_names("sum");
    v1::TrainingExample* const example = batch.add_examples();
    example->set_time_steps(1);
    example->add_inputs(0.5f);
    example->add_target_values(0.75f);
    return absl::StatusOr<v1::TrainingBatch>(batch);
  };
}

TEST_F(AppTest, ShowsTheBatchOfAStep) {
  ServeJob(v1::Job::STATE_RUNNING);
  v1::GetBatchRequest sent;
  ServeBatch(&server_, &sent);
  server_.Start();

  EXPECT_EQ(RunWith({"batch", "x", "12", "--examples", "7"}), 0);

  EXPECT_EQ(sent.name(), "jobs/x");
  EXPECT_EQ(sent.step(), 12);
  EXPECT_EQ(sent.examples_max(), 7);
  EXPECT_THAT(out_.str(), HasSubstr("jobs/x step 12: 1 of the 32 rows"));
  EXPECT_THAT(out_.str(), HasSubstr("target sum 0.75"));
  out_.str("");
  EXPECT_EQ(RunWith({"batch", "x", "12", "-o", "json"}), 0);
  EXPECT_EQ(sent.examples_max(), 4);
  EXPECT_EQ(nlohmann::json::parse(out_.str())["examples"][0]["target_values"][0], 0.75);
  EXPECT_EQ(RunWith({"batch", "x", "40"}), 1);
  EXPECT_EQ(RunWith({"batch", "x", "one"}), 2);
  EXPECT_EQ(RunWith({"batch", "x"}), 2);
  EXPECT_EQ(RunWith({"batch", "x", "1", "--examples", "0"}), 2);
}

TEST_F(AppTest, ShowsOneAlertWhole) {
  v1::Job job;
  job.set_name("jobs/x");
  v1::Alert alert;
  alert.set_name("jobs/x/alerts/2");
  alert.set_rule_name("EXPLODING_ABS");
  alert.set_severity(v1::SEVERITY_CRIT);
  alert.set_state(v1::Alert::STATE_RESOLVED);
  alert.set_resolve_reason(v1::Alert::RESOLVE_REASON_CONDITION);
  alert.set_pending_step(10);
  alert.set_firing_step(12);
  alert.set_last_step(30);
  alert.set_resolved_step(33);
  alert.set_count(2);
  alert.set_first_value(1200);
  alert.set_peak_value(5000);
  alert.set_last_value(800);
  alert.set_threshold(1000);
  alert.set_tensor("rnn.weight_hh_l0");
  alert.set_time_step(3);
  alert.set_message("the norm before clipping passed its limit");
  alert.set_advice(std::string(20, 'w') + " " + std::string(50, 'v') + " " + std::string(40, 'u'));
  alert.set_batch_origin(384);
  alert.set_last_good_step(7);
  v1::Alert stalled = alert;
  stalled.set_name("jobs/x/alerts/3");
  stalled.clear_batch_origin();
  Serve(job, {}, {alert, stalled}, &server_);
  v1::GetBatchRequest sent;
  ServeBatch(&server_, &sent);
  server_.Start();

  EXPECT_EQ(RunWith({"alerts", "show", "x/2"}), 0);

  EXPECT_EQ(out_.str(),
            "alert         jobs/x/alerts/2\n"
            "rule          EXPLODING_ABS, CRIT\n"
            "state         RESOLVED\n"
            "what          the norm before clipping passed its limit\n"
            "where         rnn.weight_hh_l0, time step 3\n"
            "steps         held from 10, fired at 12, held last at 30, resolved at 33 (CONDITION); "
            "2 times\n"
            "value         1200 when it fired, at worst 5000, now 800; the limit is 1000\n"
            "batch         from 384 on (gradwatch batch x 12)\n"
            "last good     the weights before step 7, where the ladder would go back to\n"
            "advice        wwwwwwwwwwwwwwwwwwww\n"
            "              vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\n"
            "              uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu\n");
  out_.str("");
  EXPECT_EQ(RunWith({"alerts", "show", "jobs/x/alerts/2", "--batch"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("\n\njobs/x step 12: 1 of the 32 rows"));
  EXPECT_EQ(sent.step(), 12);
  EXPECT_EQ(sent.examples_max(), 4);
  EXPECT_EQ(RunWith({"alerts", "show", "x/2", "--batch", "--examples", "9"}), 0);
  EXPECT_EQ(sent.examples_max(), 9);
  EXPECT_EQ(RunWith({"alerts", "show", "x/2", "--batch", "--examples", "0"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--examples 0 shows nothing; allowed: 1 to 1000"));
  EXPECT_EQ(RunWith({"alerts", "show", "x/3", "--batch"}), 0);
  EXPECT_THAT(err_.str(), HasSubstr("no step raised this alert"));
  EXPECT_EQ(RunWith({"alerts", "show", "x/4"}), 3);
  EXPECT_THAT(err_.str(), HasSubstr("there is no jobs/x/alerts/4; jobs/x has 2 alerts"));
  EXPECT_EQ(RunWith({"alerts", "show", "x"}), 2);
}

TEST_F(AppTest, ListsTheRulesOfAJob) {
  v1::ListRulesRequest sent;
  server_.list_rules = [&sent](const v1::ListRulesRequest& request) {
    sent = request;
    v1::ListRulesResponse response;
    for (const char* name : {"EXPLODING_ABS", "DEAD_LAYER", "UPDATE_RATIO"}) {
      v1::Rule* const rule = response.add_rules();
      rule->set_name(name);
      rule->mutable_defaults()->set_threshold(1000);
      rule->mutable_defaults()->set_for_steps(3);
      if (!request.job().empty()) *rule->mutable_in_force() = rule->defaults();
    }
    if (request.job().empty()) return absl::StatusOr<v1::ListRulesResponse>(response);
    response.mutable_rules(0)->mutable_in_force()->set_threshold(50);
    response.mutable_rules(0)->mutable_in_force()->set_severity(v1::SEVERITY_INFO);
    response.mutable_rules(1)->mutable_in_force()->set_disabled(true);
    v1::Rule* const own = response.add_rules();
    own->set_name("OWN");
    own->set_condition("loss > 100");
    own->mutable_defaults()->set_threshold(100);
    own->mutable_custom()->set_name("OWN");
    return absl::StatusOr<v1::ListRulesResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"alerts", "rules", "--job", "x"}), 0);

  EXPECT_EQ(sent.job(), "jobs/x");
  const std::vector<std::string> lines = absl::StrSplit(out_.str(), '\n');
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_THAT(lines[0], HasSubstr("IN FORCE"));
  EXPECT_THAT(lines[1], HasSubstr("threshold=50,for=3"));
  EXPECT_THAT(lines[1], HasSubstr("threshold=50,severity=INFO"));
  EXPECT_THAT(lines[2], HasSubstr(" off"));
  EXPECT_THAT(lines[3], HasSubstr("threshold=1000,for=3"));
  EXPECT_THAT(lines[4], HasSubstr("its own"));
  EXPECT_THAT(lines[4], HasSubstr("loss > 100"));
  out_.str("");
  EXPECT_EQ(RunWith({"alerts", "rules"}), 0);
  EXPECT_EQ(sent.job(), "");
  EXPECT_THAT(out_.str(), HasSubstr("DEFAULTS"));
}

TEST_F(AppTest, AcknowledgesAnAlert) {
  v1::AcknowledgeAlertRequest sent;
  server_.acknowledge_alert = [&sent](const v1::AcknowledgeAlertRequest& request) {
    sent = request;
    v1::Alert alert;
    alert.set_name(request.name());
    alert.set_rule_name("EXPLODING_ABS");
    alert.set_state(v1::Alert::STATE_FIRING);
    alert.mutable_acknowledgement()->set_author(request.author());
    return absl::StatusOr<v1::Alert>(alert);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"alerts", "ack", "x/3", "--by", "ann", "--note", "on it", "--for", "2h"}), 0);

  EXPECT_EQ(sent.name(), "jobs/x/alerts/3");
  EXPECT_EQ(sent.author(), "ann");
  EXPECT_EQ(sent.comment(), "on it");
  EXPECT_EQ(sent.duration().seconds(), 7200);
  EXPECT_THAT(out_.str(), HasSubstr("FIRING, seen by ann"));
  environment_.variables.erase("USER");
  EXPECT_EQ(RunWith({"alerts", "ack", "jobs/x/alerts/3"}), 2);
  environment_.variables["USER"] = "bob";
  EXPECT_EQ(RunWith({"alerts", "ack", "jobs/x/alerts/3"}), 0);
  EXPECT_EQ(sent.name(), "jobs/x/alerts/3");
  EXPECT_EQ(sent.author(), "bob");
  EXPECT_FALSE(sent.has_duration());
}

TEST_F(AppTest, SilencesARuleAndHearsItAgain) {
  v1::Silence silence;
  server_.silence_rule = [&silence](const v1::SilenceRuleRequest& request) {
    silence.set_job(request.job());
    silence.set_rule_name(request.rule_name());
    silence.set_author(request.author());
    silence.mutable_create_time()->set_seconds(1000);
    silence.mutable_expire_time()->set_seconds(1000 + request.duration().seconds());
    return absl::StatusOr<v1::Silence>(silence);
  };
  server_.list_silences = [&silence](const v1::ListSilencesRequest&) {
    v1::ListSilencesResponse response;
    *response.add_silences() = silence;
    return absl::StatusOr<v1::ListSilencesResponse>(response);
  };
  std::string ended;
  server_.delete_silence = [&ended](const v1::DeleteSilenceRequest& request) {
    ended = request.job() + " " + request.rule_name();
    return absl::StatusOr<google::protobuf::Empty>(google::protobuf::Empty());
  };
  server_.Start();

  EXPECT_EQ(RunWith({"alerts", "silence", "x", "EXPLODING_REL", "--by", "ann"}), 0);
  EXPECT_EQ(silence.expire_time().seconds(), 4600);
  EXPECT_EQ(RunWith({"alerts", "silences"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("EXPLODING_REL"));
  EXPECT_EQ(RunWith({"alerts", "unsilence", "x", "EXPLODING_REL"}), 0);
  EXPECT_EQ(ended, "jobs/x EXPLODING_REL");
}

TEST_F(AppTest, EvaluatesRulesFromThoseOfTheJob) {
  server_.get_job = [](const v1::GetJobRequest&) {
    v1::Job job;
    job.add_rules()->set_id(v1::RULE_ID_NON_FINITE);
    job.add_custom_rules()->set_name("OWN");
    return absl::StatusOr<v1::Job>(job);
  };
  v1::EvaluateRulesRequest sent;
  server_.evaluate_rules = [&sent](const v1::EvaluateRulesRequest& request) {
    sent = request;
    v1::EvaluateRulesResponse response;
    response.set_steps(40);
    response.set_last_step(39);
    v1::Alert& alert = *response.add_alerts();
    alert.set_rule_name("EXPLODING_ABS");
    alert.set_firing_step(17);
    return absl::StatusOr<v1::EvaluateRulesResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"alerts", "evaluate", "x", "--rule", "EXPLODING_ABS:threshold=5", "--from",
                     "3", "--to", "39"}),
            0);
  EXPECT_EQ(sent.name(), "jobs/x");
  EXPECT_EQ(sent.rules_size(), 2);
  EXPECT_EQ(sent.custom_rules_size(), 1);
  EXPECT_EQ(sent.from_step(), 3);
  EXPECT_EQ(sent.to_step(), 39);
  EXPECT_THAT(out_.str(), HasSubstr("17"));
  EXPECT_THAT(err_.str(), HasSubstr("40 steps replayed, 0 to 39; 1 alert"));

  EXPECT_EQ(RunWith({"alerts", "evaluate", "x", "--defaults", "--custom-rule", "A: loss > 1"}), 0);
  EXPECT_EQ(sent.rules_size(), 0);
  EXPECT_EQ(sent.custom_rules_size(), 1);
  EXPECT_FALSE(sent.has_to_step());
}

TEST_F(AppTest, UpdateSendsOnlyWhatChanges) {
  ServeJob(v1::Job::STATE_RUNNING);
  server_.get_job = [](const v1::GetJobRequest&) {
    v1::Job job;
    job.set_etag("e1");
    (*job.mutable_labels())["old"] = "1";
    (*job.mutable_labels())["gone"] = "1";
    job.add_rules()->set_id(v1::RULE_ID_NON_FINITE);
    job.add_custom_rules()->set_name("OWN");
    job.add_custom_rules()->set_name("OLD");
    return absl::StatusOr<v1::Job>(job);
  };
  v1::UpdateJobRequest sent;
  server_.update_job = [&sent](const v1::UpdateJobRequest& request) {
    sent = request;
    v1::UpdateJobResponse response;
    response.mutable_job()->set_name("jobs/x");
    response.set_effective_step(77);
    return absl::StatusOr<v1::UpdateJobResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"update", "x", "--clip", "none", "--lr", "0.5"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("from step 77 on"));
  EXPECT_EQ(sent.update_mask().paths_size(), 2);
  EXPECT_TRUE(sent.job().has_clipping());
  EXPECT_TRUE(sent.job().clipping().policies().empty());
  EXPECT_EQ(sent.etag(), "");

  EXPECT_EQ(RunWith({"update", "x", "--label", "new=2", "--remove-label", "gone", "--rule",
                     "EXPLODING_ABS:threshold=5"}),
            0);
  EXPECT_EQ(sent.etag(), "e1");
  EXPECT_EQ(sent.job().labels().size(), 2u);
  EXPECT_EQ(sent.job().rules_size(), 2);

  EXPECT_EQ(RunWith({"update", "x", "--custom-rule", "NEW: loss > 1", "--custom-rule",
                     "OWN: loss > 2", "--remove-custom-rule", "OLD"}),
            0);
  ASSERT_EQ(sent.job().custom_rules_size(), 2);
  EXPECT_EQ(sent.job().custom_rules(0).expression(), "loss > 2");
  EXPECT_EQ(sent.job().custom_rules(1).name(), "NEW");
  EXPECT_EQ(sent.update_mask().paths(0), "custom_rules");

  EXPECT_EQ(RunWith({"update", "x"}), 2);
}

TEST_F(AppTest, UpdateSendsTruncationLevelAndAuthor) {
  v1::UpdateJobRequest sent;
  server_.update_job = [&sent](const v1::UpdateJobRequest& request) {
    sent = request;
    v1::UpdateJobResponse response;
    response.mutable_job()->set_name("jobs/x");
    response.set_effective_step(77);
    v1::SettingChange* const change = response.mutable_intervention()->add_changes();
    change->set_path("statistics_level");
    change->set_old_value("\"STATISTICS_LEVEL_BASIC\"");
    change->set_new_value("\"STATISTICS_LEVEL_FULL\"");
    return absl::StatusOr<v1::UpdateJobResponse>(response);
  };
  server_.Start();
  environment_.variables["USER"] = "ann";

  EXPECT_EQ(RunWith({"update", "x", "--truncation", "20", "--stats", "full"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("from step 77 on: statistics_level: BASIC -> FULL"));
  EXPECT_EQ(sent.job().training().truncation(), 20);
  EXPECT_EQ(sent.job().statistics_level(), v1::STATISTICS_LEVEL_FULL);
  EXPECT_EQ(sent.author(), "ann");

  EXPECT_EQ(RunWith({"update", "x", "--truncation", "none", "--author", "bob"}), 0);
  EXPECT_FALSE(sent.job().training().has_truncation());
  EXPECT_EQ(sent.update_mask().paths(0), "training.truncation");
  EXPECT_EQ(sent.author(), "bob");

  EXPECT_EQ(RunWith({"update", "x", "--stats", "everything"}), 2);
}

TEST_F(AppTest, ListsInterventions) {
  server_.list_interventions = [](const v1::ListInterventionsRequest& request) {
    EXPECT_EQ(request.parent(), "jobs/x");
    v1::ListInterventionsResponse response;
    const bool first = request.page_token().empty();
    v1::Intervention* const one = response.add_interventions();
    one->set_step(first ? 12 : 30);
    one->set_kind(first ? v1::Intervention::KIND_EDIT : v1::Intervention::KIND_ROLL_BACK);
    one->set_author(first ? "ann" : "ladder");
    if (first) {
      v1::SettingChange* const change = one->add_changes();
      change->set_path("clipping");
      change->set_old_value(R"({"policies":[{"global_norm":{"max_norm":1}}]})");
      change->set_new_value("{}");
      response.set_next_page_token("more");
    } else {
      v1::SettingChange* const change = one->add_changes();
      change->set_path("training.step_limit");
      change->set_old_value("\"2000\"");
      change->set_new_value("\"2011\"");
      one->set_restored_step(20);
      one->set_batches_skipped(50);
      one->set_cause("loss 9 above 4");
    }
    return absl::StatusOr<v1::ListInterventionsResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"interventions", "x"}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("clipping: norm 1 -> none"));
  EXPECT_THAT(out_.str(), HasSubstr("ROLL_BACK"));
  EXPECT_THAT(out_.str(), HasSubstr("training.step_limit: 2000 -> 2011, back to the weights before "
                                    "step 20, 50 batches left out, loss 9 above 4"));
}

TEST_F(AppTest, AdvanceWaitsUntilTheJobStandsAgain) {
  server_.advance_job = [](const v1::AdvanceJobRequest& request) {
    EXPECT_EQ(request.steps(), 5);
    v1::JobActionResponse response;
    response.mutable_job()->set_name("jobs/x");
    response.mutable_job()->set_state(v1::Job::STATE_RUNNING);
    response.set_effective_step(15);
    return absl::StatusOr<v1::JobActionResponse>(response);
  };
  server_.watch_job = [](const v1::WatchJobRequest&,
                         const std::function<bool(const v1::WatchJobResponse&)>& write) {
    v1::WatchJobResponse message;
    message.mutable_job()->set_name("jobs/x");
    message.mutable_job()->set_state(v1::Job::STATE_PAUSING);
    write(message);
    message.mutable_job()->set_state(v1::Job::STATE_PAUSED);
    message.mutable_job()->set_step(15);
    message.mutable_job()->mutable_latest_stats()->set_step(14);
    message.mutable_job()->mutable_latest_stats()->set_loss(0.5);
    write(message);
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"advance", "x", "-n", "5"}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("jobs/x PAUSED: stands before step 15; step 14: loss 0.5"));
}

TEST_F(AppTest, WatchShowsInterventions) {
  ServeJob(v1::Job::STATE_SUCCEEDED);
  server_.query_stats = [](const v1::QueryStatsRequest&) {
    v1::QueryStatsResponse response;
    v1::FoldedStats* const bucket = response.add_buckets();
    bucket->set_count(40);
    bucket->set_last_step(39);
    v1::Intervention* const one = bucket->add_interventions();
    one->set_kind(v1::Intervention::KIND_SKIP);
    one->set_step(12);
    one->set_author("ladder");
    one->set_cause("the loss is NaN");
    response.set_newest_step(39);
    return absl::StatusOr<v1::QueryStatsResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"watch", "x"}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("* SKIP at step 12 by ladder: the loss is NaN"));
}

TEST_F(AppTest, PauseSaysWhereItStands) {
  server_.pause_job = [](const v1::PauseJobRequest& request) {
    v1::JobActionResponse response;
    response.mutable_job()->set_name(request.name());
    response.mutable_job()->set_state(v1::Job::STATE_PAUSED);
    response.set_effective_step(12);
    return absl::StatusOr<v1::JobActionResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"pause", "a", "b"}), 0);
  EXPECT_EQ(out_.str(),
            "jobs/a PAUSED: stands before step 12\njobs/b PAUSED: stands before step 12\n");
}

TEST_F(AppTest, CheckFailsWhenATensorDiffers) {
  server_.check_gradients = [](const v1::CheckGradientsRequest&) {
    v1::CheckGradientsResponse response;
    response.add_tensors()->set_name("rnn.weight_hh_l0");
    return absl::StatusOr<v1::CheckGradientsResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"check", "--hidden", "4"}), 1);
  EXPECT_THAT(out_.str(), HasSubstr("DIFFERS"));
}

TEST_F(AppTest, DownloadsIntoAFile) {
  server_.download_model = [](const v1::DownloadModelRequest&, const auto& write) {
    v1::DownloadModelResponse part;
    part.set_size_bytes(6);
    part.set_step(40);
    part.set_chunk("abc");
    write(part);
    part.Clear();
    part.set_chunk("def");
    write(part);
    return absl::OkStatus();
  };
  server_.Start();
  const std::string path = testing::TempDir() + "/downloads_into.safetensors";

  EXPECT_EQ(RunWith({"download", "x", "--output", path}), 0);

  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  EXPECT_EQ(content.str(), "abcdef");
}

TEST_F(AppTest, RefusesATruncatedDownload) {
  server_.download_model = [](const v1::DownloadModelRequest&, const auto& write) {
    v1::DownloadModelResponse part;
    part.set_size_bytes(6);
    part.set_chunk("abc");
    write(part);
    return absl::OkStatus();
  };
  server_.Start();
  const std::string path = testing::TempDir() + "/truncated.safetensors";

  EXPECT_EQ(RunWith({"download", "x", "--output", path}), 1);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(AppTest, GeneratesText) {
  v1::GenerateRequest asked;
  server_.generate = [&asked](const v1::GenerateRequest& request) {
    asked = request;
    v1::GenerateResponse response;
    response.set_text("be or not");
    return absl::StatusOr<v1::GenerateResponse>(response);
  };
  server_.Start();

  EXPECT_EQ(RunWith({"generate", "x", "--prompt", "to ", "--temperature", "0", "--seed", "5"}), 0);
  EXPECT_EQ(out_.str(), "to be or not\n");
  EXPECT_TRUE(asked.has_temperature());
  EXPECT_FALSE(asked.has_characters());
  EXPECT_EQ(asked.seed(), 5u);
}

TEST_F(AppTest, TellsHealth) {
  server_.Start();

  EXPECT_EQ(RunWith({"health"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("is serving"));
}

TEST_F(AppTest, AdviseAsksForWhatTheFlagsSay) {
  ServeJob(v1::Job::STATE_RUNNING);
  v1::GetClipAdviceRequest asked;
  server_.get_clip_advice =
      [&asked](const v1::GetClipAdviceRequest& request) -> absl::StatusOr<v1::ClipAdvice> {
    asked = request;
    v1::ClipAdvice advice;
    advice.set_job(request.name());
    advice.mutable_recommended()->set_max_norm(0.5);
    return advice;
  };
  server_.Start();

  EXPECT_EQ(RunWith({"advise", "x", "--steps", "2000", "--threshold", "0.25", "--threshold", "5"}),
            0);

  EXPECT_EQ(asked.name(), "jobs/x");
  EXPECT_EQ(asked.steps(), 2000);
  EXPECT_EQ(asked.thresholds_size(), 2);
  EXPECT_THAT(out_.str(), HasSubstr("clip the global L2 norm at 0.5"));
  out_.str("");
  EXPECT_EQ(RunWith({"advise", "x", "-o", "json"}), 0);
  EXPECT_FALSE(asked.has_steps());
  EXPECT_EQ(nlohmann::json::parse(out_.str())["recommended"]["max_norm"], 0.5);
}

// Plays the jobs of a sweep: each ends at once with a loss that grows with its threshold.
class SweepAppTest : public AppTest {
 protected:
  void ServeSweep() {
    server_.create_job = [this](const v1::CreateJobRequest& request) -> absl::StatusOr<v1::Job> {
      if (request.validate_only()) {
        ++checked_;
        return request.job();
      }
      if (created_.size() == create_max_) return absl::ResourceExhaustedError("the queue is full");
      v1::Job job = request.job();
      job.set_name("jobs/" + request.job_id());
      job.set_state(v1::Job::STATE_SUCCEEDED);
      const bool clips = job.clipping().policies_size() > 0;
      job.mutable_latest_evaluation()->set_loss(
          clips ? job.clipping().policies(0).global_norm().max_norm() : 9);
      created_.push_back(job);
      return job;
    };
    server_.get_job = [this](const v1::GetJobRequest& request) { return Find(request.name()); };
    server_.query_stats = [](const v1::QueryStatsRequest&) {
      return absl::StatusOr<v1::QueryStatsResponse>(v1::QueryStatsResponse());
    };
    server_.list_alerts = [](const v1::ListAlertsRequest&) {
      return absl::StatusOr<v1::ListAlertsResponse>(v1::ListAlertsResponse());
    };
    server_.watch_job = [this](const v1::WatchJobRequest& request, const auto& write) {
      v1::WatchJobResponse message;
      *message.mutable_job() = *Find(request.name());
      write(message);
      return absl::OkStatus();
    };
  }

  absl::StatusOr<v1::Job> Find(const std::string& name) {
    for (const v1::Job& job : created_) {
      if (job.name() == name) return job;
    }
    return absl::NotFoundError("there is no job " + name);
  }

  size_t create_max_ = 1000;
  int checked_ = 0;
  std::vector<v1::Job> created_;
};

TEST_F(SweepAppTest, SubmitsEveryWayWithEverySeedAndMarksTheBest) {
  ServeSweep();
  server_.Start();

  EXPECT_EQ(RunWith({"sweep", "--hidden", "8", "--clips", "none,5,0.5", "--seeds", "1,2", "--id",
                     "try", "--label", "team=a"}),
            0);

  ASSERT_EQ(created_.size(), 6u);
  EXPECT_EQ(checked_, 3) << "each way once before anything is created";
  EXPECT_EQ(created_[0].name(), "jobs/try-clip-none-seed-1");
  EXPECT_TRUE(created_[0].has_clipping());
  EXPECT_EQ(created_[5].name(), "jobs/try-clip-0-5-seed-2");
  EXPECT_EQ(created_[5].seed(), 2u);
  EXPECT_EQ(created_[5].model().hidden_units(), 8);
  EXPECT_EQ(created_[5].labels().at("sweep"), "try");
  EXPECT_EQ(created_[5].labels().at("team"), "a");
  EXPECT_THAT(out_.str(), HasSubstr("SEED"));
  EXPECT_THAT(out_.str(), HasSubstr("\n*  0.5 "));
  EXPECT_THAT(out_.str(), HasSubstr("Best: clip 0.5, median loss 0.5."));
}

TEST_F(SweepAppTest, JsonNamesTheBest) {
  ServeSweep();
  server_.Start();

  EXPECT_EQ(RunWith({"sweep", "--clips", "1,0.25", "-o", "json"}), 0);

  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["best"], "0.25");
  EXPECT_EQ(json["jobs"].size(), 2u);
}

TEST_F(SweepAppTest, FailsWhenNoRunIsOfUse) {
  ServeSweep();
  server_.get_job = [this](const v1::GetJobRequest& request) -> absl::StatusOr<v1::Job> {
    v1::Job job = *Find(request.name());
    job.set_state(v1::Job::STATE_FAILED);
    return job;
  };
  server_.Start();

  EXPECT_EQ(RunWith({"sweep", "--clips", "1"}), 1);
  EXPECT_THAT(out_.str(), HasSubstr("No run came to an end"));
}

TEST_F(SweepAppTest, SaysWhatWasSubmittedWhenTheServerIsFull) {
  create_max_ = 2;
  ServeSweep();
  server_.Start();

  EXPECT_NE(RunWith({"sweep", "--id", "try", "--clips", "1,2,5"}), 0);

  EXPECT_THAT(err_.str(), HasSubstr("2 of 3 jobs were submitted"));
  EXPECT_THAT(err_.str(), HasSubstr("gradwatch cancel try-clip-1-seed-0 try-clip-2-seed-0"));
}

TEST_F(SweepAppTest, CtrlCLeavesTheJobsAloneAndSaysHowToEndThem) {
  ServeSweep();
  server_.watch_job = [this](const v1::WatchJobRequest& request, const auto& write) {
    v1::WatchJobResponse message;
    *message.mutable_job() = *Find(request.name());
    if (absl::EndsWith(request.name(), "clip-1-seed-0")) {
      write(message);
      return absl::OkStatus();
    }
    environment_.interrupt->Cancel();
    while (write(message)) {
    }
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"sweep", "--id", "try", "--clips", "1,2,5"}), 130);

  EXPECT_THAT(err_.str(), HasSubstr("2 of 3 jobs have not ended and go on"));
  EXPECT_THAT(err_.str(), HasSubstr("gradwatch cancel try-clip-2-seed-0 try-clip-5-seed-0"));
}

TEST_F(SweepAppTest, EndsWithTheTimeout) {
  ServeSweep();
  server_.watch_job = [](const v1::WatchJobRequest&, const auto& write) {
    while (write(v1::WatchJobResponse())) {
    }
    return absl::OkStatus();
  };
  server_.Start();

  EXPECT_EQ(RunWith({"sweep", "--clips", "1", "--timeout", "300ms"}), 6);
  EXPECT_THAT(err_.str(), HasSubstr("1 of 1 jobs have not ended"));
}

TEST_F(SweepAppTest, BadListsAreWrongUsage) {
  ServeSweep();
  server_.Start();

  EXPECT_EQ(RunWith({"sweep", "--clips", "half"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--clips wants norms"));
  EXPECT_EQ(RunWith({"sweep", "--seeds", "4-2"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--seeds wants seeds"));
  EXPECT_EQ(RunWith({"sweep", "--clip", "1"}), 2) << "a sweep has --clips";
  EXPECT_TRUE(created_.empty());
}

}  // namespace
}  // namespace gradwatch::cli
