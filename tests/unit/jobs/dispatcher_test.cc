#include "server/jobs/dispatcher.h"

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace gradwatch::jobs {
namespace {

// Counts its turns, and can be waited for.
class Counter final : public Dispatcher::Item {
 public:
  void Serve() override {
    if (before_turn) before_turn();
    MutexLock lock(&mu_);
    ++turns_;
  }
  int turns() const {
    MutexLock lock(&mu_);
    return turns_;
  }
  void AwaitTurns(int turns) {
    MutexLock lock(&mu_);
    mu_.Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return turns_ >= turns; });
  }

  std::function<void()> before_turn;  // Set before it is posted.

 private:
  mutable Mutex mu_;
  int turns_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST(DispatcherTest, ServesEveryPostWhetherItSleepsOrPauses) {
  Dispatcher dispatcher;
  const auto item = std::make_shared<Counter>();

  for (int i = 1; i <= 20; ++i) {
    dispatcher.Post(item);
    item->AwaitTurns(i);
  }

  EXPECT_EQ(item->turns(), 20);
}

TEST(DispatcherTest, GivesOneTurnForManyPostsAndAnotherForOneDuringTheTurn) {
  Dispatcher dispatcher;
  const auto gate = std::make_shared<Counter>();
  const auto item = std::make_shared<Counter>();
  std::atomic<bool> open = false;
  gate->before_turn = [&open] { open.wait(false); };
  int posts_within = 1;
  item->before_turn = [&] {
    if (posts_within-- > 0) dispatcher.Post(item);
  };

  dispatcher.Post(gate);
  for (int i = 0; i < 100; ++i) dispatcher.Post(item);
  open = true;
  open.notify_all();
  dispatcher.Stop();

  EXPECT_GE(item->turns(), 2);
  EXPECT_LE(item->turns(), 3);  // Three when the gate had its turn before the loop ended.
}

TEST(DispatcherTest, ServesInOrderOfPosting) {
  Dispatcher dispatcher;
  const auto gate = std::make_shared<Counter>();
  std::atomic<bool> open = false;
  std::atomic<bool> entered = false;
  gate->before_turn = [&] {
    entered = true;
    entered.notify_all();
    open.wait(false);
  };
  dispatcher.Post(gate);
  entered.wait(false);
  std::vector<int> order;
  std::vector<std::shared_ptr<Counter>> items;
  for (int i = 0; i < 3; ++i) {
    items.push_back(std::make_shared<Counter>());
    items.back()->before_turn = [&order, i] { order.push_back(i); };
    dispatcher.Post(items.back());
  }

  open = true;
  open.notify_all();
  dispatcher.Stop();

  EXPECT_EQ(order, std::vector<int>({0, 1, 2}));
}

TEST(DispatcherTest, StopServesWhatIsPostedAndLetsItGo) {
  const auto item = std::make_shared<Counter>();
  {
    Dispatcher dispatcher;
    dispatcher.Post(item);
  }

  EXPECT_EQ(item->turns(), 1);
  EXPECT_EQ(item.use_count(), 1);
}

TEST(DispatcherTest, LosesNoPostOfManyThreads) {
  constexpr int kPosts = 5000;
  Dispatcher dispatcher;
  // Each item is served after its last post, so it sees the last count.
  struct Tally final : Dispatcher::Item {
    void Serve() override { seen = count.load(); }
    std::atomic<int> count = 0;
    std::atomic<int> seen = 0;
  };
  std::vector<std::shared_ptr<Tally>> tallies;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) tallies.push_back(std::make_shared<Tally>());

  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&dispatcher, &tallies] {
      for (int i = 0; i < kPosts; ++i) {
        const auto& tally = tallies[static_cast<size_t>(i) % tallies.size()];
        ++tally->count;
        dispatcher.Post(tally);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  dispatcher.Stop();

  for (const auto& tally : tallies) EXPECT_EQ(tally->seen, tally->count);
}

}  // namespace
}  // namespace gradwatch::jobs
