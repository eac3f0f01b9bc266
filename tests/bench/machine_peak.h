#ifndef GRADWATCH_TESTS_BENCH_MACHINE_PEAK_H_
#define GRADWATCH_TESTS_BENCH_MACHINE_PEAK_H_

#include <cstdint>
#include <vector>

namespace gradwatch::bench {

// Both kinds of loop are measured in bursts of a few milliseconds. The best burst is the ceiling,
// the median tells how disturbed the machine was.
struct Rate {
  double best = 0.0;
  double median = 0.0;
};

// Vector widths in bits, smallest first, that this CPU and this program have a loop for.
std::vector<int> VectorBits();

// Operations per second of multiply-adds (two operations each; without a fused instruction a
// multiplication and an addition) that touch only registers, over `threads` threads together,
// measured for about `seconds`.
Rate MultiplyAddRate(int bits, int threads, double seconds);

// Bytes per second of a[i] = b[i] + s * c[i] in float32, two reads and a write counted, with
// `bytes` of arrays per thread, over `threads` threads together.
Rate TriadRate(int64_t bytes, int threads, double seconds);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_MACHINE_PEAK_H_
