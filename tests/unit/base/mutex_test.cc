#include "server/base/mutex.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace gradwatch {
namespace {

TEST(MutexTest, GuardsACounter) {
  Mutex mu;
  int counter = 0;
  std::vector<std::thread> threads;

  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) {
        MutexLock lock(&mu);
        ++counter;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(counter, 4000);
}

TEST(MutexTest, AwaitWakesWhenTheConditionTurnsTrue) {
  Mutex mu;
  int stage = 0;
  std::thread other([&] {
    MutexLock lock(&mu);
    mu.Await([&] { return stage == 1; });
    stage = 2;
  });

  {
    MutexLock lock(&mu);
    stage = 1;
  }
  {
    MutexLock lock(&mu);
    mu.Await([&] { return stage == 2; });
  }

  other.join();
  EXPECT_EQ(stage, 2);
}

TEST(MutexTest, AwaitForTellsWhetherTheConditionWasMet) {
  Mutex mu;
  MutexLock lock(&mu);

  EXPECT_TRUE(mu.AwaitFor([] { return true; }, absl::ZeroDuration()));
  EXPECT_FALSE(mu.AwaitFor([] { return false; }, absl::Milliseconds(1)));
}

}  // namespace
}  // namespace gradwatch
