#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/train/model_tools.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// A model that has read its small text many times.
class GenerateTextTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    made_ = new TestJob(MakeJob(Kind::kLanguage));
    made_->job.mutable_model()->set_hidden_units(32);
    made_->job.mutable_training()->set_step_limit(400);
    const auto trainer = NewTrainer(*made_);
    v1::StepStats record;
    for (int step = 0; step < 400; ++step) trainer->Step(&record);
    checkpoint_ = new v1::Checkpoint(trainer->Save());
  }
  static void TearDownTestSuite() {
    delete made_;
    delete checkpoint_;
  }

  static std::string Generate(const v1::GenerateRequest& request) {
    const auto text = GenerateText(made_->job, *checkpoint_, request);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.value_or("");
  }

  static v1::GenerateRequest Request(const std::string& prompt, int characters,
                                     double temperature) {
    v1::GenerateRequest request;
    request.set_prompt(prompt);
    request.set_characters(characters);
    request.set_temperature(temperature);
    return request;
  }

  static TestJob* made_;
  static v1::Checkpoint* checkpoint_;
};

TestJob* GenerateTextTest::made_ = nullptr;
v1::Checkpoint* GenerateTextTest::checkpoint_ = nullptr;

TEST_F(GenerateTextTest, GoesOnWithWhatItLearnt) {
  EXPECT_EQ(Generate(Request("the quick brown fox ", 24, 0.0)), "jumps over the lazy dog.");
}

TEST_F(GenerateTextTest, HasTheWantedNumberOfCharactersAndDefaults) {
  EXPECT_EQ(Generate(Request("t", 1, 0.0)), "h");
  EXPECT_EQ(Generate(Request("t", 57, 1.0)).size(), 57u);
  EXPECT_EQ(Generate(v1::GenerateRequest()).size(), 200u);
}

TEST_F(GenerateTextTest, StartsAfterALineFeedByDefault) {
  EXPECT_EQ(Generate(Request("", 30, 0.0)), Generate(Request("\n", 30, 0.0)));
}

TEST_F(GenerateTextTest, IsTheSameForTheSameSeedOnly) {
  v1::GenerateRequest request = Request("the ", 100, 1.5);
  const std::string first = Generate(request);
  request.set_seed(0);  // The default.
  const std::string second = Generate(request);
  request.set_seed(1);

  EXPECT_EQ(first, second);
  EXPECT_NE(first, Generate(request));
}

TEST_F(GenerateTextTest, SpreadsWithTheTemperature) {
  // Almost evenly at 100: 29 characters, of which a certain text of 60 has none twice as a rule.
  v1::GenerateRequest request = Request("the quick brown fox ", 24, 0.01);
  const std::string cold = Generate(request);
  request.set_temperature(100.0);

  EXPECT_EQ(cold, "jumps over the lazy dog.");
  EXPECT_NE(Generate(request), cold);
}

TEST_F(GenerateTextTest, RefusesOtherTasks) {
  const TestJob other = MakeJob(Kind::kAdding);

  const auto text = GenerateText(other.job, NewTrainer(other)->Save(), v1::GenerateRequest());

  EXPECT_EQ(text.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text.status().message(), HasSubstr("jobs/test"));
}

TEST_F(GenerateTextTest, NamesTheBadField) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const struct {
    v1::GenerateRequest request;
    const char* message;
  } cases[] = {
      {Request("the Quick", 5, 1.0), "prompt: character 'Q' (U+0051) at position 4"},
      {Request("caf\xc3\xa9", 5, 1.0), "prompt: character '\xc3\xa9' (U+00E9) at position 3"},
      {Request("th\xff", 5, 1.0), "prompt: "},
      {Request(std::string(10'001, 'a'), 5, 1.0), "prompt: got 10001 characters"},
      {Request("the", 0, 1.0), "characters: got 0, must be 1 to 10000"},
      {Request("the", 10'001, 1.0), "characters: got 10001, must be 1 to 10000"},
      {Request("the", 5, -0.1), "temperature: got -0.1, must be 0 to 100"},
      {Request("the", 5, 100.1), "temperature: got 100.1, must be 0 to 100"},
      {Request("the", 5, nan), "temperature: got nan, must be 0 to 100"},
  };
  for (const auto& c : cases) {
    const auto text = GenerateText(made_->job, *checkpoint_, c.request);

    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(text.status().message()), StartsWith(c.message));
  }
}

TEST_F(GenerateTextTest, RefusesWeightsThatDoNotFit) {
  v1::Checkpoint broken = *checkpoint_;
  broken.mutable_weights()->pop_back();

  EXPECT_EQ(GenerateText(made_->job, broken, v1::GenerateRequest()).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace gradwatch::train
