#include "server/base/thread_pool.h"

#include <atomic>

#include "gtest/gtest.h"

namespace gradwatch {
namespace {

TEST(ThreadPoolTest, RunsEverythingThatIsQueuedBeforeItIsGone) {
  std::atomic<int> ran = 0;

  {
    ThreadPool pool(3, 1000);
    for (int i = 0; i < 500; ++i) EXPECT_TRUE(pool.Schedule([&] { ++ran; }));
  }

  EXPECT_EQ(ran, 500);
}

TEST(ThreadPoolTest, RefusesBeyondItsBound) {
  Mutex mu;
  bool started = false, release = false;
  ThreadPool pool(1, 1);
  EXPECT_TRUE(pool.Schedule([&] {
    MutexLock lock(&mu);
    started = true;
    mu.Await([&] { return release; });
  }));
  {
    MutexLock lock(&mu);
    mu.Await([&] { return started; });
  }

  EXPECT_TRUE(pool.Schedule([] {}));
  EXPECT_FALSE(pool.Schedule([] {}));

  MutexLock lock(&mu);
  release = true;
}

}  // namespace
}  // namespace gradwatch
