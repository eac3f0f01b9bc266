#include "server/jobs/core_scheduler.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch::jobs {
namespace {

using Seats = std::vector<std::pair<int, std::unique_ptr<CoreScheduler::Seat>>>;

// Takes one seat for each of `useful` and says how many threads each has then.
std::vector<int> Shares(int cores, const std::vector<int>& useful) {
  CoreScheduler scheduler(cores);
  std::vector<std::unique_ptr<CoreScheduler::Seat>> seats;
  for (const int threads : useful) seats.push_back(scheduler.Take(threads));
  std::vector<int> shares;
  for (const auto& seat : seats) shares.push_back(seat->threads());
  return shares;
}

TEST(CoreSchedulerTest, GivesOneJobAllThatItCanUse) {
  EXPECT_THAT(Shares(8, {8}), testing::ElementsAre(8));
  EXPECT_THAT(Shares(8, {100}), testing::ElementsAre(8));
  EXPECT_THAT(Shares(8, {3}), testing::ElementsAre(3));
  EXPECT_THAT(Shares(1, {8}), testing::ElementsAre(1));
}

TEST(CoreSchedulerTest, GivesSmallJobsOneThreadAndTheLargeOneTheRest) {
  EXPECT_THAT(Shares(8, {1, 8, 1}), testing::ElementsAre(1, 6, 1));
}

TEST(CoreSchedulerTest, SharesEvenlyAndGivesWhatIsOverToTheLarger) {
  EXPECT_THAT(Shares(8, {8, 8}), testing::ElementsAre(4, 4));
  EXPECT_THAT(Shares(7, {4, 8}), testing::ElementsAre(3, 4));
  EXPECT_THAT(Shares(7, {8, 8}), testing::ElementsAre(4, 3));
  EXPECT_THAT(Shares(10, {8, 2, 8}), testing::ElementsAre(4, 2, 4));
}

TEST(CoreSchedulerTest, NeverGivesLessThanOneThread) {
  EXPECT_THAT(Shares(2, {4, 4, 4}), testing::ElementsAre(1, 1, 1));
}

TEST(CoreSchedulerTest, GivesTheCoresOfAJobThatLeavesToTheOthers) {
  CoreScheduler scheduler(4);
  const auto stays = scheduler.Take(4);
  EXPECT_EQ(stays->threads(), 4);

  auto leaves = scheduler.Take(4);
  EXPECT_EQ(stays->threads(), 2);
  leaves.reset();

  EXPECT_EQ(stays->threads(), 4);
}

// What the header promises, whatever comes and goes.
void ExpectFair(int cores, const Seats& seats) {
  int sum = 0;
  bool wants_more = false;
  for (const auto& [useful, seat] : seats) {
    const int threads = seat->threads();
    sum += threads;
    wants_more = wants_more || threads < useful;
    ASSERT_GE(threads, 1);
    ASSERT_LE(threads, useful);
    for (const auto& [other_useful, other] : seats) {
      if (threads < useful) {
        ASSERT_LE(other->threads(), threads + 1);
      }
      if (useful > other_useful) {
        ASSERT_GE(threads, other->threads());
      }
    }
  }
  const int jobs = static_cast<int>(seats.size());
  ASSERT_LE(sum, std::max(cores, jobs));
  if (wants_more) {
    ASSERT_GE(sum, cores);
  }
}

TEST(CoreSchedulerTest, IsFairWhateverComesAndGoes) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const int cores = 1 + static_cast<int>(random() % 16);
    CoreScheduler scheduler(cores);
    Seats seats;
    for (int event = 0; event < 300; ++event) {
      if (seats.empty() || random() % 9 < 5) {
        const int useful = 1 + static_cast<int>(random() % 20);
        seats.emplace_back(useful, scheduler.Take(useful));
      } else {
        seats.erase(seats.begin() + static_cast<int64_t>(random() % seats.size()));
      }
      ExpectFair(cores, seats);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CoreSchedulerTest, SeatsMayComeAndGoOnManyThreads) {
  CoreScheduler scheduler(8);
  const auto come_and_go = [&scheduler](int useful) {
    for (int i = 0; i < 500; ++i) {
      const auto seat = scheduler.Take(useful);
      ASSERT_GE(seat->threads(), 1);
      ASSERT_LE(seat->threads(), useful);
    }
  };

  std::vector<std::thread> threads;
  for (const int useful : {1, 2, 8}) threads.emplace_back(come_and_go, useful);
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(scheduler.Take(8)->threads(), 8);
}

}  // namespace
}  // namespace gradwatch::jobs
