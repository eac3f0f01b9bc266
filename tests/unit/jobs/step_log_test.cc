#include "server/jobs/step_log.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "tests/unit/jobs/record_testing.h"

namespace gradwatch::jobs {
namespace {

v1::StepStats StatsOf(int64_t step) {
  v1::StepStats stats;
  stats.set_step(step);
  // Noise, which does not compress.
  stats.set_loss(
      std::ldexp(static_cast<double>(static_cast<uint64_t>(step + 1) * 0x9E3779B97F4A7C15u), -64));
  stats.set_norm_before(10.0 + static_cast<double>(step));
  return stats;
}

// As a job's worker and its dispatcher do it, on this thread.
void Append(int64_t step, StepLog* log) {
  if (log->Append(RecordOf(StatsOf(step)))) log->Serve();
}

std::vector<int64_t> StepsOf(const StepRecords& records) {
  std::vector<int64_t> steps;
  for (const StepRecord* record : records) steps.push_back(record->step);
  return steps;
}

TEST(StepLogTest, GivesRecordsInOrderFromAnyKeptStep) {
  StepLog log(1 << 20);
  for (int64_t step = 0; step < 5; ++step) Append(step, &log);

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
  const int64_t one = RecordOf(StatsOf(1000))->bytes();
  StepLog log(10 * one);

  for (int64_t step = 1000; step < 1050; ++step) Append(step, &log);

  EXPECT_LE(log.bytes(), 10 * one);
  EXPECT_EQ(log.oldest_step(), 1040);
  const auto gone = log.Read(1039, 10, 1 << 20);
  ASSERT_EQ(gone.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(gone.status().message()), testing::HasSubstr("1040"));
  EXPECT_EQ(ReasonOf(gone.status()), "STEP_NOT_KEPT");
}

TEST(StepLogTest, KeepsTheNewestEvenWhenItAloneIsTooLarge) {
  StepLog log(1);

  Append(0, &log);
  Append(1, &log);

  EXPECT_EQ(log.oldest_step(), 1);
  EXPECT_EQ(log.newest_step(), 1);
}

// --- Compression.

// Reads from `step` to the newest, and says whether every record is what was appended.
bool HoldsAllFrom(int64_t step, const StepLog& log) {
  while (step <= log.newest_step()) {
    const auto records = log.Read(step, 100, 1 << 20);
    if (!records.ok() || records->empty()) return false;
    for (const auto& record : *records) {
      if (record->wire != RecordOf(StatsOf(step))->wire) return false;
      ++step;
    }
  }
  return true;
}

TEST(StepLogTest, KeepsEveryRecordWhenItCompresses) {
  constexpr int64_t kSteps = 5000;
  StepLog log(1 << 30);
  int64_t bytes = 0;

  for (int64_t step = 0; step < kSteps; ++step) {
    bytes += RecordOf(StatsOf(step))->bytes();
    Append(step, &log);
  }

  EXPECT_LT(log.bytes(), bytes / 2);
  EXPECT_EQ(log.oldest_step(), 0);
  EXPECT_TRUE(HoldsAllFrom(0, log));
  EXPECT_TRUE(HoldsAllFrom(1111, log));
}

TEST(StepLogTest, ReadersNearTheNewestStepFindRecordsAsTheyWereAppended) {
  StepLog log(1 << 30);
  std::vector<std::shared_ptr<const StepRecord>> appended;
  for (int64_t step = 0; step < 4000; ++step) {
    appended.push_back(RecordOf(StatsOf(step)));
    if (log.Append(appended.back())) log.Serve();
  }

  const auto records = log.Read(4000 - StepLog::kLiveSteps, 1 << 20, 1 << 30);

  ASSERT_EQ(records->size(), static_cast<size_t>(StepLog::kLiveSteps));
  for (const auto& record : *records) {
    EXPECT_EQ(record, appended[static_cast<size_t>(record->step)].get());
  }
}

TEST(StepLogTest, ReadsNotBeyondACompressedBlock) {
  StepLog log(1 << 30);
  for (int64_t step = 0; step < 4000; ++step) Append(step, &log);

  const auto records = log.Read(10, 1 << 20, 1 << 30);

  EXPECT_EQ(records->front()->step, 10);
  EXPECT_EQ(records->back()->step, StepLog::kBlockSteps - 1);
  EXPECT_THAT(StepsOf(*log.Read(254, 100, 1 << 20)), testing::ElementsAre(254, 255));
  EXPECT_THAT(StepsOf(*log.Read(254, 1, 1 << 20)), testing::ElementsAre(254));
  EXPECT_THAT(StepsOf(*log.Read(254, 100, 1)), testing::ElementsAre(254));
}

TEST(StepLogTest, CompressesAllButTheNewestStepsOnceItIsClosed) {
  StepLog log(1 << 30);
  for (int64_t step = 0; step < 1000; ++step) Append(step, &log);
  const int64_t bytes = log.bytes();

  log.Close();
  log.Serve();

  EXPECT_LT(log.bytes(), bytes / 2);
  EXPECT_TRUE(HoldsAllFrom(0, log));
}

TEST(StepLogTest, HoldsItsBoundAndForgetsCompressedStepsBlockByBlock) {
  const int64_t one = RecordOf(StatsOf(5000))->bytes();
  const int64_t bytes_max = one * 1600;
  StepLog log(bytes_max);
  int64_t oldest = 0;

  for (int64_t step = 0; step < 20'000; ++step) {
    Append(step, &log);
    ASSERT_LE(log.bytes(), bytes_max);
    if (log.oldest_step() == oldest) continue;
    ASSERT_EQ(log.oldest_step(), oldest + StepLog::kBlockSteps);
    oldest = log.oldest_step();
  }

  EXPECT_LT(oldest, 20'000 - 2000);
  EXPECT_GT(oldest, 0);
  EXPECT_EQ(log.Read(oldest - 1, 1, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(HoldsAllFrom(oldest, log));
}

TEST(StepLogTest, CompressesLongRecordsBeforeTheyFillTheLog) {
  constexpr int64_t kSteps = 400;
  v1::StepStats stats = StatsOf(0);
  for (int i = 0; i < 8000; ++i) stats.add_tensors()->set_norm(2.0);
  const int64_t bytes_max = 200 * RecordOf(stats)->bytes();
  StepLog log(bytes_max);

  for (int64_t step = 0; step < kSteps; ++step) {
    stats.set_step(step);
    if (log.Append(RecordOf(stats))) log.Serve();
    ASSERT_LE(log.bytes(), bytes_max);
  }

  EXPECT_EQ(log.oldest_step(), 0);
  for (const int64_t step : {int64_t{0}, int64_t{77}, kSteps - 1}) {
    EXPECT_EQ(log.Read(step, 1, 1)->front()->step, step);
  }
}

TEST(StepLogTest, ReadersMayFollowAcrossTheBorderWhileItCompressesAndForgets) {
  constexpr int64_t kSteps = 20'000;
  StepLog log(RecordOf(StatsOf(5000))->bytes() * 2000);
  std::atomic<bool> stop = false;
  bool in_order[2] = {true, true};
  const auto follow = [&log](bool* ok) {
    int64_t next = 0;
    while (!log.closed() || next <= log.newest_step()) {
      const auto records = log.Read(next, 64, 1 << 20);
      if (!records.ok()) {
        next = log.oldest_step();
        continue;
      }
      for (const auto& record : *records) *ok = *ok && record->step == next++;
    }
  };

  std::thread server([&log, &stop] {
    while (!stop) log.Serve();
  });
  std::vector<std::thread> readers;
  for (bool& ok : in_order) readers.emplace_back(follow, &ok);
  for (int64_t step = 0; step < kSteps; ++step) {
    static_cast<void>(log.Append(RecordOf(StatsOf(step))));
  }
  log.Close();
  for (std::thread& reader : readers) reader.join();
  stop = true;
  server.join();

  EXPECT_TRUE(in_order[0]);
  EXPECT_TRUE(in_order[1]);
  EXPECT_TRUE(HoldsAllFrom(log.oldest_step(), log));
}

// --- Waiting.

TEST(StepLogTest, NotifiesAWaiterOnceAtTheNextAppend) {
  StepLog log(1 << 20);
  int calls = 0;
  const auto waiter = log.Listen(0, [&calls] { ++calls; });
  EXPECT_EQ(calls, 0);

  Append(0, &log);
  Append(1, &log);

  EXPECT_EQ(calls, 1);
}

TEST(StepLogTest, NotifiesAtOnceWhenThereIsSomethingAlready) {
  StepLog log(1 << 20);
  Append(0, &log);
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

  Append(0, &log);
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
  for (int64_t step = 0; step < kSteps; ++step) Append(step, &log);
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

  for (int64_t step = 0; step < 3000; ++step) Append(step, &log);
  stop = true;
  reader.join();

  EXPECT_EQ(log.newest_step(), 2999);
}

}  // namespace
}  // namespace gradwatch::jobs
