#ifndef GRADWATCH_CLIENT_CLI_APP_H_
#define GRADWATCH_CLIENT_CLI_APP_H_

#include <string>
#include <vector>

#include "client/cli/command.h"

namespace gradwatch::cli {

// The whole program but its process: reads `arguments` (without the program's name), runs the
// command and returns the exit code. An error is written to `environment.err` as a sentence.
int Run(const std::vector<std::string>& arguments, const Environment& environment);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_APP_H_
