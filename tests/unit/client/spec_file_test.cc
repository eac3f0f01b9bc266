#include "proto/support/spec_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/message_differencer.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats_service.pb.h"
#include "proto/support/errors.h"

namespace gradwatch {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

std::string Repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

struct GoodCase {
  const char* name;
  const char* text;
  const char* expected;  // Text format of a Job.
};

class GoodSpecTest : public testing::TestWithParam<GoodCase> {};

TEST_P(GoodSpecTest, IsRead) {
  v1::Job expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(GetParam().expected, &expected));

  v1::Job job;
  const absl::Status status = ParseSpec(GetParam().text, &job);

  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_TRUE(MessageDifferencer::Equals(job, expected)) << job.DebugString();
}

INSTANTIATE_TEST_SUITE_P(
    SpecFile, GoodSpecTest,
    testing::Values(
        GoodCase{"EmptyMap", "{}", ""},
        GoodCase{"EnumByFullName", "model: {cell: CELL_RNN_TANH}", "model {cell: CELL_RNN_TANH}"},
        GoodCase{"EnumByShortName", "model: {cell: GRU}", "model {cell: CELL_GRU}"},
        GoodCase{"EnumInSmallLetters", "model: {cell: lstm}", "model {cell: CELL_LSTM}"},
        GoodCase{"EnumWithDashes", "model: {cell: rnn-sigmoid}", "model {cell: CELL_RNN_SIGMOID}"},
        GoodCase{"EnumByNumber", "model: {cell: 4}", "model {cell: CELL_GRU}"},
        GoodCase{"UnspecifiedEnumOfACopy", "model: {cell: CELL_UNSPECIFIED}", "model {}"},
        GoodCase{"Numbers",
                 "training: {step_limit: 1e6, batch_size: 20}\nseed: 18446744073709551615",
                 "training {step_limit: 1000000 batch_size: 20} seed: 18446744073709551615"},
        GoodCase{"QuotedNumbersAsProtoJson",
                 R"({"seed": "7", "optimizer": {"learning_rate": "0.5"}})",
                 "seed: 7 optimizer {learning_rate: 0.5}"},
        GoodCase{"CamelCaseAsProtoJson",
                 R"({"displayName": "x", "statisticsLevel": "STATISTICS_LEVEL_FULL"})",
                 "display_name: 'x' statistics_level: STATISTICS_LEVEL_FULL"},
        GoodCase{"Infinity", "rules: [{id: EXPLODING_ABS, threshold: Infinity}]",
                 "rules {id: RULE_ID_EXPLODING_ABS threshold: inf}"},
        GoodCase{"Booleans", "training: {non_finite: {skip: false}}",
                 "training {non_finite {skip: false}}"},
        GoodCase{"MapsAndScalarsAsText", "labels: {clip: 0.5, on: true, quoted: \"a b\"}",
                 "labels {key: 'clip' value: '0.5'} labels {key: 'on' value: 'true'} "
                 "labels {key: 'quoted' value: 'a b'}"},
        GoodCase{"PresentAndEmpty", "clipping: {policies: []}\noptimizer: {adam: {}}",
                 "clipping {} optimizer {adam {}}"},
        GoodCase{"ListOfMessages",
                 "clipping:\n  policies:\n    - value: {minimum: -1, maximum: 1}\n"
                 "    - global_norm: {max_norm: 0.5, order: inf}\n",
                 "clipping {policies {value {minimum: -1 maximum: 1}} "
                 "policies {global_norm {max_norm: 0.5 order: NORM_ORDER_INF}}}"},
        GoodCase{"ListOfStrings", "task: {forecast: {target_columns: [a, 'b c']}}",
                 "task {forecast {target_columns: 'a' target_columns: 'b c'}}"},
        GoodCase{"NullScalarIsAbsent", "display_name: ~\nseed: null", ""},
        GoodCase{"Timestamp", "create_time: '2026-01-31T12:00:00Z'",
                 "create_time {seconds: 1769860800}"},
        GoodCase{"Aliases",
                 "model: {initialization: {input_weights: &w {normal_deviation: 0.1}, "
                 "readout_weights: *w}}",
                 "model {initialization {input_weights {normal_deviation: 0.1} "
                 "readout_weights {normal_deviation: 0.1}}}"},
        GoodCase{"CommentsAndUnicode", "# a job\ndisplay_name: Überlänge → 50  # end\n",
                 "display_name: 'Überlänge → 50'"}),
    [](const auto& tested) { return std::string(tested.param.name); });

struct BadCase {
  const char* name;
  const char* text;
  const char* field;
  const char* description;  // A part of it.
};

class BadSpecTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadSpecTest, IsRefusedWithFieldAndLine) {
  v1::Job job;
  const absl::Status status = ParseSpec(GetParam().text, &job);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const auto violations = FieldViolationsOf(status);
  ASSERT_EQ(violations.size(), 1u) << status;
  EXPECT_EQ(violations[0].field, GetParam().field);
  EXPECT_THAT(violations[0].description, HasSubstr(GetParam().description));
}

INSTANTIATE_TEST_SUITE_P(
    SpecFile, BadSpecTest,
    testing::Values(
        BadCase{"UnknownKey", "model:\n  hiden_units: 4\n", "model.hiden_units",
                "line 2: unknown key 'hiden_units'; did you mean 'hidden_units'?"},
        BadCase{"UnknownKeyFarFromAll", "model: {qqq: 1}", "model.qqq", "known are cell, layers"},
        BadCase{"MapWanted", "model: 5", "model", "line 1: must be a map of settings, is '5'"},
        BadCase{"ListWanted", "rules: {id: 1}", "rules", "line 1: must be a list, is a map"},
        BadCase{"ScalarWanted", "seed: [1]", "seed", "line 1: must be a single value, is a list"},
        BadCase{"WholeNumberWanted", "\ntraining: {batch_size: 1.5}", "training.batch_size",
                "line 2: must be a whole number of 32 bits, is '1.5'"},
        BadCase{"WordForANumber", "seed: many", "seed", "not negative, is 'many'"},
        BadCase{"NegativeSeed", "seed: -1", "seed", "not negative, is '-1'"},
        BadCase{"TooLargeFor32Bits", "model: {layers: 3000000000}", "model.layers", "32 bits"},
        BadCase{"TooLargeForDouble", "optimizer: {learning_rate: 1e999}", "optimizer.learning_rate",
                "must be a number, is '1e999'"},
        BadCase{"YesIsNoBoolean", "training: {non_finite: {skip: yes}}", "training.non_finite.skip",
                "must be true or false, is 'yes'"},
        BadCase{"QuotedBoolean", "training: {non_finite: {skip: 'true'}}",
                "training.non_finite.skip", "must be true or false"},
        BadCase{
            "UnknownEnum", "model: {cell: LSMT}", "model.cell",
            "must be one of RNN_TANH, RNN_RELU, RNN_SIGMOID, GRU, LSTM, is 'LSMT'; did you mean "
            "'LSTM'?"},
        BadCase{"UnspecifiedByShortName", "model: {cell: unspecified}", "model.cell",
                "must be one of"},
        BadCase{"TwoOfAOneof", "task:\n  adding: {}\n  copy_memory: {}\n", "task.copy_memory",
                "line 3: only one of 'adding' (line 2) and 'copy_memory' may be set"},
        BadCase{"TwiceTheSameKey", "seed: 1\nseed: 2\n", "seed",
                "line 2: is set twice, first in line 1"},
        BadCase{"TwiceInBothSpellings", "display_name: a\ndisplayName: b\n", "display_name",
                "set twice"},
        BadCase{"TwiceTheSameLabel", "labels: {a: 1, a: 2}", "labels['a']", "set twice"},
        BadCase{"EmptyMessage", "clipping:\n", "clipping", "has no value"},
        BadCase{"MergeKey", "model: {<<: {layers: 1}}", "model.<<", "unknown key '<<'"},
        BadCase{"KeyThatIsAList", "[1]: 2", "", "a key must be a name"},
        BadCase{"Empty", "", "", "the file has no settings"},
        BadCase{"OnlyAComment", "# nothing\n", "", "the file has no settings"},
        BadCase{"TwoDocuments", "seed: 1\n---\nseed: 2\n", "",
                "one document is wanted, here are 2"},
        BadCase{"AList", "- seed: 1\n", "", "must be a map of settings, is a list"},
        BadCase{"NotYaml", "a: [1\nb: 2", "", "this is not YAML or JSON"},
        BadCase{"UnknownAlias", "model: *nobody", "", "this is not YAML or JSON"},
        BadCase{"InAList", "clipping: {policies: [{global_norm: {max_norm: x}}]}",
                "clipping.policies[0].global_norm.max_norm", "must be a number, is 'x'"}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(SpecFileTest, NamesEveryProblemAtOnce) {
  v1::Job job;

  const absl::Status status = ParseSpec("seed: x\nmodel: {layers: y, cel: GRU}\n", &job);

  EXPECT_EQ(FieldViolationsOf(status).size(), 3u);
}

TEST(SpecFileTest, BoundsSizeNestingAndAliases) {
  v1::Job job;
  const std::string huge(kSpecFileBytesMax + 1, ' ');
  const std::string deep = Repeat("[", 400'000);
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last +
            Repeat(", " + last, 9) + "]\n";
  }

  EXPECT_EQ(ParseSpec(huge, &job).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ParseSpec(deep, &job).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseSpec(bomb, &job).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SpecFileTest, FollowsAliasesOnlySoFar) {
  // Each list is visited as often as it is named: 10 policies, each with a list of 10, and so on.
  std::string text = "parameters: &p0 [{shape: &s [" + Repeat("1, ", 5000) + "1]}";
  for (int i = 0; i < 100; ++i) text += ", {shape: *s}";
  text += "]\n";
  v1::Job job;

  const absl::Status status = ParseSpec(text, &job);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("values, those of aliases counted"));
}

TEST(SpecFileTest, EndsAnAliasThatHoldsItself) {
  v1::Job job;

  const absl::Status status = ParseSpec("model: &m\n  initialization: *m\n", &job);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(SpecFileTest, ReadsBackWhatProtoJsonWrites) {
  v1::StreamStatsRequest request;
  request.set_name("jobs/x");
  request.set_from_step(9007199254740993);
  request.mutable_min_interval()->set_nanos(500'000'000);
  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(request, &json).ok());

  v1::StreamStatsRequest read;
  const absl::Status status = ParseSpec(json, &read);

  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_TRUE(MessageDifferencer::Equals(read, request)) << json << read.DebugString();
}

TEST(SpecFileTest, ReadsEveryExampleOfTheProject) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(GRADWATCH_SOURCE_DIR) / "deploy" / "examples")) {
    if (entry.path().extension() != ".yaml") continue;
    v1::Job job;
    EXPECT_EQ(ReadSpecFile(entry.path().string(), &job), absl::OkStatus()) << entry.path();
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST(SpecFileTest, SaysWhichFileCannotBeRead) {
  v1::Job job;

  const absl::Status missing = ReadSpecFile("/nowhere/job.yaml", &job);

  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/nowhere/job.yaml"));
}

TEST(SetFieldTest, CreatesMessagesOnTheWay) {
  v1::Job job;

  EXPECT_EQ(SetField("model.cell", "rnn-tanh", &job), absl::OkStatus());
  EXPECT_EQ(SetField("optimizer.learning_rate", "nan", &job), absl::OkStatus());

  EXPECT_EQ(job.model().cell(), v1::Model::CELL_RNN_TANH);
  EXPECT_TRUE(std::isnan(job.optimizer().learning_rate()));
}

TEST(SetFieldTest, NamesTheFieldThatIsWrong) {
  v1::Job job;

  const absl::Status status = SetField("model.layers", "two", &job);

  ASSERT_EQ(FieldViolationsOf(status).size(), 1u);
  EXPECT_EQ(FieldViolationsOf(status)[0].field, "model.layers");
  EXPECT_EQ(FieldViolationsOf(status)[0].description,
            "must be a whole number of 32 bits, is 'two'");
}

}  // namespace
}  // namespace gradwatch
