#include "server/jobs/timer.h"

#include <atomic>

#include "gtest/gtest.h"
#include "tests/unit/jobs/fake_clock.h"
#include "tests/unit/jobs/fake_trainer.h"

namespace gradwatch::jobs {
namespace {

TEST(TimerTest, RunsWhatIsDueByItsClock) {
  FakeClock clock;
  Timer timer(&clock);
  Bell early, late;
  std::atomic<bool> late_ran = false;
  const auto first = timer.At(clock.Now() + absl::Hours(1), early.Ringer());
  const auto second = timer.At(clock.Now() + absl::Hours(2), [&, ring = late.Ringer()]() mutable {
    late_ran = true;
    ring();
  });

  clock.Advance(absl::Hours(1));
  early.Await();
  EXPECT_FALSE(late_ran);
  clock.Advance(absl::Hours(1));
  late.Await();

  EXPECT_TRUE(late_ran);
}

TEST(TimerTest, DoesNotRunWhatWasCalledOff) {
  FakeClock clock;
  Timer timer(&clock);
  std::atomic<int> calls = 0;
  Bell bell;
  timer.At(clock.Now() + absl::Seconds(1), [&calls] { ++calls; }).reset();
  timer.Schedule(clock.Now() + absl::Seconds(2), bell.Ringer());

  clock.Advance(absl::Seconds(2));
  bell.Await();

  EXPECT_EQ(calls, 0);
}

TEST(TimerTest, HandlesMayOutliveIt) {
  FakeClock clock;
  std::unique_ptr<Timer::Handle> handle;
  {
    Timer timer(&clock);
    handle = timer.At(clock.Now() + absl::Seconds(1), [] {});
  }
  handle.reset();
}

}  // namespace
}  // namespace gradwatch::jobs
