#ifndef GRADWATCH_CLIENT_CLI_PARSER_H_
#define GRADWATCH_CLIENT_CLI_PARSER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/command.h"

namespace gradwatch::cli {

// What a command line asks for.
struct Parsed {
  // The command to run; null when `text` is all there is (help, version).
  const Command* command = nullptr;
  // "datasets upload".
  std::string path;
  // For the results' stream.
  std::string text;
};

// Reads `arguments` (without the program's name): calls the `set` of each flag that is given and
// fills `globals`, which holds the defaults. INVALID_ARGUMENT with a sentence, "did you mean" and
// the place of the help for what cannot be understood.
absl::StatusOr<Parsed> ParseCommandLine(const std::vector<std::string>& arguments,
                                        const std::vector<Command>& commands,
                                        GlobalOptions* globals);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_PARSER_H_
