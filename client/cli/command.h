#ifndef GRADWATCH_CLIENT_CLI_COMMAND_H_
#define GRADWATCH_CLIENT_CLI_COMMAND_H_

#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "google/protobuf/message.h"

namespace gradwatch::cli {

// What surrounds one run of the program; a test gives its own.
struct Environment {
  std::ostream* out = nullptr;  // Results.
  std::ostream* err = nullptr;  // Messages.
  std::map<std::string, std::string> variables;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool unicode = true;  // The terminal shows UTF-8.
  int columns = 80;
  // Cancelled by Ctrl-C.
  std::shared_ptr<client::Cancellation> interrupt;
};

// Flags that every command has.
struct GlobalOptions {
  client::ClientOptions client;
  bool timeout_given = false;
  bool json = false;
  std::string color = "auto";
  bool quiet = false;
};

enum class Color { kBold, kDim, kRed, kYellow, kGreen };

// What a running command works with.
class Session {
 public:
  Session(const Environment& environment, const GlobalOptions& options)
      : environment_(environment), options_(options) {}

  const Environment& environment() const { return environment_; }
  const GlobalOptions& options() const { return options_; }
  bool json() const { return options_.json; }
  std::ostream& out() const { return *environment_.out; }

  // The client, made at the first call. Its calls wait as long as --timeout says, else `timeout`;
  // with `waits` --timeout is for something longer than a call and `timeout` always holds.
  absl::StatusOr<client::Client*> Connect(absl::Duration timeout = absl::Seconds(10),
                                          bool waits = false);

  // `text` in a colour when the results' stream shows colours.
  std::string Paint(Color color, absl::string_view text) const;

  // A line for people on the message stream, not with --quiet.
  void Note(absl::string_view line) const;

  // The message as proto JSON with proto field names on one line, or indented on several.
  void PrintJson(const google::protobuf::Message& message, bool one_line = false) const;

  bool interrupted() const { return environment_.interrupt && environment_.interrupt->cancelled(); }

 private:
  const Environment& environment_;
  GlobalOptions options_;
  std::unique_ptr<client::Client> client_;
};

using SetFlag = std::function<absl::Status(const std::string&)>;

// A flag, or a positional argument.
struct Flag {
  std::string names;         // "-o,--output"; a name without dashes is positional.
  std::string value;         // What the help calls its value; empty: a switch.
  std::string help;          // One sentence without its default.
  std::string default_text;  // Shown in the help.
  std::string field = {};    // The job's field that it sets; errors about it name the flag.
  std::string group = {};    // Heading in the help.
  bool repeated = false;     // May be given several times (positional: several values).
  bool required = true;      // Positional only.
  SetFlag set = {};          // Called for each value; for a switch with "".
};

// One command of the program, or a group of them.
struct Command {
  std::string name;
  std::string purpose;                // One line.
  std::string description = {};       // More, after the flags.
  std::vector<std::string> examples;  // Without the leading "gradwatch".
  std::vector<Flag> flags;
  // Returns the exit code; an error is explained and mapped (exit_code.h).
  std::function<absl::StatusOr<int>(Session*)> run;
  std::vector<Command> subcommands = {};
};

// Every command, with fresh state: one call for each run.
std::vector<Command> AllCommands();

// --- the value of a flag into a variable ---
SetFlag Into(std::string* target);
SetFlag Into(std::vector<std::string>* target);
SetFlag Into(int64_t* target);
SetFlag Into(double* target);
SetFlag Into(absl::Duration* target);  // Seconds ("10", "0.5") or with a unit ("500ms", "2m").
SetFlag Into(bool* target);            // A switch: true.
// One of the choices; another value is an error with "did you mean".
SetFlag OneOf(std::vector<std::string> choices, std::string* target);

// The positional JOB.
Flag JobArgument(std::string* job);

// "jobs/x" for "x" and for "jobs/x"; the same for data sets.
std::string JobName(absl::string_view id);
std::string DatasetName(absl::string_view id);
// "x" for "jobs/x".
std::string IdOf(absl::string_view name);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_COMMAND_H_
