#include "client/cpp/cancellation.h"

#include <gtest/gtest.h>

namespace gradwatch::client {
namespace {

TEST(CancellationTest, RunsEachCallbackOnce) {
  Cancellation cancellation;
  int runs = 0;
  cancellation.Add([&runs] { ++runs; });

  cancellation.Cancel();
  cancellation.Cancel();

  EXPECT_EQ(runs, 1);
  EXPECT_TRUE(cancellation.cancelled());
}

TEST(CancellationTest, ForgetsWhatIsRemoved) {
  Cancellation cancellation;
  int runs = 0;
  cancellation.Remove(cancellation.Add([&runs] { ++runs; }));

  cancellation.Cancel();

  EXPECT_EQ(runs, 0);
}

TEST(CancellationTest, RunsALateCallbackAtOnce) {
  Cancellation cancellation;
  cancellation.Cancel();
  int runs = 0;

  cancellation.Add([&runs] { ++runs; });

  EXPECT_EQ(runs, 1);
}

TEST(CancellationTest, EndsAWait) {
  Cancellation cancellation;
  EXPECT_FALSE(cancellation.WaitFor(absl::ZeroDuration()));

  cancellation.Cancel();

  EXPECT_TRUE(cancellation.WaitFor(absl::InfiniteDuration()));
}

}  // namespace
}  // namespace gradwatch::client
