// Real data sets, where they are there.
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/testing/test_data.h"
#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

constexpr char kShakespeare[] = "tinyshakespeare/input.txt";
constexpr char kEtt[] = "ett-h1/ETTh1.csv";
constexpr char kSunspots[] = "univariate-series/monthly-sunspots.csv";
constexpr char kPassengers[] = "univariate-series/airline-passengers.csv";

std::string NotFound(absl::string_view name) {
  return absl::StrCat("no ", name,
                      " under the folder of GRADWATCH_TEST_DATA or beside the project");
}

TEST(RealDataTest, TinyShakespeare) {
  const auto bytes = testing::ReadTestData(kShakespeare);
  if (!bytes.has_value()) GTEST_SKIP() << NotFound(kShakespeare);
  const auto content = ParseText(*bytes);
  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ((*content)->tokens.size(), 1115394u);
  EXPECT_EQ((*content)->vocabulary.size(), 65u);
  EXPECT_EQ((*content)->vocabulary.front(), U'\n');
  EXPECT_EQ((*content)->vocabulary.back(), U'z');

  const auto source = SourceOf(LanguageJob(32, 50, 0.1), *content);
  Batch batch;
  source->NextBatch(&batch);
  ExpectWellFormed(source->shape(), batch);
  std::string beginning;
  for (size_t t = 0; t < 15; ++t) {
    beginning +=
        static_cast<char>((*content)->vocabulary[static_cast<size_t>(batch.tokens[t * 32])]);
  }
  EXPECT_EQ(beginning, "First Citizen:\n");
  // 111,540 held-out characters in 32 streams of 69 windows, at most 1000 of them.
  EXPECT_EQ(source->evaluation_batches(), 31);
}

TEST(RealDataTest, ElectricityTransformer) {
  const auto bytes = testing::ReadTestData(kEtt);
  if (!bytes.has_value()) GTEST_SKIP() << NotFound(kEtt);
  const auto content = ParseTable(*bytes);
  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ((*content)->rows, 17420);
  ASSERT_EQ((*content)->columns.size(), 8u);
  EXPECT_EQ((*content)->columns[0].problem, "row 1: '2016-07-01 00:00:00'");
  for (size_t i = 1; i < 8; ++i) EXPECT_TRUE((*content)->columns[i].numeric());
  const TableColumn& temperature = *(*content)->FindColumn("OT");
  EXPECT_NEAR(temperature.minimum, -4.08, 0.005);
  EXPECT_NEAR(temperature.maximum, 46.01, 0.005);
  EXPECT_NEAR(temperature.mean, 13.32, 0.005);

  v1::Job job = ForecastJob(16, 96, {"OT"});
  job.mutable_task()->mutable_forecast()->clear_input_columns();
  for (const char* column : {"HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"}) {
    job.mutable_task()->mutable_forecast()->add_input_columns(column);
  }
  const auto source = SourceOf(job, *content);
  Batch batch;
  source->NextBatch(&batch);
  ExpectWellFormed(source->shape(), batch);
  EXPECT_EQ(source->shape().features, 7);
}

// Root mean square error, in original units, of predicting the last value that was seen.
double PersistenceRmse(const v1::Job& job, const Content& content) {
  const auto source = SourceOf(job, content);
  const TargetScale scale = source->target_scales()[0];
  Batch batch;
  double error = 0.0, count = 0.0;
  for (int64_t i = 0; i < source->evaluation_batches(); ++i) {
    source->EvaluationBatch(i, &batch);
    for (size_t at = 0; at < batch.weights.size(); ++at) {
      const double miss = scale.deviation * (batch.target_values[at] - batch.inputs[at]);
      error += batch.weights[at] * miss * miss;
      count += batch.weights[at];
    }
  }
  return std::sqrt(error / count);
}

TEST(RealDataTest, Sunspots) {
  const auto bytes = testing::ReadTestData(kSunspots);
  if (!bytes.has_value()) GTEST_SKIP() << NotFound(kSunspots);
  const auto content = ParseTable(*bytes);
  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ((*content)->rows, 2820);
  EXPECT_EQ((*content)->columns[0].name, "Month");
  EXPECT_EQ((*content)->columns[0].problem, "row 1: '1749-01'");
  const TableColumn& sunspots = *(*content)->FindColumn("Sunspots");
  EXPECT_EQ(sunspots.minimum, 0.0);
  EXPECT_EQ(sunspots.maximum, 253.8);
  EXPECT_NEAR(sunspots.mean, 51.27, 0.005);
  EXPECT_EQ(sunspots.values.back(), 33.4);

  // Each held-out month counts once, so the baseline is the known one.
  v1::Job job = ForecastJob(16, 50, {"Sunspots"});
  job.mutable_task()->mutable_forecast()->set_carry_state(false);
  EXPECT_NEAR(PersistenceRmse(job, *content), 20.09, 0.005);
}

TEST(RealDataTest, TransformerPersistenceBaseline) {
  const auto bytes = testing::ReadTestData(kEtt);
  if (!bytes.has_value()) GTEST_SKIP() << NotFound(kEtt);
  const auto content = ParseTable(*bytes);
  ASSERT_TRUE(content.ok());
  v1::Job job = ForecastJob(16, 50, {"OT"});
  job.mutable_task()->mutable_forecast()->set_carry_state(false);

  EXPECT_NEAR(PersistenceRmse(job, *content), 0.654, 0.0005);
}

TEST(RealDataTest, AirlinePassengers) {
  const auto bytes = testing::ReadTestData(kPassengers);
  if (!bytes.has_value()) GTEST_SKIP() << NotFound(kPassengers);
  const auto content = ParseTable(*bytes);

  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ((*content)->rows, 144);
  EXPECT_EQ((*content)->FindColumn("Passengers")->minimum, 104.0);
  EXPECT_EQ((*content)->FindColumn("Passengers")->maximum, 622.0);
}

}  // namespace
}  // namespace gradwatch::data
