#ifndef GRADWATCH_TESTS_BENCH_COMMANDS_H_
#define GRADWATCH_TESTS_BENCH_COMMANDS_H_

#include <string>

#include "absl/types/span.h"

namespace gradwatch::bench {

// The subcommands of gradwatch_bench. Each takes the arguments behind its name, prints its results
// to standard output and its complaints to standard error, and returns the exit code: 0 done,
// 1 failed, 2 wrong usage.

// Times training steps of a network; flags and JSON keys are those of pytorch_step.py.
int RunStep(absl::Span<const std::string> args);

// Tells what statistics cost of a step's CPU time.
int RunCost(absl::Span<const std::string> args);

// Measures what the CPU can do: multiply-adds from registers, and streams from each level of
// memory.
int RunPeak(absl::Span<const std::string> args);

// Times the engine's matrix products beside Eigen's.
int RunGemm(absl::Span<const std::string> args);

// Compares demonstration D7 with spoilt batches with and without the response ladder.
int RunLadder(absl::Span<const std::string> args);

// Makes a few small steps of each kind for an instruction counter (valgrind's callgrind).
int RunCount(absl::Span<const std::string> args);

// Trains labelled runs and tells what the alert rules made of them, beside those that others ship.
int RunDetection(absl::Span<const std::string> args);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_COMMANDS_H_
