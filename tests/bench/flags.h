#ifndef GRADWATCH_TESTS_BENCH_FLAGS_H_
#define GRADWATCH_TESTS_BENCH_FLAGS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "absl/types/span.h"

namespace gradwatch::bench {

// Parses the arguments of one subcommand into what `app` was bound to. An exit code when the
// program should end at once: --help (0) or wrong usage (2); the message has been printed.
std::optional<int> ParseFlags(CLI::App& app, absl::Span<const std::string> args);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_FLAGS_H_
