#include "server/jobs/timer.h"

#include <algorithm>
#include <vector>

namespace gradwatch::jobs {

Timer::Timer(const Clock* clock)
    : clock_(clock), shared_(std::make_shared<Shared>()), thread_([this] { Work(); }) {}

Timer::~Timer() { Stop(); }

void Timer::Stop() {
  {
    MutexLock lock(&shared_->mu);
    shared_->stopping = true;
  }
  if (thread_.joinable()) thread_.join();
}

std::unique_ptr<Timer::Handle> Timer::At(absl::Time time, absl::AnyInvocable<void()> call) {
  auto callback = std::make_shared<Callback>(std::move(call));
  {
    MutexLock lock(&shared_->mu);
    shared_->waiting.emplace(time, callback);
  }
  return std::unique_ptr<Handle>(new Handle(shared_, time, std::move(callback)));
}

void Timer::Schedule(absl::Time time, absl::AnyInvocable<void()> call) {
  MutexLock lock(&shared_->mu);
  shared_->waiting.emplace(time, std::make_shared<Callback>(std::move(call)));
}

void Timer::Work() {
  Shared& shared = *shared_;
  for (;;) {
    std::vector<std::shared_ptr<Callback>> due;
    {
      MutexLock lock(&shared.mu);
      shared.mu.Await([&shared]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared.mu) {
        return shared.stopping || !shared.waiting.empty();
      });
      // The clock may be one that nobody can wait for, so it is looked at again and again while
      // somebody waits.
      const absl::Duration left =
          shared.stopping ? absl::ZeroDuration() : shared.waiting.begin()->first - clock_->Now();
      const absl::Duration wait = std::clamp(left, absl::ZeroDuration(), kLateness);
      shared.mu.AwaitFor(
          [&shared]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared.mu) { return shared.stopping; }, wait);
      if (shared.stopping) return;
      const absl::Time now = clock_->Now();
      while (!shared.waiting.empty() && shared.waiting.begin()->first <= now) {
        due.push_back(std::move(shared.waiting.begin()->second));
        shared.waiting.erase(shared.waiting.begin());
      }
    }
    for (const auto& callback : due) callback->Run();
  }
}

Timer::Handle::~Handle() {
  {
    MutexLock lock(&shared_->mu);
    const auto [begin, end] = shared_->waiting.equal_range(time_);
    for (auto i = begin; i != end; ++i) {
      if (i->second == callback_) {
        shared_->waiting.erase(i);
        break;
      }
    }
  }
  callback_->Cancel();
}

}  // namespace gradwatch::jobs
