#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace gradwatch::metrics {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class StillClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixSeconds(1000); }
};

// A job in its 101st step with a bit of everything.
jobs::JobSnapshot BusyJob(const std::string& id) {
  jobs::JobSnapshot snapshot;
  v1::Job& job = snapshot.job;
  job.set_name("jobs/" + id);
  job.set_display_name("a \"busy\"\njob \\o/");
  job.set_state(v1::Job::STATE_RUNNING);
  job.mutable_model()->set_cell(v1::Model::CELL_LSTM);
  job.mutable_optimizer()->mutable_sgd();
  job.mutable_clipping()->add_policies()->mutable_value()->set_maximum(1);
  job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(0.5);
  auto* own = job.add_rules();
  own->set_id(v1::RULE_ID_EXPLODING_ABS);
  own->set_threshold(50);
  job.set_step(101);
  job.set_updates_applied(99);
  job.set_clip_rate(0.25);
  v1::StepStats* stats = job.mutable_latest_stats();
  stats->set_loss(1.5);
  stats->set_learning_rate(0.125);
  stats->set_norm_before(4);
  stats->set_norm_after(0.5);
  stats->set_last_finite_norm(4);
  stats->mutable_growth()->set_growth_factor(0.75);
  stats->mutable_growth()->set_horizon(3.5);
  stats->set_update_ratio(0.03125);
  stats->set_gradient_cosine(-0.5);
  stats->set_distance_ratio(0.25);
  snapshot.loss = {100, 200.0, {{1.25, 2.5}}};
  snapshot.norm_before = {100, 300.0, {{3, 9}}};
  snapshot.norm_after = {99, 50.0, {{0.25, 0.5}}};
  snapshot.growth_factor = {100, 80.0, {{0.5, 1.125}}};
  snapshot.update_ratio = {99, 2.0, {{0.0625, 0.125}}};
  snapshot.gradient_cosine = {98, -9.0, {{-0.75, 0.5}}};
  snapshot.noise_scale = 48.5;
  snapshot.clipped_steps = 25;
  snapshot.nonfinite_entries = 7;
  snapshot.last_step_time = absl::FromUnixMillis(999'500);
  auto& alert = snapshot.alerts.emplace_back();
  alert.set_rule_name("EXPLODING_ABS");
  alert.set_severity(v1::SEVERITY_CRIT);
  alert.set_state(v1::Alert::STATE_FIRING);
  snapshot.alerts_total.push_back({"EXPLODING_ABS", v1::SEVERITY_CRIT, 3});
  job.mutable_ladder();
  snapshot.interventions_total = {{v1::Intervention::KIND_EDIT, 4},
                                  {v1::Intervention::KIND_SKIP, 2}};
  return snapshot;
}

jobs::JobSnapshot QueuedJob(const std::string& id) {
  jobs::JobSnapshot snapshot;
  snapshot.job.set_name("jobs/" + id);
  snapshot.job.set_state(v1::Job::STATE_QUEUED);
  snapshot.job.mutable_clipping();
  return snapshot;
}

std::vector<v1::Rule> Catalogue() {
  v1::Rule non_finite, exploding;
  non_finite.set_id(v1::RULE_ID_NON_FINITE);
  non_finite.set_name("NON_FINITE");
  exploding.set_id(v1::RULE_ID_EXPLODING_ABS);
  exploding.set_name("EXPLODING_ABS");
  exploding.mutable_defaults()->set_threshold(1000);
  return {non_finite, exploding};
}

class MetricsTest : public ::testing::Test {
 protected:
  std::vector<std::string> Lines() {
    return absl::StrSplit(metrics_.Render(), '\n', absl::SkipEmpty());
  }
  static MetricsOptions Options() {
    MetricsOptions options;
    options.version = "1.2.3";
    options.revision = "abc";
    options.jobs_max = 3;
    options.series_max = 60;
    return options;
  }

  StillClock clock_;
  JobsView view_;
  Metrics metrics_{Options(), Catalogue(), [this] { return view_; }, &clock_};
};

TEST_F(MetricsTest, ExportsZerosFromTheStart) {
  metrics_.Method("gradwatch.v1.JobService", "GetJob", "unary");

  const auto lines = Lines();

  EXPECT_THAT(lines, Contains("gradwatch_build_info{revision=\"abc\",version=\"1.2.3\"} 1"));
  for (const char* state : {"QUEUED", "RUNNING", "PAUSING", "PAUSED", "CANCELLING", "SUCCEEDED",
                            "FAILED", "CANCELLED"}) {
    EXPECT_THAT(lines, Contains(absl::StrCat("gradwatch_jobs{state=\"", state, "\"} 0")));
  }
  EXPECT_THAT(lines, Contains("gradwatch_alerts_firing{severity=\"CRIT\"} 0"));
  EXPECT_THAT(lines, Contains("gradwatch_stream_subscribers 0"));
  EXPECT_THAT(lines, Contains("gradwatch_stream_events_dropped_total{reason=\"slow_reader\"} 0"));
  EXPECT_THAT(lines, Contains("gradwatch_exporter_series_dropped 0"));
  EXPECT_THAT(lines, Contains(AllOf(StartsWith("grpc_server_handled_total{"),
                                    HasSubstr("grpc_code=\"OK\""), HasSubstr("} 0"))));
  EXPECT_THAT(lines, Contains("gradwatch_step_duration_seconds_bucket{le=\"+Inf\"} 0"));
}

TEST_F(MetricsTest, ShowsEverySeriesOfAJob) {
  view_.snapshots = {BusyJob("busy")};
  view_.count_by_state = {0, 0, 1};

  const auto lines = Lines();

  for (const char* line : {
           "gradwatch_jobs{state=\"RUNNING\"} 1",
           "gradwatch_job_info{job_id=\"busy\",job_name=\"a \\\"busy\\\"\\njob "
           "\\\\o/\","
           "cell=\"lstm\",optimizer=\"sgd\",clip_mode=\"value+global_norm\"} 1",
           "gradwatch_job_state{job_id=\"busy\",state=\"RUNNING\"} 1",
           "gradwatch_job_steps_total{job_id=\"busy\"} 101",
           "gradwatch_job_skipped_steps_total{job_id=\"busy\"} 2",
           "gradwatch_job_loss{job_id=\"busy\"} 1.5",
           "gradwatch_job_learning_rate{job_id=\"busy\"} 0.125",
           "gradwatch_job_last_step_timestamp_seconds{job_id=\"busy\"} 999.5",
           "gradwatch_gradient_norm{job_id=\"busy\",point=\"pre_clip\"} 4",
           "gradwatch_gradient_norm{job_id=\"busy\",point=\"post_clip\"} 0.5",
           "gradwatch_job_loss_min{job_id=\"busy\"} 1.25",
           "gradwatch_job_loss_max{job_id=\"busy\"} 2.5",
           "gradwatch_job_loss_steps_sum{job_id=\"busy\"} 200",
           "gradwatch_job_loss_steps_count{job_id=\"busy\"} 100",
           "gradwatch_gradient_norm_min{job_id=\"busy\",point=\"pre_clip\"} 3",
           "gradwatch_gradient_norm_max{job_id=\"busy\",point=\"pre_clip\"} 9",
           "gradwatch_gradient_norm_steps_sum{job_id=\"busy\",point=\"pre_clip\"} 300",
           "gradwatch_gradient_norm_steps_count{job_id=\"busy\",point=\"pre_clip\"} 100",
           "gradwatch_gradient_norm_max{job_id=\"busy\",point=\"post_clip\"} 0.5",
           "gradwatch_gradient_norm_steps_count{job_id=\"busy\",point=\"post_clip\"} 99",
           "gradwatch_gradient_growth_factor_min{job_id=\"busy\"} 0.5",
           "gradwatch_gradient_growth_factor_max{job_id=\"busy\"} 1.125",
           "gradwatch_gradient_growth_factor_steps_sum{job_id=\"busy\"} 80",
           "gradwatch_weight_update_ratio{job_id=\"busy\"} 0.03125",
           "gradwatch_weight_update_ratio_max{job_id=\"busy\"} 0.125",
           "gradwatch_weight_update_ratio_steps_count{job_id=\"busy\"} 99",
           "gradwatch_gradient_cosine{job_id=\"busy\"} -0.5",
           "gradwatch_gradient_cosine_min{job_id=\"busy\"} -0.75",
           "gradwatch_gradient_cosine_max{job_id=\"busy\"} 0.5",
           "gradwatch_gradient_noise_scale_rows{job_id=\"busy\"} 48.5",
           "gradwatch_weight_distance_ratio{job_id=\"busy\"} 0.25",
           "gradwatch_gradient_last_finite_norm{job_id=\"busy\"} 4",
           "gradwatch_gradient_clip_ratio{job_id=\"busy\"} 0.25",
           "gradwatch_gradient_clipped_steps_total{job_id=\"busy\"} 25",
           "gradwatch_gradient_nonfinite_total{job_id=\"busy\"} 7",
           "gradwatch_gradient_growth_factor{job_id=\"busy\"} 0.75",
           "gradwatch_gradient_horizon_time_steps{job_id=\"busy\"} 3.5",
           "gradwatch_alert_threshold{job_id=\"busy\",rule=\"EXPLODING_ABS\"} "
           "50",
           "gradwatch_clip_threshold{job_id=\"busy\"} 0.5",
           "gradwatch_job_alerts_total{job_id=\"busy\",rule=\"EXPLODING_ABS\","
           "severity=\"CRIT\"} 3",
           "gradwatch_job_alerts_firing{job_id=\"busy\",rule=\"EXPLODING_ABS\","
           "severity=\"CRIT\"} 1",
           "gradwatch_alerts_firing{severity=\"CRIT\"} 1",
           "gradwatch_job_interventions_total{job_id=\"busy\",kind=\"edit\"} 4",
           "gradwatch_job_interventions_total{job_id=\"busy\",kind=\"skip\"} 2",
           "gradwatch_job_interventions_total{job_id=\"busy\",kind=\"roll_back\"} 0",
           "gradwatch_exporter_series 51",
       }) {
    EXPECT_THAT(lines, Contains(line));
  }
}

TEST_F(MetricsTest, NonFiniteValuesAreShownAndCountedApart) {
  view_.snapshots = {BusyJob("nan")};
  auto* stats = view_.snapshots[0].job.mutable_latest_stats();
  stats->set_loss(std::nan(""));
  stats->set_norm_before(std::numeric_limits<double>::infinity());
  stats->clear_norm_after();

  const auto lines = Lines();

  EXPECT_THAT(lines, Contains("gradwatch_job_loss{job_id=\"nan\"} Nan"));
  EXPECT_THAT(lines, Contains("gradwatch_gradient_norm{job_id=\"nan\",point=\"pre_clip\"} +Inf"));
  EXPECT_THAT(
      lines,
      Not(Contains(StartsWith("gradwatch_gradient_norm{job_id=\"nan\",point=\"post_clip\"}"))));
  EXPECT_THAT(lines, Contains("gradwatch_gradient_last_finite_norm{job_id=\"nan\"} 4"));
}

TEST_F(MetricsTest, JobBeforeItsFirstStepHasNoStepSeries) {
  view_.snapshots = {QueuedJob("new")};

  const auto lines = Lines();

  EXPECT_THAT(lines, Contains("gradwatch_job_steps_total{job_id=\"new\"} 0"));
  EXPECT_THAT(lines, Contains(HasSubstr("clip_mode=\"none\"")));
  EXPECT_THAT(lines, Contains("gradwatch_alert_threshold{job_id=\"new\",rule=\"EXPLODING_ABS\"} "
                              "1000"));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("gradwatch_job_loss"))));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("gradwatch_gradient_norm"))));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("gradwatch_clip_threshold"))));
}

TEST_F(MetricsTest, DisabledRuleHasNoThreshold) {
  view_.snapshots = {BusyJob("quiet")};
  view_.snapshots[0].job.mutable_rules(0)->set_disabled(true);

  EXPECT_THAT(Lines(), Not(Contains(StartsWith("gradwatch_alert_threshold{"))));
}

TEST_F(MetricsTest, ResolvedAlertStaysAsZero) {
  view_.snapshots = {BusyJob("calm")};
  view_.snapshots[0].alerts[0].set_state(v1::Alert::STATE_RESOLVED);

  EXPECT_THAT(Lines(), Contains("gradwatch_job_alerts_firing{job_id=\"calm\",rule="
                                "\"EXPLODING_ABS\",severity=\"CRIT\"} 0"));
}

TEST_F(MetricsTest, JobsBeyondTheBoundAreLeftOutAndCounted) {
  for (const char* id : {"a", "b", "c", "d", "e"}) view_.snapshots.push_back(QueuedJob(id));

  const auto lines = Lines();

  // A queued job has 8 series: info, state, five counters, one threshold.
  EXPECT_THAT(lines, Contains("gradwatch_exporter_series 24"));
  EXPECT_THAT(lines, Contains("gradwatch_exporter_series_dropped 16"));
  EXPECT_THAT(lines, Contains(HasSubstr("job_id=\"c\"")));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("job_id=\"d\""))));
}

TEST_F(MetricsTest, SeriesBeyondTheHardCapAreLeftOutByWholeJobs) {
  view_.snapshots = {BusyJob("a"), BusyJob("b"), BusyJob("c")};

  const auto lines = Lines();

  EXPECT_THAT(lines, Contains("gradwatch_exporter_series 51"));
  EXPECT_EQ(
      std::count_if(lines.begin(), lines.end(),
                    [](const std::string& line) { return absl::StrContains(line, "job_id="); }),
      51);
  EXPECT_THAT(lines, Contains("gradwatch_exporter_series_dropped 102"));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("job_id=\"c\""))));
}

TEST_F(MetricsTest, EndedJobVanishesWithItsSnapshot) {
  view_.snapshots = {BusyJob("gone")};
  EXPECT_THAT(Lines(), Contains(HasSubstr("job_id=\"gone\"")));

  view_.snapshots.clear();

  EXPECT_THAT(Lines(), Not(Contains(HasSubstr("job_id=\"gone\""))));
}

TEST_F(MetricsTest, HistogramIsCumulative) {
  view_.step_duration_bounds = {0.001, 0.01};
  view_.totals.step_duration_counts = {2, 3, 4};
  view_.totals.step_duration_sum_seconds = 1.25;

  const auto lines = Lines();

  EXPECT_THAT(lines, Contains("gradwatch_step_duration_seconds_bucket{le=\"0.001\"} 2"));
  EXPECT_THAT(lines, Contains("gradwatch_step_duration_seconds_bucket{le=\"0.01\"} 5"));
  EXPECT_THAT(lines, Contains("gradwatch_step_duration_seconds_bucket{le=\"+Inf\"} 9"));
  EXPECT_THAT(lines, Contains("gradwatch_step_duration_seconds_count 9"));
  EXPECT_THAT(lines, Contains("gradwatch_step_duration_seconds_sum 1.25"));
}

TEST_F(MetricsTest, CountsCallsByCodeAndStreamEvents) {
  RpcMethod* const method = metrics_.Method("s", "m", "unary");
  EXPECT_EQ(metrics_.Method("s", "m", "unary"), method);

  method->Started();
  method->Started();
  method->Handled(0);
  method->Handled(5);
  method->Handled(99);
  metrics_.StreamOpened();
  metrics_.StreamOpened();
  metrics_.StreamClosed();
  metrics_.EventsSent(12);
  metrics_.EventsDropped(3);

  const std::string text = metrics_.Render();
  EXPECT_THAT(text, HasSubstr("grpc_server_started_total{grpc_method=\"m\",grpc_service=\"s\","
                              "grpc_type=\"unary\"} 2"));
  for (const char* code : {"OK", "NotFound", "Unknown"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("{grpc_code=\"", code,
                                             "\",grpc_method=\"m\",grpc_service=\"s\","
                                             "grpc_type=\"unary\"} 1")));
  }
  EXPECT_THAT(text, HasSubstr("gradwatch_stream_subscribers 1\n"));
  EXPECT_THAT(text, HasSubstr("gradwatch_stream_events_sent_total 12\n"));
  EXPECT_THAT(text, HasSubstr("{reason=\"slow_reader\"} 3\n"));
}

TEST_F(MetricsTest, ShowsTheProcess) {
  const std::string text = metrics_.Render();

  for (const char* name :
       {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
        "process_start_time_seconds", "process_max_fds", "process_virtual_memory_bytes"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\n", name, " ")));
  }
}

TEST_F(MetricsTest, PromtoolFindsNothingToComplainAbout) {
  const char* const promtool = std::getenv("GRADWATCH_PROMTOOL");
  const std::string tool = promtool != nullptr ? promtool
                                               : GRADWATCH_SOURCE_DIR
                               "/build/tools/monitoring/usr/bin/promtool";
  if (!std::ifstream(tool)) GTEST_SKIP() << "no promtool at " << tool;
  view_.snapshots = {BusyJob("busy"), QueuedJob("queued")};
  view_.snapshots[1].job.mutable_latest_stats()->set_loss(std::nan(""));
  metrics_.Method("s", "m", "unary")->Handled(0);
  const std::string path = ::testing::TempDir() + "/metrics.txt";
  std::ofstream(path) << metrics_.Render();

  const int code = std::system(absl::StrCat(tool, " check metrics < ", path, " >&2").c_str());

  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace gradwatch::metrics
