#include "client/cli/job_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <utility>

#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;

using Given = std::vector<std::pair<std::string, std::string>>;

// The job of these flags, each "--name", value.
absl::StatusOr<v1::Job> JobOf(const Given& given) {
  JobFlags flags;
  const std::vector<Flag> known = FlagsOf(&flags);
  // As the parser does: in the order of the help.
  for (const Flag& flag : known) {
    for (const auto& [name, value] : given) {
      if (flag.names != name) continue;
      if (absl::Status status = flag.set(value); !status.ok()) return status;
    }
  }
  return BuildJob(flags);
}

struct JobCase {
  const char* name;
  Given flags;
  const char* expected;
};

class JobFlagsTest : public testing::TestWithParam<JobCase> {};

TEST_P(JobFlagsTest, MakeTheJob) {
  v1::Job expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(GetParam().expected, &expected));

  const absl::StatusOr<v1::Job> job = JobOf(GetParam().flags);

  ASSERT_EQ(job.status(), absl::OkStatus());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*job, expected))
      << job->DebugString();
}

INSTANTIATE_TEST_SUITE_P(
    Table, JobFlagsTest,
    testing::Values(
        JobCase{"Nothing", {}, ""},
        JobCase{"TaskAndLength",
                {{"--time-steps", "20"}, {"--task", "temporal-order"}},
                "task {temporal_order {time_steps: 20}}"},
        JobCase{
            "LengthOfTheDefaultTask", {{"--time-steps", "20"}}, "task {adding {time_steps: 20}}"},
        JobCase{"Network",
                {{"--cell", "rnn-tanh"}, {"--layers", "2"}, {"--hidden", "-3"}},
                "model {cell: CELL_RNN_TANH layers: 2 hidden_units: -3}"},
        JobCase{"Initial",
                {{"--init-recurrent", "orthogonal:1.1"},
                 {"--init-bias", "constant:0"},
                 {"--forget-bias", "1"}},
                "model {initialization {recurrent_weights {orthogonal_gain: 1.1} "
                "biases {constant: 0} forget_gate_bias: 1}}"},
        JobCase{
            "Sgd",
            {{"--momentum", "0.9"}, {"--optimizer", "sgd"}, {"--nesterov", ""}, {"--lr", "0.1"}},
            "optimizer {learning_rate: 0.1 sgd {momentum: 0.9 nesterov: true}}"},
        JobCase{"Adam", {{"--optimizer", "adam"}}, "optimizer {adam {}}"},
        JobCase{"Warmup", {{"--warmup", "10"}}, "optimizer {warmup_cosine {warmup_steps: 10}}"},
        JobCase{"Clip", {{"--clip", "0.5"}}, "clipping {policies {global_norm {max_norm: 0.5}}}"},
        JobCase{"NoClip", {{"--clip", "none"}}, "clipping {}"},
        JobCase{"ClipOrderOfTheDefault",
                {{"--clip-order", "inf"}},
                "clipping {policies {global_norm {max_norm: 1 order: NORM_ORDER_INF}}}"},
        JobCase{"ClipValueAlone",
                {{"--clip-value", "-1,0.5"}},
                "clipping {policies {value {minimum: -1 maximum: 0.5}}}"},
        JobCase{"ClipValueBothSides",
                {{"--clip-value", "0.5"}},
                "clipping {policies {value {minimum: -0.5 maximum: 0.5}}}"},
        JobCase{"ClipValueOneSide",
                {{"--clip-value", ",0.5"}},
                "clipping {policies {value {maximum: 0.5}}}"},
        JobCase{"ClipAllInOrder",
                {{"--clip", "1"},
                 {"--clip-value", "2"},
                 {"--clip-parameter-norm", "3"},
                 {"--clip-convention", "exact"}},
                "clipping {policies {value {minimum: -2 maximum: 2}} "
                "policies {parameter_norm {max_norm: 3 convention: NORM_CONVENTION_EXACT}} "
                "policies {global_norm {max_norm: 1 convention: NORM_CONVENTION_EXACT}}}"},
        JobCase{
            "Rules",
            {{"--rule", "exploding-abs:threshold=500,for=3"}, {"--rule", "NON_FINITE:disabled"}},
            "rules {id: RULE_ID_EXPLODING_ABS threshold: 500 for_steps: 3} "
            "rules {id: RULE_ID_NON_FINITE disabled: true}"},
        JobCase{
            "RulesMerge",
            {{"--rule", "NON_FINITE:warmup=1"}, {"--rule", "NON_FINITE:resolve=2,cooldown=3"}},
            "rules {id: RULE_ID_NON_FINITE warmup_steps: 1 resolve_steps: 2 cooldown_steps: 3}"},
        JobCase{"RuleWithAWindow",
                {{"--rule", "LOSS_PLATEAU:window=2000"}},
                "rules {id: RULE_ID_LOSS_PLATEAU window_steps: 2000}"},
        JobCase{"RuleWithTwoLimits",
                {{"--rule", "UPDATE_RATIO:second=1e-6,severity=info"}},
                "rules {id: RULE_ID_UPDATE_RATIO second_threshold: 1e-6 severity: SEVERITY_INFO}"},
        JobCase{"CustomRules",
                {{"--custom-rule", "BIG: norm_before > 5 * median for 3"},
                 {"--custom-rule", "SMALL: loss < 0"},
                 {"--custom-rule", "SMALL,severity=crit,warmup=0,cooldown=7: loss < 1"}},
                "custom_rules {name: 'BIG' expression: 'norm_before > 5 * median for 3'} "
                "custom_rules {name: 'SMALL' expression: 'loss < 1' severity: SEVERITY_CRIT "
                "warmup_steps: 0 cooldown_steps: 7}"},
        JobCase{"Rest",
                {{"--seed", "7"},
                 {"--name", "a name"},
                 {"--label", "k=v=w"},
                 {"--stats", "full"},
                 {"--precision", "float64"},
                 {"--truncation", "5"},
                 {"--eval-every", "0"}},
                "seed: 7 display_name: 'a name' labels {key: 'k' value: 'v=w'} "
                "statistics_level: STATISTICS_LEVEL_FULL evaluation {every_steps: 0} "
                "training {precision: PRECISION_FLOAT64 truncation: 5}"},
        JobCase{"Diagnostics",
                {{"--compare-steps", "true"},
                 {"--recurrent-every", "50"},
                 {"--probe-every", "100"},
                 {"--noise-every", "20"},
                 {"--noise-parts", "4"}},
                "diagnostics {compare_steps: true recurrent_every_steps: 50 "
                "probe_every_steps: 100 noise_every_steps: 20 noise_parts: 4}"},
        JobCase{"Text", {{"--text", "book.txt"}}, "task {language {}}"},
        JobCase{"Dataset",
                {{"--task", "language"}, {"--dataset", "book"}},
                "task {language {dataset: 'datasets/book'}}"},
        JobCase{"Csv",
                {{"--csv", "a.csv"}, {"--target", "x"}, {"--target", "y,z"}, {"--input", "u"}},
                "task {forecast {target_columns: 'x' target_columns: 'y,z' input_columns: 'u'}}"}),
    [](const auto& tested) { return std::string(tested.param.name); });

struct BadFlagCase {
  const char* name;
  Given flags;
  const char* message;
};

class BadJobFlagsTest : public testing::TestWithParam<BadFlagCase> {};

TEST_P(BadJobFlagsTest, SayWhatIsWrong) {
  const absl::StatusOr<v1::Job> job = JobOf(GetParam().flags);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(job.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadJobFlagsTest,
    testing::Values(
        BadFlagCase{"UnknownTask", {{"--task", "ading"}}, "did you mean 'adding'?"},
        BadFlagCase{"NotANumber", {{"--hidden", "wide"}}, "must be a whole number"},
        BadFlagCase{"LengthOfCopyMemory",
                    {{"--task", "copy-memory"}, {"--time-steps", "5"}},
                    "its length is --delay"},
        BadFlagCase{"MomentumOfAdam", {{"--momentum", "0.9"}}, "add --optimizer sgd"},
        BadFlagCase{"Initializer", {{"--init-bias", "random"}}, "orthogonal:GAIN"},
        BadFlagCase{"InitializerNumber", {{"--init-bias", "constant:x"}}, "wants a number"},
        BadFlagCase{
            "Rule", {{"--rule", "EXPLODE_ABS:threshold=1"}}, "did you mean 'EXPLODING_ABS'?"},
        BadFlagCase{"RuleSetting", {{"--rule", "NON_FINITE:limit=1"}}, "knows no setting 'limit'"},
        BadFlagCase{
            "RuleNumber", {{"--rule", "NON_FINITE:for=ever"}}, "wants a number in 'for=ever'"},
        BadFlagCase{"RuleSeverity",
                    {{"--rule", "NON_FINITE:severity=bad"}},
                    "knows no severity 'bad': there are info, warn and crit"},
        BadFlagCase{"RuleCustom", {{"--rule", "CUSTOM:for=3"}}, "knows no rule 'CUSTOM'"},
        BadFlagCase{"CustomRule", {{"--custom-rule", "loss > 1"}}, "wants NAME: EXPRESSION"},
        BadFlagCase{"CustomRuleSetting",
                    {{"--custom-rule", "A,for=3: loss > 1"}},
                    "knows no setting 'for'"},
        BadFlagCase{"CustomRuleNumber",
                    {{"--custom-rule", "A,warmup=x: loss > 1"}},
                    "wants a number in 'warmup=x'"},
        BadFlagCase{"Label", {{"--label", "k"}}, "wants KEY=VALUE"},
        BadFlagCase{"ClipNumber", {{"--clip", "some"}}, "--clip wants a number, not 'some'"},
        BadFlagCase{"ClipValues", {{"--clip-value", "1,2,3"}}, "wants MIN,MAX"},
        BadFlagCase{"TargetWithoutForecast", {{"--target", "x"}}, "add --csv FILE"},
        BadFlagCase{"TextForAnotherTask",
                    {{"--text", "a.txt"}, {"--task", "adding"}},
                    "--text makes the task language"},
        BadFlagCase{"TwoSources", {{"--text", "a.txt"}, {"--dataset", "a"}}, "give one"},
        BadFlagCase{"DatasetOfAdding", {{"--dataset", "a"}}, "not for the task adding"},
        BadFlagCase{"MissingFile", {{"--file", "/nowhere.yaml"}}, "/nowhere.yaml"}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(JobFilesTest, FlagsWinOverTheFile) {
  const std::string path = testing::TempDir() + "/flags_win.yaml";
  std::ofstream(path) << "task: {language: {time_steps: 30, held_out_share: 0.2}}\n"
                         "clipping: {policies: []}\nlabels: {a: x}\nmodel: {hidden_units: 9}\n";

  const absl::StatusOr<v1::Job> job = JobOf({{"--file", path},
                                             {"--text", "book.txt"},
                                             {"--clip", "2"},
                                             {"--label", "b=y"},
                                             {"--time-steps", "40"}});

  ASSERT_EQ(job.status(), absl::OkStatus());
  EXPECT_EQ(job->task().language().time_steps(), 40);
  EXPECT_EQ(job->task().language().held_out_share(), 0.2);
  EXPECT_EQ(job->clipping().policies(0).global_norm().max_norm(), 2);
  EXPECT_EQ(job->labels().size(), 2u);
  EXPECT_EQ(job->model().hidden_units(), 9);
}

TEST(JobFilesTest, AnotherTaskReplacesThatOfTheFile) {
  const std::string path = testing::TempDir() + "/another_task.yaml";
  std::ofstream(path) << "task: {adding: {time_steps: 30}}\n";

  const absl::StatusOr<v1::Job> job = JobOf({{"--file", path}, {"--task", "mackey-glass"}});

  ASSERT_EQ(job.status(), absl::OkStatus());
  EXPECT_TRUE(job->task().has_mackey_glass());
}

TEST(ParsePoliciesTest, ReadsNormsAndOtherKinds) {
  const auto policies = ParsePolicies("0.25,l2:5,l1:3,inf:0.1,parameter:1,value:0.2");

  ASSERT_TRUE(policies.ok()) << policies.status();
  ASSERT_EQ(policies->size(), 6u);
  EXPECT_EQ((*policies)[0].global_norm().max_norm(), 0.25);
  EXPECT_EQ((*policies)[1].global_norm().max_norm(), 5);
  EXPECT_EQ((*policies)[2].global_norm().order(), v1::NORM_ORDER_L1);
  EXPECT_EQ((*policies)[3].global_norm().order(), v1::NORM_ORDER_INF);
  EXPECT_EQ((*policies)[4].parameter_norm().max_norm(), 1);
  EXPECT_EQ((*policies)[5].value().minimum(), -0.2);
  EXPECT_EQ((*policies)[5].value().maximum(), 0.2);
}

TEST(ParsePoliciesTest, SaysWhatIsWantedInstead) {
  for (const char* text : {"", "0.5,", "half", "l3:1", "value:", "value:x"}) {
    const absl::Status status = ParsePolicies(text).status();

    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("wants norms")) << text;
  }
}

}  // namespace
}  // namespace gradwatch::cli
