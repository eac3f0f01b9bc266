// Runs of some seconds that show what the engine is for.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/data/source.h"
#include "server/nn/network.h"
#include "server/train/flat_bytes.h"
#include "server/train/job_network.h"
#include "server/train/model_tools.h"
#include "server/train/trainer.h"
#include "tests/testing/test_data.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

using Json = nlohmann::json;

double BestAccuracy(const v1::Job& job, int steps) {
  const auto trainer = *Trainer::Create(job, nullptr);
  double best = 0.0;
  v1::StepStats record;
  for (int step = 0; step < steps; ++step) {
    trainer->Step(&record);
    if (record.has_evaluation()) best = std::max(best, record.evaluation().accuracy());
  }
  return std::max(best, trainer->Evaluate().accuracy());
}

TEST(TemporalOrderTest, IsSolvedWithClipping) {
  v1::Job job = TemporalOrderJob(1);
  ClipGlobalNorm(0.5, &job);

  EXPECT_GE(BestAccuracy(job, 2500), 0.95);
}

TEST(TemporalOrderTest, StaysAtChanceWithoutClipping) {
  EXPECT_LT(BestAccuracy(TemporalOrderJob(1), 2500), 0.6);
}

// LSTM with 128 units on tiny Shakespeare, Adam 5e-3, global norm 5, one-hot, state carried.
class CharacterModelTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::optional<std::string> text =
        gradwatch::testing::ReadTestData("tinyshakespeare/input.txt");
    if (!text.has_value()) return;
    made_ = new TestJob;
    made_->dataset = *data::ParseText(*text);
    v1::Job& job = made_->job;
    job.set_name("jobs/shakespeare");
    job.set_seed(0);
    job.mutable_task()->mutable_language()->set_dataset("datasets/shakespeare");
    job.mutable_optimizer()->set_learning_rate(5e-3);
    job.mutable_training()->set_step_limit(400);
    job.mutable_evaluation()->set_every_steps(0);
    for (const char32_t c : made_->dataset->vocabulary) job.add_vocabulary(c);
    ClipGlobalNorm(5.0, &job);
    const auto trainer = NewTrainer(*made_);
    v1::StepStats record;
    for (int step = 0; step < 400; ++step) trainer->Step(&record);
    loss_ = trainer->Evaluate().loss();
    checkpoint_ = trainer->Save();
  }
  static void TearDownTestSuite() {
    delete made_;
    made_ = nullptr;
  }
  void SetUp() override {
    if (made_ == nullptr) GTEST_SKIP() << "no tinyshakespeare/input.txt: set GRADWATCH_TEST_DATA";
  }

  static TestJob* made_;
  static double loss_;
  static v1::Checkpoint checkpoint_;
};

TestJob* CharacterModelTest::made_ = nullptr;
double CharacterModelTest::loss_ = 0.0;
v1::Checkpoint CharacterModelTest::checkpoint_;

TEST_F(CharacterModelTest, FallsBelowTwoPointTwoNatsOnHeldOutText) { EXPECT_LT(loss_, 2.2); }

// The network's own outputs over the first evaluation batch, and its tokens.
Json CaseOf(const TestJob& made, const v1::Checkpoint& checkpoint) {
  const auto source = *data::NewSource(made.job, made.dataset);
  const data::TaskShape& shape = source->shape();
  nn::Network<float> network(NetworkConfigOf(made.job, shape), shape.rows_max, shape.time_steps);
  EXPECT_TRUE(FromBytes(checkpoint.weights(), network.weights()));
  Batch batch;
  source->EvaluationBatch(0, &batch);
  network.Predict(batch);
  Json tokens = Json::array();
  Json outputs = Json::array();
  for (int64_t t = 0; t < batch.time_steps; ++t) {
    Json token_row = Json::array();
    Json output_row = Json::array();
    for (int64_t b = 0; b < batch.rows; ++b) {
      const absl::Span<const float> output = network.output(t, b);
      token_row.push_back(batch.tokens[static_cast<size_t>(t * batch.rows + b)]);
      output_row.push_back(std::vector<double>(output.begin(), output.end()));
    }
    tokens.push_back(token_row);
    outputs.push_back(output_row);
  }
  return {{"hidden", made.job.model().hidden_units()}, {"tokens", tokens}, {"outputs", outputs}};
}

// Standard output of a command; nothing when it fails.
std::optional<std::string> OutputOf(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return std::nullopt;
  std::string output;
  char buffer[256];
  while (const size_t n = std::fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, n);
  if (pclose(pipe) != 0) return std::nullopt;
  return output;
}

TEST_F(CharacterModelTest, GivesTheSameOutputsInPyTorch) {
  if (!OutputOf("/usr/bin/python3 -c 'import torch' 2>/dev/null").has_value()) {
    GTEST_SKIP() << "no PyTorch: install python3-torch";
  }
  const std::string stem =
      absl::StrCat(::testing::TempDir(), "gradwatch_character_model_", getpid());
  const std::string model = stem + ".safetensors";
  const std::string example = stem + ".json";
  std::ofstream(model, std::ios::binary) << ToSafetensors(made_->job, checkpoint_);
  std::ofstream(example) << CaseOf(*made_, checkpoint_).dump();

  const std::optional<std::string> output = OutputOf(absl::StrCat(
      GRADWATCH_SOURCE_DIR, "/tests/unit/train/load_into_torch.py ", model, " ", example));
  std::remove(model.c_str());
  std::remove(example.c_str());

  ASSERT_TRUE(output.has_value());
  double difference = 1.0;
  ASSERT_TRUE(absl::SimpleAtod(*output, &difference)) << *output;
  RecordProperty("largest_difference", *output);
  EXPECT_LE(difference, 1e-5);
}

TEST_F(CharacterModelTest, WritesEnglishLookingText) {
  v1::GenerateRequest request;
  request.set_prompt("KING ");
  request.set_characters(400);

  const auto text = GenerateText(made_->job, checkpoint_, request);

  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->size(), 400u);
  const auto spaces = std::count(text->begin(), text->end(), ' ');
  EXPECT_GT(spaces, 20);  // Words, not noise: in the text every sixth character.
  EXPECT_LT(spaces, 150);
}

}  // namespace
}  // namespace gradwatch::train
