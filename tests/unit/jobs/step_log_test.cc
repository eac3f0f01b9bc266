#include "server/jobs/step_log.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"

namespace gradwatch::jobs {
namespace {

v1::StepStats StatsOf(int64_t step) {
  v1::StepStats stats;
  stats.set_step(step);
  stats.set_loss(1.0 + static_cast<double>(step));
  stats.set_norm_before(10.0 + static_cast<double>(step));
  return stats;
}

std::vector<int64_t> StepsOf(const std::vector<std::shared_ptr<const StepRecord>>& records) {
  std::vector<int64_t> steps;
  for (const auto& record : records) steps.push_back(record->step);
  return steps;
}

TEST(StepRecordTest, ScalarsAndDetailsTogetherMakeTheWholeRecord) {
  v1::StepStats stats = StatsOf(7);
  stats.add_tensors()->set_norm(2.0);
  stats.add_tensors()->set_norm(3.0);
  stats.add_layers()->add_hidden_rms(0.5f);
  stats.mutable_growth()->set_growth_factor(0.9);
  stats.mutable_evaluation()->set_loss(0.25);

  const auto record = MakeRecord(stats);

  v1::StepStats scalars, whole;
  ASSERT_TRUE(scalars.ParseFromString(record->scalars));
  ASSERT_TRUE(whole.ParseFromString(record->scalars + record->details));
  EXPECT_EQ(whole.SerializeAsString(), stats.SerializeAsString());
  EXPECT_EQ(scalars.tensors_size(), 0);
  EXPECT_EQ(scalars.layers_size(), 0);
  EXPECT_EQ(scalars.growth().growth_factor(), 0.9);
  EXPECT_EQ(scalars.evaluation().loss(), 0.25);
  EXPECT_TRUE(record->evaluated);
  EXPECT_EQ(record->growth_factor, 0.9);
  EXPECT_TRUE(std::isnan(record->norm_after));
  EXPECT_FALSE(record->nonfinite);
}

TEST(StepRecordTest, KnowsThatAStepWasNotFinite) {
  v1::StepStats bad_loss = StatsOf(0);
  bad_loss.set_loss(std::numeric_limits<double>::quiet_NaN());
  v1::StepStats bad_update = StatsOf(0);
  bad_update.mutable_nonfinite_origin()->set_tensor("update/rnn.weight_hh_l0");

  EXPECT_TRUE(MakeRecord(bad_loss)->nonfinite);
  EXPECT_TRUE(MakeRecord(bad_update)->nonfinite);
}

TEST(StepLogTest, GivesRecordsInOrderFromAnyKeptStep) {
  StepLog log(1 << 20);
  for (int64_t step = 0; step < 5; ++step) log.Append(StatsOf(step));

  EXPECT_THAT(StepsOf(*log.Read(0, 100, 1 << 20)), testing::ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(StepsOf(*log.Read(3, 100, 1 << 20)), testing::ElementsAre(3, 4));
  EXPECT_THAT(StepsOf(*log.Read(1, 2, 1 << 20)), testing::ElementsAre(1, 2));
  EXPECT_THAT(StepsOf(*log.Read(1, 100, 1)), testing::ElementsAre(1));
  EXPECT_TRUE(log.Read(5, 100, 1 << 20)->empty());
  EXPECT_EQ(log.oldest_step(), 0);
  EXPECT_EQ(log.newest_step(), 4);
}

TEST(StepLogTest, IsEmptyAtFirst) {
  const StepLog log(1000);

  EXPECT_EQ(log.oldest_step(), 0);
  EXPECT_EQ(log.newest_step(), -1);
  EXPECT_EQ(log.bytes(), 0);
  EXPECT_FALSE(log.closed());
  EXPECT_TRUE(log.Read(0, 10, 1000)->empty());
}

TEST(StepLogTest, ForgetsTheOldestBeyondItsBytesAndSaysWhichIsKept) {
  const int64_t one = MakeRecord(StatsOf(1000))->bytes();
  StepLog log(10 * one);

  for (int64_t step = 1000; step < 1050; ++step) log.Append(StatsOf(step));

  EXPECT_LE(log.bytes(), 10 * one);
  EXPECT_EQ(log.oldest_step(), 1040);
  const auto gone = log.Read(1039, 10, 1 << 20);
  ASSERT_EQ(gone.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(gone.status().message()), testing::HasSubstr("1040"));
  EXPECT_EQ(ReasonOf(gone.status()), "STEP_NOT_KEPT");
}

TEST(StepLogTest, KeepsTheNewestEvenWhenItAloneIsTooLarge) {
  StepLog log(1);

  log.Append(StatsOf(0));
  log.Append(StatsOf(1));

  EXPECT_EQ(log.oldest_step(), 1);
  EXPECT_EQ(log.newest_step(), 1);
}

TEST(StepLogTest, NotifiesAWaiterOnceAtTheNextAppend) {
  StepLog log(1 << 20);
  int calls = 0;
  const auto waiter = log.Listen(0, [&calls] { ++calls; });
  EXPECT_EQ(calls, 0);

  log.Append(StatsOf(0));
  log.Append(StatsOf(1));

  EXPECT_EQ(calls, 1);
}

TEST(StepLogTest, NotifiesAtOnceWhenThereIsSomethingAlready) {
  StepLog log(1 << 20);
  log.Append(StatsOf(0));
  int calls = 0;

  const auto recorded = log.Listen(0, [&calls] { ++calls; });
  EXPECT_EQ(calls, 1);
  const auto next = log.Listen(1, [&calls] { ++calls; });
  EXPECT_EQ(calls, 1);
  log.Close();
  EXPECT_EQ(calls, 2);
  const auto closed = log.Listen(1, [&calls] { ++calls; });
  EXPECT_EQ(calls, 3);
  EXPECT_TRUE(log.closed());
}

TEST(StepLogTest, CallsNobodyWhoseTokenIsGone) {
  StepLog log(1 << 20);
  int calls = 0;
  log.Listen(0, [&calls] { ++calls; }).reset();

  log.Append(StatsOf(0));
  log.Close();

  EXPECT_EQ(calls, 0);
}

TEST(StepLogTest, AWaiterMayOutliveItsLog) {
  std::unique_ptr<StepLog::Waiter> waiter;
  {
    StepLog log(1 << 20);
    waiter = log.Listen(0, [] {});
  }
  waiter.reset();
}

TEST(StepLogTest, ConcurrentReadersSeeEveryStepOnceAndInOrder) {
  constexpr int64_t kSteps = 5000;
  StepLog log(64 << 20);
  const auto follow = [&log](int64_t* seen, bool* in_order) {
    for (;;) {
      Mutex mu;
      bool ready = false;
      const auto waiter = log.Listen(*seen, [&] {
        MutexLock lock(&mu);
        ready = true;
      });
      {
        MutexLock lock(&mu);
        mu.Await([&ready] { return ready; });
      }
      const bool closed = log.closed();
      const auto records = log.Read(*seen, 64, 1 << 20);
      for (const auto& record : *records) {
        *in_order = *in_order && record->step == *seen;
        ++*seen;
      }
      if (closed && records->empty()) return;
    }
  };
  int64_t seen[3] = {0, 0, 0};
  bool in_order[3] = {true, true, true};

  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) readers.emplace_back(follow, &seen[i], &in_order[i]);
  for (int64_t step = 0; step < kSteps; ++step) log.Append(StatsOf(step));
  log.Close();
  for (auto& reader : readers) reader.join();

  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(seen[i], kSteps);
    EXPECT_TRUE(in_order[i]);
  }
}

TEST(StepLogTest, ATokenMayGoWhileTheWriterCalls) {
  StepLog log(64 << 20);
  std::atomic<bool> stop = false;
  std::thread reader([&log, &stop] {
    while (!stop) {
      auto alive = std::make_unique<int>(0);
      const auto waiter = log.Listen(1 << 30, [&alive] { ++*alive; });
    }
  });

  for (int64_t step = 0; step < 3000; ++step) log.Append(StatsOf(step));
  stop = true;
  reader.join();

  EXPECT_EQ(log.newest_step(), 2999);
}

TEST(FoldTest, KeepsExtremesCountsAndMeanOfFiniteValues) {
  v1::FoldedStats folded;
  for (const double loss : {3.0, 1.0, 2.0}) {
    v1::StepStats stats = StatsOf(static_cast<int64_t>(10 - loss));
    stats.set_loss(loss);
    stats.set_clipped(loss > 1.5);
    Fold(*MakeRecord(stats), &folded);
  }
  v1::StepStats bad = StatsOf(9);
  bad.set_loss(std::numeric_limits<double>::infinity());
  bad.set_skipped(true);
  Fold(*MakeRecord(bad), &folded);

  EXPECT_EQ(folded.count(), 4);
  EXPECT_EQ(folded.first_step(), 7);
  EXPECT_EQ(folded.last_step(), 9);
  EXPECT_EQ(folded.loss().minimum(), 1.0);
  EXPECT_EQ(folded.loss().maximum(), 3.0);
  EXPECT_DOUBLE_EQ(folded.loss().mean(), 2.0);
  EXPECT_EQ(folded.loss().last(), 2.0);
  EXPECT_EQ(folded.loss().count(), 3);
  EXPECT_EQ(folded.norm_before().count(), 4);
  EXPECT_EQ(folded.norm_after().count(), 0);
  EXPECT_EQ(folded.clipped_steps(), 2);
  EXPECT_EQ(folded.skipped_steps(), 1);
  EXPECT_EQ(folded.nonfinite_steps(), 1);
}

TEST(FoldTest, MeanOfHugeValuesDoesNotOverflow) {
  constexpr double kHuge = std::numeric_limits<double>::max();
  v1::FoldedStats folded;
  for (int64_t step = 0; step < 4; ++step) {
    v1::StepStats stats = StatsOf(step);
    stats.set_loss(kHuge);
    Fold(*MakeRecord(stats), &folded);
  }

  // Each fold rounds twice: 8 roundings of half an epsilon each.
  EXPECT_NEAR(folded.loss().mean() / kHuge, 1.0, 8 * std::numeric_limits<double>::epsilon());
}

}  // namespace
}  // namespace gradwatch::jobs
