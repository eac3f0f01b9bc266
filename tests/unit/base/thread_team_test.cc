#include "server/base/thread_team.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/arithmetic_mode.h"

namespace gradwatch {
namespace {

using testing::Each;
using testing::ElementsAre;

TEST(ThreadTeamTest, RunsEachMemberOnce) {
  ThreadTeam team(4);
  team.SetThreads(3);
  std::vector<int> runs(4);

  for (int round = 0; round < 100; ++round) {
    team.Run([&](int member) { ++runs[static_cast<size_t>(member)]; });
  }

  EXPECT_THAT(runs, ElementsAre(100, 100, 100, 0));
}

TEST(ThreadTeamTest, RunsMemberZeroOnTheCallingThread) {
  ThreadTeam team(2);
  team.SetThreads(2);
  std::thread::id zero;
  std::thread::id one;

  team.Run([&](int member) { (member == 0 ? zero : one) = std::this_thread::get_id(); });

  EXPECT_EQ(zero, std::this_thread::get_id());
  EXPECT_NE(one, zero);
}

TEST(ThreadTeamTest, ShowsEachMemberWhatTheOthersWroteBeforeABarrier) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 2000;
  ThreadTeam team(kThreads);
  team.SetThreads(kThreads);
  // Each round every member adds up what all wrote in the round before.
  std::vector<int64_t> values[2] = {std::vector<int64_t>(kThreads, 1),
                                    std::vector<int64_t>(kThreads)};

  team.Run([&](int member) {
    for (int round = 0; round < kRounds; ++round) {
      int64_t sum = 0;
      for (const int64_t value : values[round % 2]) sum += value;
      values[1 - round % 2][static_cast<size_t>(member)] = sum % 1000;
      team.Barrier();
    }
  });

  int64_t expected = 1;
  for (int round = 0; round < kRounds; ++round) expected = expected * kThreads % 1000;
  EXPECT_THAT(values[kRounds % 2], Each(expected));
}

TEST(ThreadTeamTest, ChangesTheNumberOfThreadsBetweenRuns) {
  ThreadTeam team(3);
  std::atomic<int> members = 0;

  for (int round = 0; round < 300; ++round) {
    members = 0;
    team.SetThreads(1 + round % 3);
    team.Run([&](int) {
      team.Barrier();
      ++members;
      team.Barrier();
    });
    ASSERT_EQ(members, 1 + round % 3);
  }
}

TEST(ThreadTeamTest, HoldsTheNumberOfThreadsWithinItsBounds) {
  ThreadTeam team(2);

  team.SetThreads(0);
  EXPECT_EQ(team.threads(), 1);
  team.SetThreads(9);
  EXPECT_EQ(team.threads(), 2);
  EXPECT_EQ(ThreadTeam(-1).threads_max(), 1);
}

TEST(ThreadTeamTest, GivesHelpersTheCallersArithmeticMode) {
  ThreadTeam team(2);
  team.SetThreads(2);
  uint32_t before = 0;
  uint32_t within = 0;

  team.Run([&](int member) {
    if (member == 1) before = ArithmeticModeBits();
  });
  const ArithmeticMode mode;
  team.Run([&](int member) {
    if (member == 1) within = ArithmeticModeBits();
  });

  EXPECT_EQ(within, ArithmeticModeBits());
#if defined(__x86_64__)
  EXPECT_NE(within, before);
#endif
}

TEST(ThreadTeamTest, WorksForOneCallerAfterTheOther) {
  ThreadTeam team(2);
  team.SetThreads(2);
  int sum[2] = {};

  for (int caller = 0; caller < 5; ++caller) {
    std::thread([&] { team.Run([&](int member) { ++sum[member]; }); }).join();
  }

  EXPECT_THAT(sum, ElementsAre(5, 5));
}

}  // namespace
}  // namespace gradwatch
