#include "client/cli/run_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "tests/unit/client/example_run.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::string ValueOf(const std::vector<Fact>& facts, const std::string& name) {
  for (const Fact& fact : facts) {
    if (fact.name == name) return fact.value;
  }
  return absl::StrCat("there is no '", name, "'");
}

TEST(RunDigestTest, CountsFiniteNormsAndFindsTheLargest) {
  RunDigest digest(0, 3);
  const double infinity = std::numeric_limits<double>::infinity();
  int64_t number = 0;
  for (const double norm : {1.0, 7.0, infinity, 3.0}) {
    v1::StepStats step;
    step.set_step(number++);
    step.set_norm_before(norm);
    digest.Add(step);
  }

  EXPECT_THAT(digest.norms(), SizeIs(3));
  EXPECT_EQ(digest.largest_norm_step(), 1);
  EXPECT_THAT(digest.layers(), IsEmpty());
}

TEST(RunDigestTest, CountsLagsBackFromTheEnd) {
  RunDigest digest(0, 0);
  v1::StepStats step;
  v1::LayerTimeStats* const layer = step.add_layers();
  layer->set_layer(1);
  for (const float norm : {1.f, 2.f, 4.f}) layer->add_state_gradient_norm(norm);

  digest.Add(step);

  ASSERT_THAT(digest.layers(), SizeIs(2));
  EXPECT_TRUE(digest.layers()[0].empty());
  EXPECT_DOUBLE_EQ(digest.layers()[1].at(0, 0).largest, 4);
  EXPECT_DOUBLE_EQ(digest.layers()[1].at(0, 2).largest, 1);
  EXPECT_TRUE(digest.loss_at_every_step());
}

TEST(HorizonTest, IsTheTimeUntilOnePartInEIsLeft) {
  EXPECT_NEAR(HorizonOf(0.9, 50), 9.4912, 1e-4);
  EXPECT_DOUBLE_EQ(HorizonOf(0.999, 50), 50);
  EXPECT_DOUBLE_EQ(HorizonOf(1.0, 50), 50);
  EXPECT_DOUBLE_EQ(HorizonOf(1.2, 50), 50);
  EXPECT_TRUE(std::isnan(HorizonOf(0, 50)));
}

TEST(NormFactsTest, AreExactQuantiles) {
  std::vector<ExampleStep> steps(101);
  for (size_t i = 0; i < steps.size(); ++i) steps[i].norm = static_cast<double>(100 - i);

  const std::vector<Fact> facts = NormFacts(ExampleRun(steps));

  EXPECT_EQ(ValueOf(facts, "p10"), "10");
  EXPECT_EQ(ValueOf(facts, "median"), "50");
  EXPECT_EQ(ValueOf(facts, "p99"), "99");
  EXPECT_EQ(ValueOf(facts, "largest"), "100");
  EXPECT_EQ(ValueOf(facts, "mean"), "50");
  EXPECT_EQ(ValueOf(facts, "p99 / median"), "1.98");
}

TEST(ClipThresholdTest, IsThatOfGlobalL2NormsAlone) {
  v1::Job job;
  EXPECT_THAT(ClipThresholds(job), testing::ElementsAre(1.0));
  job.mutable_clipping();
  EXPECT_THAT(ClipThresholds(job), IsEmpty());
  job.mutable_clipping()->add_policies()->mutable_value()->set_maximum(3);
  job.mutable_clipping()->add_policies()->mutable_global_norm()->set_max_norm(2);
  v1::GlobalNormClip* const other = job.mutable_clipping()->add_policies()->mutable_global_norm();
  other->set_max_norm(9);
  other->set_order(v1::NORM_ORDER_L1);
  EXPECT_THAT(ClipThresholds(job), testing::ElementsAre(2.0));
}

TEST(AdviceFactsTest, NameThresholdReasonRangeAndWarnings) {
  RunFacts run = ExampleRun({{}, {}});
  EXPECT_THAT(AdviceFacts(run), IsEmpty());
  run.advice = ExampleAdvice();

  const std::vector<Fact> facts = AdviceFacts(run);

  EXPECT_EQ(ValueOf(facts, "advice"), "clip the global L2 norm at 0.2 (or 2)");
  EXPECT_THAT(ValueOf(facts, "basis"), HasSubstr("step size"));
  EXPECT_EQ(ValueOf(facts, "reason"), "With SGD the threshold sets the size of most steps.");
  EXPECT_EQ(ValueOf(facts, "from"), "steps 0 to 199");
  EXPECT_THAT(ValueOf(facts, "allowed range"), HasSubstr("0.25 to 5"));
  EXPECT_EQ(ValueOf(facts, "assumed"), "the loss is a mean");
  EXPECT_EQ(ValueOf(facts, "warning"), "only 200 steps");
  EXPECT_THAT(ValueOf(facts, "next"), HasSubstr("--clip 0.2"));
}

TEST(AdviceFactsTest, SayThatThereIsTooLittleData) {
  RunFacts run = ExampleRun({});
  run.advice.emplace();
  run.advice->set_basis(v1::ClipAdvice::BASIS_NO_DATA);
  run.advice->mutable_recommended()->set_max_norm(1);

  const std::vector<Fact> facts = AdviceFacts(run);

  EXPECT_THAT(ValueOf(facts, "basis"), HasSubstr("too little data: fewer than 100 steps"));
  EXPECT_THAT(ValueOf(facts, "from"), HasSubstr("there is no"));
}

TEST(ShadowRowsTest, StandBesideTheJobsOwnClipping) {
  RunFacts run = ExampleRun(std::vector<ExampleStep>(4), 100, [](v1::StepStats* step) {
    step->set_clip_coefficient(step->step() < 2 ? 0.5 : 1);
  });
  EXPECT_THAT(ShadowRows(run), IsEmpty());
  run.summary.job.add_shadow_clips()->mutable_value()->set_maximum(0.1);
  run.summary.job.add_shadow_summaries()->set_clip_rate(0.25);
  run.summary.job.set_clip_rate(0.5);

  const std::vector<std::vector<std::string>> rows = ShadowRows(run);
  run.summary.history.set_oldest_step(1);

  EXPECT_THAT(rows,
              testing::ElementsAre(testing::ElementsAre("norm 0.5, the job's own", "50 %", "0.75"),
                                   testing::ElementsAre("1: value ..0.1", "25 %", "–")));
  EXPECT_EQ(ShadowRows(run)[0][2], "0.75 in the recorded steps");
}

TEST(HeatMapAbsenceTest, SaysHowToGetOne) {
  std::vector<ExampleStep> steps(3);
  const std::string absence = HeatMapAbsence(ExampleRun(steps));
  for (ExampleStep& step : steps) step.lags = 4;

  EXPECT_THAT(absence, HasSubstr("level basic"));
  EXPECT_THAT(absence, HasSubstr("--stats full"));
  EXPECT_EQ(HeatMapAbsence(ExampleRun(steps)), "");
}

TEST(SourceFactsTest, NameServerBuildAndData) {
  RunFacts run = ExampleRun({{}, {}});
  const std::vector<Fact> generated = SourceFacts(run);
  run.dataset.emplace();
  run.dataset->set_name("datasets/book");
  run.dataset->set_sha256("abc123");

  const std::vector<Fact> uploaded = SourceFacts(run);

  EXPECT_EQ(ValueOf(generated, "server build"), "9.9.9 (commit 0123456789ab, engine x86-64-v3)");
  EXPECT_EQ(ValueOf(generated, "data"), "generated from the seed");
  EXPECT_THAT(ValueOf(uploaded, "data"), HasSubstr("datasets/book"));
  EXPECT_EQ(ValueOf(uploaded, "SHA-256 of the data"), "abc123");
  EXPECT_EQ(ValueOf(generated, "recorded steps"), "0 to 1");
}

TEST(JobFileTest, HasTheSettingsAndNothingElse) {
  RunFacts run = ExampleRun({{}, {}});

  v1::Job job;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(JobFileOf(run.summary.job), &job).ok());

  EXPECT_EQ(job.seed(), 42u);
  EXPECT_EQ(job.task().temporal_order().time_steps(), 50);
  EXPECT_EQ(job.clipping().policies(0).global_norm().max_norm(), 0.5);
  EXPECT_THAT(JobFileOf(run.summary.job), Not(HasSubstr("state")));
  // Every field that the server fills in is marked "Output only." in job.proto, 20 and up.
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  job.GetReflection()->ListFields(job, &fields);
  for (const auto* field : fields) {
    EXPECT_LT(field->number(), 20) << field->name();
    EXPECT_GT(field->number(), 2) << field->name();
  }
}

}  // namespace
}  // namespace gradwatch::cli
