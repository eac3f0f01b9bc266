#include "client/cli/app.h"

#include <ostream>

#include "absl/status/statusor.h"
#include "absl/strings/str_split.h"
#include "client/cli/exit_code.h"
#include "client/cli/parser.h"

namespace gradwatch::cli {
namespace {

ErrorContext ContextOf(const GlobalOptions& globals, const Command* command) {
  ErrorContext context{globals.client.server, globals.client.timeout, {}};
  if (command == nullptr) return context;
  for (const Flag& flag : command->flags) {
    if (flag.field.empty()) continue;
    const std::string name = flag.names.substr(flag.names.rfind(',') + 1);
    for (const absl::string_view field : absl::StrSplit(flag.field, ' ')) {
      context.flags.emplace(field, name);
    }
  }
  return context;
}

int Complain(const absl::Status& status, const ErrorContext& context,
             const Environment& environment) {
  if (absl::IsCancelled(status) && environment.interrupt && environment.interrupt->cancelled()) {
    *environment.err << "gradwatch: interrupted" << std::endl;
    return kInterrupted;
  }
  *environment.err << "gradwatch: " << Explain(status, context) << std::endl;
  return ExitCodeOf(status);
}

}  // namespace

int Run(const std::vector<std::string>& arguments, const Environment& environment) {
  GlobalOptions globals;
  const auto server = environment.variables.find("GRADWATCH_SERVER");
  if (server != environment.variables.end() && !server->second.empty()) {
    globals.client.server = server->second;
  }
  const std::vector<Command> commands = AllCommands();
  const absl::StatusOr<Parsed> parsed = ParseCommandLine(arguments, commands, &globals);
  if (!parsed.ok()) return Complain(parsed.status(), ContextOf(globals, nullptr), environment);
  if (parsed->command == nullptr) {
    *environment.out << parsed->text << std::flush;
    return kOk;
  }
  Session session(environment, globals);
  const absl::StatusOr<int> code = parsed->command->run(&session);
  environment.out->flush();
  if (!code.ok()) return Complain(code.status(), ContextOf(globals, parsed->command), environment);
  return *code;
}

}  // namespace gradwatch::cli
