#include "tests/bench/machine_peak.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace gradwatch::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kBurstSeconds = 2e-3;
constexpr int kBurstsMin = 5;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// --- multiply-adds
// --------------------------------------------------------------------------------

// A round is one multiply-add on each of 12 accumulators: more than latency times ports.
constexpr int kAccumulators = 12;

// In assembly on x86, so that no compiler setting moves an accumulator to memory or hoists work.
#if defined(__x86_64__)
#define GRADWATCH_TWELVE(op)                                                               \
  op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") \
      op("1"                                                                               \
         "1")
#define GRADWATCH_CLOBBERS                                                                 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "cc"

void Rounds128(int64_t rounds) {
#define GRADWATCH_OP(n) "mulps %%xmm13, %%xmm" n "\n\taddps %%xmm12, %%xmm" n "\n\t"
  asm volatile(
      "xorps %%xmm12, %%xmm12\n\txorps %%xmm13, %%xmm13\n\t"
      "1:\n\t" GRADWATCH_TWELVE(GRADWATCH_OP) "dec %0\n\tjnz 1b\n\t"
      : "+r"(rounds)
      :
      : GRADWATCH_CLOBBERS);
#undef GRADWATCH_OP
}

__attribute__((target("avx2,fma"))) void Rounds256(int64_t rounds) {
#define GRADWATCH_OP(n) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" n "\n\t"
  asm volatile(
      "vxorps %%ymm12, %%ymm12, %%ymm12\n\tvxorps %%ymm13, %%ymm13, %%ymm13\n\t"
      "1:\n\t" GRADWATCH_TWELVE(GRADWATCH_OP) "dec %0\n\tjnz 1b\n\tvzeroupper\n\t"
      : "+r"(rounds)
      :
      : GRADWATCH_CLOBBERS);
#undef GRADWATCH_OP
}

__attribute__((target("avx512f"))) void Rounds512(int64_t rounds) {
#define GRADWATCH_OP(n) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" n "\n\t"
  asm volatile(
      "vpxord %%zmm12, %%zmm12, %%zmm12\n\tvpxord %%zmm13, %%zmm13, %%zmm13\n\t"
      "1:\n\t" GRADWATCH_TWELVE(GRADWATCH_OP) "dec %0\n\tjnz 1b\n\tvzeroupper\n\t"
      : "+r"(rounds)
      :
      : GRADWATCH_CLOBBERS);
#undef GRADWATCH_OP
}
#undef GRADWATCH_TWELVE
#undef GRADWATCH_CLOBBERS
#else
using Vector4 = float __attribute__((vector_size(16)));

void Rounds128(int64_t rounds) {
  Vector4 sum[kAccumulators] = {};
  Vector4 factor = {};
  asm volatile("" : "+w"(factor));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (Vector4& each : sum) each += factor * factor;
#pragma GCC unroll 12
    for (Vector4& each : sum) asm volatile("" : "+w"(each));
  }
}
#endif

void RunRounds(int bits, int64_t rounds) {
#if defined(__x86_64__)
  if (bits == 512) return Rounds512(rounds);
  if (bits == 256) return Rounds256(rounds);
#endif
  Rounds128(rounds);
}

// --- triad
// ----------------------------------------------------------------------------------------

// Compiled with full optimisation; the widest instructions are chosen when the program starts.
#if defined(__x86_64__)
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
void Triad(int64_t n, float s, const float* __restrict b, const float* __restrict c,
           float* __restrict a) {
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
}

// --- bursts on several threads
// --------------------------------------------------------------------

// Calls `burst` on all threads at once, again and again, and returns what they did per second
// together; one burst of one thread does `work`.
Rate Measure(int threads, double seconds, double work, const std::function<void(int)>& burst) {
  std::vector<double> rates;
  bool done = false;
  Clock::time_point round_begin;
  const Clock::time_point begin = Clock::now();
  const auto end_round = [&]() noexcept {
    const double took = SecondsSince(round_begin);
    if (took > 0.0) rates.push_back(work * threads / took);
    done = SecondsSince(begin) >= seconds && rates.size() >= kBurstsMin;
  };
  const auto begin_round = [&]() noexcept { round_begin = Clock::now(); };
  std::barrier before(threads, begin_round);
  std::barrier after(threads, end_round);
  const auto run = [&](int thread) {
    burst(thread);  // Warm-up.
    while (!done) {
      before.arrive_and_wait();
      burst(thread);
      after.arrive_and_wait();
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& thread : others) thread.join();
  std::sort(rates.begin(), rates.end());
  return {rates.back(), rates[rates.size() / 2]};
}

// Repetitions that fill a burst.
int64_t Repetitions(const std::function<void(int64_t)>& run) {
  for (int64_t n = 1;; n *= 2) {
    const Clock::time_point begin = Clock::now();
    run(n);
    if (SecondsSince(begin) >= kBurstSeconds) return n;
  }
}

}  // namespace

std::vector<int> VectorBits() {
  std::vector<int> bits = {128};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) bits.push_back(256);
  if (__builtin_cpu_supports("avx512f")) bits.push_back(512);
#endif
  return bits;
}

Rate MultiplyAddRate(int bits, int threads, double seconds) {
  const int64_t rounds = Repetitions([bits](int64_t n) { RunRounds(bits, n); });
  const double work = 2.0 * kAccumulators * (bits / 32) * static_cast<double>(rounds);
  return Measure(threads, seconds, work, [&](int) { RunRounds(bits, rounds); });
}

Rate TriadRate(int64_t bytes, int threads, double seconds) {
  struct Arrays {
    std::vector<float> a, b, c;
  };
  const int64_t n = bytes / 12;
  std::vector<Arrays> arrays(static_cast<size_t>(threads));
  for (Arrays& each : arrays) {
    each.a.assign(static_cast<size_t>(n), 0.0f);
    each.b.assign(static_cast<size_t>(n), 1.0f);
    each.c.assign(static_cast<size_t>(n), 2.0f);
  }
  const auto run = [&](int thread, int64_t times) {
    Arrays& own = arrays[static_cast<size_t>(thread)];
    for (int64_t i = 0; i < times; ++i) Triad(n, 0.5f, own.b.data(), own.c.data(), own.a.data());
  };
  const int64_t times = Repetitions([&](int64_t count) { run(0, count); });
  return Measure(threads, seconds, 12.0 * static_cast<double>(n * times),
                 [&](int thread) { run(thread, times); });
}

}  // namespace gradwatch::bench
