#include "server/base/thread_team.h"

#include <algorithm>
#include <chrono>

#include "server/base/arithmetic_mode.h"

namespace gradwatch {
namespace {

constexpr uint32_t kMembersMask = 0xff;
constexpr uint32_t kRoundStep = 0x100;
// About as long as it takes to put a thread to sleep and wake it up again.
constexpr std::chrono::microseconds kSpin{50};

inline void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the value once it is not `old` any more.
uint32_t AwaitChange(const std::atomic<uint32_t>& value, uint32_t old) {
  constexpr int kLooksPerClock = 32;
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (const uint32_t now = value.load(std::memory_order_acquire); now != old) return now;
      Relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadTeam::ThreadTeam(int threads_max)
    : threads_max_(std::clamp(threads_max, 1, static_cast<int>(kMembersMask))) {}

ThreadTeam::~ThreadTeam() {
  round_.store((round_.load() & ~kMembersMask) + kRoundStep, std::memory_order_release);
  round_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadTeam::SetThreads(int threads) { threads_ = std::clamp(threads, 1, threads_max_); }

void ThreadTeam::Run(absl::FunctionRef<void(int)> body) {
  if (threads_ == 1) return body(0);
  const uint32_t before = round_.load(std::memory_order_relaxed);
  for (auto member = static_cast<int>(helpers_.size()) + 1; member < threads_; ++member) {
    helpers_.emplace_back([this, member, before] { Help(member, before); });
  }
  body_ = &body;
  arithmetic_mode_ = ArithmeticModeBits();
  round_.store((before & ~kMembersMask) + kRoundStep + static_cast<uint32_t>(threads_),
               std::memory_order_release);
  round_.notify_all();
  body(0);
  Barrier();
}

void ThreadTeam::Help(int member, uint32_t round) {
  for (;;) {
    round = AwaitChange(round_, round);
    const auto members = static_cast<int>(round & kMembersMask);
    if (members == 0) return;
    if (member >= members) continue;
    SetArithmeticModeBits(arithmetic_mode_);
    (*body_)(member);
    Barrier();
  }
}

void ThreadTeam::Barrier() {
  // Looked at before arriving: afterwards the caller may set another number.
  const int members = threads_;
  if (members == 1) return;
  const uint32_t passed = passed_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < members) {
    AwaitChange(passed_, passed);
    return;
  }
  arrived_.store(0, std::memory_order_relaxed);
  passed_.store(passed + 1, std::memory_order_release);
  passed_.notify_all();
}

}  // namespace gradwatch
