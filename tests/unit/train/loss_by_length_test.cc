#include "server/train/loss_by_length.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/arithmetic_mode.h"
#include "server/data/source.h"
#include "server/train/job_network.h"
#include "tests/unit/nn/batches.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

nn::NetworkConfig ConfigOf(nn::LossAt loss_at) {
  nn::NetworkConfig config;
  config.cell = nn::Cell::kGru;
  config.layers = 1;
  config.hidden = 5;
  config.features = 3;
  config.outputs = 2;
  config.loss_at = loss_at;
  return config;
}

Batch BatchOf(const nn::NetworkConfig& config, std::vector<int32_t> lengths) {
  Batch batch = nn::MakeBatch(
      config, {.rows = std::ssize(lengths), .time_steps = lengths.front(), .weighted = true});
  batch.lengths = std::move(lengths);
  return batch;
}

double WeightOf(const Batch& batch, nn::LossAt loss_at) {
  double sum = 0.0;
  for (size_t i = 0; i < batch.weights.size(); ++i) {
    const auto rows = static_cast<size_t>(batch.rows);
    const bool valid = static_cast<int32_t>(i / rows) < batch.lengths[i % rows];
    if (loss_at == nn::LossAt::kLastStep || valid) sum += batch.weights[i];
  }
  return sum;
}

// Of the rows whose length is in a group, all others without weight.
Batch OnlyGroup(Batch batch, const v1::LengthStats& group) {
  for (size_t i = 0; i < batch.weights.size(); ++i) {
    const int32_t length = batch.lengths[i % static_cast<size_t>(batch.rows)];
    if (length < group.minimum() || length > group.maximum()) batch.weights[i] = 0.0;
  }
  return batch;
}

v1::StepStats RecordOf(const Batch& batch, nn::Network<double>* network) {
  v1::StepStats record;
  record.set_loss(network->ForwardBackward(batch));
  LossByLength(batch.rows).Record(batch, *network, &record);
  return record;
}

TEST(LossByLengthTest, EachGroupHasTheLossOfItsRowsAlone) {
  for (const nn::LossAt loss_at : {nn::LossAt::kLastStep, nn::LossAt::kEachStep}) {
    const nn::NetworkConfig config = ConfigOf(loss_at);
    const Batch batch = BatchOf(config, {9, 9, 7, 7, 7, 6, 6, 5, 4, 2, 2, 1});
    nn::Network<double> network(config, batch.rows, batch.time_steps);
    network.Initialize(3);

    const v1::StepStats record = RecordOf(batch, &network);

    ASSERT_EQ(record.lengths_size(), 7);
    double sum = 0.0;
    double weights = 0.0;
    for (const v1::LengthStats& group : record.lengths()) {
      EXPECT_EQ(group.minimum(), group.maximum());
      const Batch alone = OnlyGroup(batch, group);
      EXPECT_NEAR(group.loss(), network.Forward(alone), 1e-13);
      const double weight = WeightOf(alone, loss_at);
      sum += weight * group.loss();
      weights += weight;
    }
    EXPECT_NEAR(sum / weights, record.loss(), 1e-13);
  }
}

TEST(LossByLengthTest, ManyLengthsShareAtMostEightGroupsOfLikeSize) {
  const nn::NetworkConfig config = ConfigOf(nn::LossAt::kEachStep);
  std::vector<int32_t> lengths;
  for (int32_t length = 60; length >= 5; --length) {
    lengths.insert(lengths.end(), length % 3 == 0 ? 2 : 1, length);
  }
  const Batch batch = BatchOf(config, lengths);
  nn::Network<double> network(config, batch.rows, batch.time_steps);
  network.Initialize(3);

  const v1::StepStats record = RecordOf(batch, &network);

  ASSERT_EQ(record.lengths_size(), 8);
  int32_t rows = 0;
  int32_t before = 4;
  for (const v1::LengthStats& group : record.lengths()) {
    EXPECT_EQ(group.minimum(), before + 1);
    before = group.maximum();
    EXPECT_EQ(group.rows(), std::count_if(lengths.begin(), lengths.end(), [&](int32_t length) {
                return length >= group.minimum() && length <= group.maximum();
              }));
    // An eighth of the rows, and at each end at most half of the two rows of one length.
    EXPECT_NEAR(group.rows(), static_cast<double>(lengths.size()) / 8.0, 2.0);
    rows += group.rows();
    EXPECT_NEAR(group.loss(), network.Forward(OnlyGroup(batch, group)), 1e-13);
  }
  EXPECT_EQ(before, 60);
  EXPECT_EQ(rows, std::ssize(lengths));
}

TEST(LossByLengthTest, ALengthThatMostRowsHaveIsNotCut) {
  const nn::NetworkConfig config = ConfigOf(nn::LossAt::kLastStep);
  std::vector<int32_t> lengths(40, 12);
  for (int32_t length = 11; length >= 2; --length) lengths.push_back(length);
  const Batch batch = BatchOf(config, lengths);
  nn::Network<double> network(config, batch.rows, batch.time_steps);
  network.Initialize(3);

  const v1::StepStats record = RecordOf(batch, &network);

  ASSERT_GE(record.lengths_size(), 2);
  const v1::LengthStats& longest = *record.lengths().rbegin();
  EXPECT_EQ(longest.minimum(), 12);
  EXPECT_EQ(longest.rows(), 40);
}

TEST(LossByLengthTest, RowsOfOneLengthHaveNoGroupsAndGroupsWithoutWeightAreLeftOut) {
  const nn::NetworkConfig config = ConfigOf(nn::LossAt::kLastStep);
  const Batch even = BatchOf(config, {4, 4, 4});
  Batch partly = BatchOf(config, {4, 3, 3});
  partly.weights = {1.0, 0.0, 0.0};
  nn::Network<double> network(config, 3, 4);
  network.Initialize(3);

  EXPECT_EQ(RecordOf(even, &network).lengths_size(), 0);
  const v1::StepStats record = RecordOf(partly, &network);
  ASSERT_EQ(record.lengths_size(), 1);
  EXPECT_EQ(record.lengths(0).minimum(), 4);
}

TEST(LossByLengthTest, TrainersRecordItWhereRowsDiffer) {
  TestJob made = MakeJob(Kind::kRaggedAdding);
  made.job.mutable_training()->set_batch_size(24);
  const auto trainer = NewTrainer(made);
  made.job.set_statistics_level(v1::STATISTICS_LEVEL_OFF);
  const auto off = NewTrainer(made);

  for (int step = 0; step < 5; ++step) {
    v1::StepStats record;
    trainer->Step(&record);
    ASSERT_GE(record.lengths_size(), 2);
    double sum = 0.0;
    int32_t rows = 0;
    for (const v1::LengthStats& group : record.lengths()) {
      sum += group.rows() * group.loss();  // Each example counts the same.
      rows += group.rows();
    }
    EXPECT_EQ(rows, 24);
    EXPECT_NEAR(sum / rows, record.loss(), 1e-12 * record.loss());
    off->Step(&record);
    EXPECT_EQ(record.lengths_size(), 0);
  }
}

}  // namespace
}  // namespace gradwatch::train
