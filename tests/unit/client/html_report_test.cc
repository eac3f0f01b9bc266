#include "client/cli/html_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <regex>
#include <set>

#include "tests/unit/client/example_run.h"

namespace gradwatch::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHostile[] = "</title></svg><script>alert(1)</script>\" onload='x' &amp; \x01";

TEST(HtmlReportTest, TellsAllParts) {
  std::vector<ExampleStep> steps(50);
  for (ExampleStep& step : steps) step.lags = 20;
  steps[20].clipped = true;
  RunFacts run = ExampleRun(steps);
  run.summary.alerts = {ExampleAlert(12, "the norm passed 1000")};

  const std::string html = HtmlReport(run);

  for (const char* part :
       {"Course of the run", "The gradient through time", "Clipping", "Alerts", "Result",
        "What ran", "Where it comes from", "Job file", "keeps its size", "training step and lag",
        "Growth factor", "Horizon", "Clip rate", "Distribution of the norm", "EXPLODING_ABS",
        "the norm passed 1000", "clip at 1", "9.9.9 (commit 0123456789ab", "p99"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
}

TEST(HtmlReportTest, ShowsTheAdviceAndTheShadowClips) {
  RunFacts run = MeasuredRun();
  run.advice = ExampleAdvice();

  const std::string html = HtmlReport(run);

  for (const char* part :
       {"Advice on the threshold", ">advised 0.2</text>", ">or 2</text>", ">clip 0.5</text>",
        "limit advised", "the advice comes from steps 0 to 199.",
        "<td>norm 0.2</td><td>advised</td><td>87.5 %</td><td>0.4</td>", "Shadow clips",
        "<td>1: norm 0.25</td><td>100 %</td><td>0.25</td>", ">shadow 2</text>",
        "shadow 2: value ..0.1"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
}

TEST(HtmlReportTest, LeavesOutWhatWasNotMeasured) {
  const std::string html = HtmlReport(ExampleRun(std::vector<ExampleStep>(50)));

  EXPECT_THAT(html, AllOf(Not(HasSubstr("Advice on")), Not(HasSubstr("Shadow clips")),
                          Not(HasSubstr("Closer look"))));
}

TEST(HtmlReportTest, LooksCloserWhereMoreWasMeasured) {
  const std::string html = HtmlReport(MeasuredRun());

  size_t at = 0;
  for (const char* title :
       {"Closer look</h2>", "Gradient by gate</h3>", "How open the gates are</h3>",
        "Memory of the units</h3>", "Slope of the activation</h3>", "Similarity of the states</h3>",
        "Direction of successive gradients</h3>", "Way gone by the weights</h3>",
        "Recurrent matrices</h3>", "Gradient from the last time step alone, by lag</h3>",
        "Loss by length of the sequences</h3>", "Noise scale</h3>", "Alerts</h2>"}) {
    const size_t found = html.find(title, at);
    ASSERT_NE(found, std::string::npos) << title;
    at = found;
  }
}

TEST(HtmlReportTest, TellsWhatChangedTheRun) {
  RunFacts run = ExampleRun(std::vector<ExampleStep>(50));
  v1::Intervention& edit = *run.summary.history.mutable_buckets(3)->add_interventions();
  edit.set_kind(v1::Intervention::KIND_EDIT);
  edit.set_step(1234);
  edit.set_author("ann");
  v1::SettingChange& change = *edit.add_changes();
  change.set_path("optimizer.learning_rate");
  change.set_old_value("0.01");
  change.set_new_value("0.005");

  const std::string html = HtmlReport(run);

  EXPECT_THAT(html, AllOf(HasSubstr("Interventions"), HasSubstr("EDIT, by ann"),
                          HasSubstr("optimizer.learning_rate: 0.01 -&gt; 0.005"),
                          HasSubstr("crisp changed"), HasSubstr(">changed<")));
}

TEST(HtmlReportTest, IsOneFileThatAsksForNothing) {
  const std::string html = HtmlReport(ExampleRun(std::vector<ExampleStep>(20)));

  EXPECT_FALSE(std::regex_search(html, std::regex("https?:|src=|href=|url\\(|@import|<script")));
}

TEST(HtmlReportTest, ShowsHostileTextAsText) {
  RunFacts run = ExampleRun(std::vector<ExampleStep>(5));
  v1::Job& job = run.summary.job;
  job.set_display_name(kHostile);
  (*job.mutable_labels())["x"] = kHostile;
  job.mutable_failure()->set_message(kHostile);
  job.add_parameters()->set_name(kHostile);
  job.set_server_build(kHostile);
  run.summary.alerts = {ExampleAlert(2, kHostile)};
  run.summary.alerts[0].set_tensor(kHostile);
  run.summary.alerts[0].set_advice(kHostile);
  run.summary.alerts[0].set_rule_name(kHostile);

  const std::string html = HtmlReport(run);

  EXPECT_THAT(html, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("onload='")),
                          Not(HasSubstr("\x01")), HasSubstr("&lt;script&gt;")));
}

// Every element that is opened is closed in turn.
void ExpectBalanced(const std::string& html) {
  static const std::set<std::string> kAlone = {"meta", "!DOCTYPE"};
  const std::regex tag("<(/?)([a-zA-Z!][a-zA-Z0-9]*)[^>]*?(/?)>");
  std::vector<std::string> open;
  for (auto at = std::sregex_iterator(html.begin(), html.end(), tag); at != std::sregex_iterator();
       ++at) {
    const std::string name = (*at)[2];
    if (kAlone.count(name) > 0 || (*at)[3].length() > 0) continue;
    if ((*at)[1].length() == 0) {
      open.push_back(name);
      continue;
    }
    ASSERT_FALSE(open.empty()) << name;
    ASSERT_EQ(open.back(), name);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty());
}

TEST(HtmlReportTest, IsWellFormedWhateverTheRun) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::vector<ExampleStep>> runs = {
      {},
      {{}},
      {{nan, infinity, nan, false, 5}},
      {{0, 0, 0, false, 5}, {0, 0, 0, false, 5}},
      {{1e-300, 1e-300, 1e-3, false, 5}, {1e300, 1e300, 1e3, true, 5}, {nan, nan, nan, false, 5}}};
  for (const auto& steps : runs) {
    RunFacts run = ExampleRun(steps, 100, MeasureEverything);
    run.summary.job.set_display_name(kHostile);
    run.advice = ExampleAdvice();

    const std::string html = HtmlReport(run);

    ExpectBalanced(html);
    EXPECT_FALSE(std::regex_search(html, std::regex("=\"[^\"]*(nan|inf)[ ,\"]")));
  }
}

TEST(HtmlReportTest, StaysSmallForALongRun) {
  std::vector<ExampleStep> steps(20'000);
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i] = {1.0 + std::sin(static_cast<double>(i)), 1.0, 0.9, i % 3 == 0, 100};
  }

  const std::string html = HtmlReport(ExampleRun(steps, 400));

  EXPECT_LT(html.size(), 1'000'000u);
}

TEST(HtmlReportTest, SaysWhyThereIsNoMap) {
  const std::string html = HtmlReport(ExampleRun(std::vector<ExampleStep>(5)));

  EXPECT_THAT(html, HasSubstr("Submit the job again with --stats full"));
  EXPECT_THAT(html, Not(HasSubstr("training step and lag</h3>")));
}

}  // namespace
}  // namespace gradwatch::cli
