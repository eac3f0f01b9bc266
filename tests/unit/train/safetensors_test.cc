#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/train/model_tools.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

using Json = nlohmann::json;

struct File {
  Json header;
  size_t header_size = 0;
  std::string data;
};

File Parse(const std::string& bytes) {
  File file;
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  file.header_size = size;
  file.header = Json::parse(bytes.substr(8, size));
  file.data = bytes.substr(8 + size);
  return file;
}

TEST(ToSafetensorsTest, LaysOutEveryParameterInOrderWithoutGaps) {
  for (const auto precision : {v1::Training::PRECISION_FLOAT32, v1::Training::PRECISION_FLOAT64}) {
    TestJob made = MakeJob(Kind::kCopyMemory);
    made.job.mutable_training()->set_precision(precision);
    const auto trainer = NewTrainer(made);
    v1::StepStats record;
    trainer->Step(&record);
    const v1::Checkpoint checkpoint = trainer->Save();

    const File file = Parse(ToSafetensors(made.job, checkpoint));

    EXPECT_EQ(file.header_size % 8, 0u);
    EXPECT_EQ(file.data, checkpoint.weights());
    ASSERT_EQ(file.header.size(), trainer->parameters().size() + 1);
    int64_t begin = 0;
    for (const v1::ParameterInfo& info : trainer->parameters()) {
      const Json& entry = file.header[info.name()];
      const bool is_float = precision == v1::Training::PRECISION_FLOAT32;
      int64_t size = is_float ? 4 : 8;
      for (const int64_t extent : info.shape()) size *= extent;
      EXPECT_EQ(entry["dtype"], is_float ? "F32" : "F64");
      EXPECT_EQ(entry["shape"],
                Json(std::vector<int64_t>(info.shape().begin(), info.shape().end())));
      EXPECT_EQ(entry["data_offsets"], Json({begin, begin + size}));
      begin += size;
    }
    EXPECT_EQ(static_cast<size_t>(begin), file.data.size());
  }
}

TEST(ToSafetensorsTest, UsesPyTorchsNames) {
  const TestJob made = MakeJob(Kind::kCopyMemory);
  const Json header = Parse(ToSafetensors(made.job, NewTrainer(made)->Save())).header;

  EXPECT_TRUE(header.contains("embedding.weight"));
  EXPECT_TRUE(header.contains("rnn.weight_ih_l0"));
  EXPECT_TRUE(header.contains("rnn.bias_hh_l0"));
  EXPECT_TRUE(header.contains("readout.bias"));
  EXPECT_EQ(header["rnn.weight_hh_l0"]["shape"], Json({24, 6}));
}

TEST(ToSafetensorsTest, SaysWhatItIsInStrings) {
  TestJob made = MakeJob(Kind::kLanguage);
  made.job.set_name("jobs/\"quoted\"");
  const auto trainer = NewTrainer(made);
  v1::StepStats record;
  trainer->Step(&record);

  const Json metadata = Parse(ToSafetensors(made.job, trainer->Save())).header["__metadata__"];

  EXPECT_EQ(metadata["format"], "pt");
  EXPECT_EQ(metadata["job"], "jobs/\"quoted\"");
  EXPECT_EQ(metadata["cell"], "LSTM");
  EXPECT_EQ(metadata["step"], "1");
  EXPECT_EQ(metadata["vocabulary"], "\n .abcdefghijklmnopqrstuvwxyz");
  EXPECT_FALSE(metadata.contains("interventions"));
}

TEST(ToSafetensorsTest, TellsWhatChangedTheRun) {
  const TestJob made = MakeJob(Kind::kAdding);
  v1::Checkpoint checkpoint = NewTrainer(made)->Save();
  checkpoint.add_interventions()->set_step(7);
  checkpoint.add_interventions()->set_author("ann");

  const Json metadata = Parse(ToSafetensors(made.job, checkpoint)).header["__metadata__"];

  const Json interventions = Json::parse(metadata["interventions"].get<std::string>());
  ASSERT_EQ(interventions.size(), 2u);
  EXPECT_EQ(interventions[0]["step"], "7");
  EXPECT_EQ(interventions[1]["author"], "ann");
}

}  // namespace
}  // namespace gradwatch::train
