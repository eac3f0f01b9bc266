#include "tests/bench/flags.h"

#include <algorithm>
#include <vector>

namespace gradwatch::bench {

std::optional<int> ParseFlags(CLI::App& app, absl::Span<const std::string> args) {
  std::vector<std::string> reversed(args.rbegin(), args.rend());  // As CLI11 takes them.
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return std::nullopt;
}

}  // namespace gradwatch::bench
