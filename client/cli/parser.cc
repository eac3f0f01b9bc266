#include "client/cli/parser.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/text.h"
#include "client/cli/version.h"
#include "proto/support/closest_name.h"

namespace gradwatch::cli {
namespace {

constexpr size_t kHelpWidth = 100;
constexpr size_t kFlagColumns = 34;

constexpr char kEpilogue[] =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or setting, 3 not found, 4 denied, 5 the state "
    "does\n"
    "not allow it, 6 timeout, 7 no server, 130 interrupted. watch and submit --wait: 0 the job\n"
    "succeeded, 1 it failed, 3 unknown job, 5 it was cancelled, 6 timeout, 130 Ctrl-C (the job "
    "goes on).\n"
    "Environment: GRADWATCH_SERVER (a default for --server), NO_COLOR.\n";

bool IsPositional(const Flag& flag) { return !absl::StartsWith(flag.names, "-"); }

// Help in one look for all commands; CLI11's own cannot lead with examples or wrap lines.
class Help {
 public:
  Help(const std::vector<Command>& commands, const std::vector<Flag>& globals)
      : commands_(commands), globals_(globals) {}

  std::string OfProgram() const {
    std::string text =
        "gradwatch watches the gradient of recurrent-network training jobs on a gradwatchd "
        "server.\n\n"
        "Usage: gradwatch COMMAND [ARGUMENTS] [FLAGS]\n\nCommands:\n";
    for (const Command& command : commands_) Row(command.name, command.purpose, &text);
    absl::StrAppend(&text, "\nExamples:\n",
                    "  gradwatch submit --task temporal-order --cell rnn-tanh --clip 0.5 --watch\n"
                    "  gradwatch watch jobs/ID\n"
                    "  gradwatch compare ID1 ID2\n",
                    "\nFlags of every command:\n");
    Flags(globals_, &text);
    absl::StrAppend(&text, "\nHelp for one command: gradwatch COMMAND --help\n", kEpilogue);
    return text;
  }

  std::string OfCommand(const Command& command, const std::string& path) const {
    std::string usage = absl::StrCat("Usage: gradwatch ", path);
    std::vector<Flag> positional, named;
    for (const Flag& flag : command.flags)
      (IsPositional(flag) ? positional : named).push_back(flag);
    for (const Flag& flag : positional) {
      const std::string name = absl::StrCat(flag.names, flag.repeated ? "..." : "");
      absl::StrAppend(&usage, " ", flag.required ? name : absl::StrCat("[", name, "]"));
    }
    if (!command.subcommands.empty()) absl::StrAppend(&usage, " COMMAND");
    std::string text = absl::StrCat(command.purpose, "\n\n", usage, " [FLAGS]\n");
    if (!command.subcommands.empty()) absl::StrAppend(&text, "\nCommands:\n");
    for (const Command& sub : command.subcommands) Row(sub.name, sub.purpose, &text);
    absl::StrAppend(&text, "\nExamples:\n");
    for (const std::string& example : command.examples) {
      absl::StrAppend(&text, "  gradwatch ", example, "\n");
    }
    if (!positional.empty()) absl::StrAppend(&text, "\nArguments:\n");
    Flags(positional, &text);
    std::vector<std::string> groups;
    for (const Flag& flag : named) {
      if (std::find(groups.begin(), groups.end(), flag.group) == groups.end()) {
        groups.push_back(flag.group);
      }
    }
    for (const std::string& group : groups) {
      absl::StrAppend(&text, "\n", group.empty() ? "Flags" : group, ":\n");
      std::vector<Flag> members;
      for (const Flag& flag : named) {
        if (flag.group == group) members.push_back(flag);
      }
      Flags(members, &text);
    }
    absl::StrAppend(&text, "\nFlags of every command:\n");
    Flags(globals_, &text);
    if (!command.description.empty()) {
      text += "\n";
      for (const absl::string_view paragraph : absl::StrSplit(command.description, '\n')) {
        absl::StrAppend(&text, Wrap(paragraph, kHelpWidth, 0), "\n");
      }
    }
    return text;
  }

 private:
  static void Row(const std::string& left, const std::string& right, std::string* text) {
    std::string line = absl::StrCat("  ", left);
    if (line.size() + 2 > kFlagColumns) {
      absl::StrAppend(text, line, "\n");
      line.clear();
    }
    line.resize(kFlagColumns, ' ');
    const std::string wrapped = Wrap(right, kHelpWidth - kFlagColumns, 0);
    absl::StrAppend(text, line,
                    absl::StrJoin(absl::StrSplit(wrapped, '\n'),
                                  absl::StrCat("\n", std::string(kFlagColumns, ' '))),
                    "\n");
  }

  static void Flags(const std::vector<Flag>& flags, std::string* text) {
    for (const Flag& flag : flags) {
      const std::string names = absl::StrJoin(absl::StrSplit(flag.names, ','), ", ");
      std::string right = flag.help;
      if (!flag.default_text.empty()) {
        absl::StrAppend(&right, " Default: ", flag.default_text, ".");
      }
      Row(flag.value.empty() || IsPositional(flag) ? names : absl::StrCat(names, " ", flag.value),
          right, text);
    }
  }

  const std::vector<Command>& commands_;
  const std::vector<Flag>& globals_;
};

std::vector<Flag> GlobalFlags(GlobalOptions* globals) {
  client::ClientOptions* const client = &globals->client;
  const auto tls_file = [client](std::string* target) {
    return [client, target](const std::string& value) {
      client->use_tls = true;
      *target = value;
      return absl::OkStatus();
    };
  };
  return {
      {.names = "--server",
       .value = "HOST:PORT",
       .help = "The server.",
       .default_text = "$GRADWATCH_SERVER, else 127.0.0.1:7070",
       .set = Into(&client->server)},
      {.names = "-o",
       .value = "table|json",
       .help = "Form of the results; json is proto JSON with the field names of the .proto files "
               "(64-bit integers are strings, NaN is \"NaN\").",
       .default_text = "table",
       .set =
           [globals](const std::string& value) {
             std::string form;
             const absl::Status status = OneOf({"table", "json"}, &form)(value);
             globals->json = form == "json";
             return status;
           }},
      {.names = "--timeout",
       .value = "TIME",
       .help = "How long to wait for an answer, such as 10, 500ms or 2m; for watch and --wait: for "
               "the job's end.",
       .default_text = "10 s; watch and --wait: no limit",
       .set =
           [globals, client](const std::string& value) {
             globals->timeout_given = true;
             return Into(&client->timeout)(value);
           }},
      {.names = "--color",
       .value = "auto|always|never",
       .help = "Colours; auto: in a terminal, unless NO_COLOR is set.",
       .default_text = "auto",
       .set = OneOf({"auto", "always", "never"}, &globals->color)},
      {.names = "-q,--quiet",
       .help = "No messages beside results and errors.",
       .set = Into(&globals->quiet)},
      {.names = "--tls", .help = "Use TLS.", .set = Into(&client->use_tls)},
      {.names = "--ca-file",
       .value = "FILE",
       .help = "PEM certificates that the server's must descend from (implies --tls).",
       .default_text = "the system's",
       .set = tls_file(&client->tls.ca_file)},
      {.names = "--cert",
       .value = "FILE",
       .help = "PEM certificate chain of this client (implies --tls).",
       .set = tls_file(&client->tls.cert_file)},
      {.names = "--key",
       .value = "FILE",
       .help = "PEM key of --cert.",
       .set = tls_file(&client->tls.key_file)},
  };
}

void AddFlag(const Flag& flag, CLI::App* app) {
  const std::string shown =
      IsPositional(flag) ? flag.names : std::string(flag.names.substr(flag.names.rfind(',') + 1));
  const auto take = [set = flag.set, shown](const CLI::results_t& values) {
    for (const std::string& value : values) {
      if (const absl::Status status = set(value); !status.ok()) {
        throw CLI::ValidationError(absl::StrCat(shown, " ", std::string(status.message())));
      }
    }
    return true;
  };
  if (!IsPositional(flag) && flag.value.empty()) {
    app->add_flag_callback(flag.names, [take] { take({""}); });
    return;
  }
  CLI::Option* const option = app->add_option(flag.names, take);
  if (IsPositional(flag)) {
    if (flag.repeated) option->take_all()->expected(1, -1)->allow_extra_args();
    option->required(flag.required);
  } else if (flag.repeated) {
    option->take_all();
  } else {
    option->take_last();
  }
}

// The CLI11 side of one command and of those below it.
struct Node {
  CLI::App* app;
  const Command* command;
  std::string path;
};

void AddCommand(const Command& command, const std::string& parent, CLI::App* app,
                std::vector<Node>* nodes) {
  CLI::App* const sub = app->add_subcommand(command.name, command.purpose);
  sub->set_help_flag();
  sub->fallthrough();
  sub->add_flag("-h,--help");
  const std::string path = parent.empty() ? command.name : absl::StrCat(parent, " ", command.name);
  nodes->push_back({sub, &command, path});
  for (const Flag& flag : command.flags) AddFlag(flag, sub);
  for (const Command& child : command.subcommands) AddCommand(child, path, sub, nodes);
}

std::vector<std::string> NamesOf(const std::vector<Command>& commands) {
  std::vector<std::string> names;
  for (const Command& command : commands) names.push_back(command.name);
  return names;
}

absl::Status Misunderstood(absl::string_view what, absl::string_view path) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "\n(gradwatch ", path, path.empty() ? "" : " ", "--help explains)"));
}

absl::Status UnknownWord(const std::string& word, const Node* node,
                         const std::vector<Command>& commands, const std::vector<Flag>& globals) {
  const std::string path = node == nullptr ? "" : node->path;
  if (!absl::StartsWith(word, "-")) {
    const bool wants_command = node == nullptr || !node->command->subcommands.empty();
    if (!wants_command) {
      return Misunderstood(absl::StrCat("'", word, "' is one argument too many"), path);
    }
    const std::vector<std::string> names =
        NamesOf(node == nullptr ? commands : node->command->subcommands);
    const std::string hint = DidYouMean(word, names);
    return Misunderstood(
        absl::StrCat(
            "there is no command '", path, path.empty() ? "" : " ", word, "'",
            hint.empty() ? absl::StrCat("; there are ", absl::StrJoin(names, ", ")) : hint),
        path);
  }
  std::vector<std::string> names;
  const auto collect = [&names](const std::vector<Flag>& flags) {
    for (const Flag& flag : flags) {
      for (const absl::string_view name : absl::StrSplit(flag.names, ',')) {
        if (absl::StartsWith(name, "--")) names.emplace_back(name);
      }
    }
  };
  collect(globals);
  if (node != nullptr) collect(node->command->flags);
  const std::string flag = word.substr(0, word.find('='));
  return Misunderstood(absl::StrCat("there is no flag ", flag, DidYouMean(flag, names)), path);
}

// The flag among `flags` that `argument` is; null for none.
const Flag* FlagNamed(absl::string_view argument, const std::vector<const Flag*>& flags) {
  for (const Flag* flag : flags) {
    if (IsPositional(*flag)) continue;
    for (const absl::string_view name : absl::StrSplit(flag->names, ',')) {
      if (name == argument) return flag;
    }
  }
  return nullptr;
}

// The first flag that stands without its value: at the end, or before another flag, which the
// library would take for the value. Empty for none.
std::string FlagWithoutValue(const std::vector<std::string>& arguments,
                             const std::vector<const Flag*>& flags) {
  for (size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    const Flag* const flag = FlagNamed(arguments[i], flags);
    if (flag == nullptr || flag->value.empty()) continue;
    const bool last = i + 1 == arguments.size();
    if (last || FlagNamed(arguments[i + 1], flags) != nullptr) {
      return absl::StrCat(arguments[i], " needs a value, ", flag->value,
                          last ? "" : absl::StrCat(", before ", arguments[i + 1]));
    }
    ++i;
  }
  return "";
}

}  // namespace

absl::StatusOr<Parsed> ParseCommandLine(const std::vector<std::string>& arguments,
                                        const std::vector<Command>& commands,
                                        GlobalOptions* globals) {
  const std::vector<Flag> global_flags = GlobalFlags(globals);
  const Help help(commands, global_flags);
  CLI::App app;
  app.set_help_flag();
  app.add_flag("-h,--help");
  app.add_flag("--version");
  app.allow_extras();
  for (const Flag& flag : global_flags) AddFlag(flag, &app);
  std::vector<Node> nodes;
  for (const Command& command : commands) AddCommand(command, "", &app, &nodes);

  std::string error;
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& problem) {
    error = problem.what();
  }
  const Node* chosen = nullptr;  // The innermost command that was named.
  std::vector<const Flag*> flags;
  for (const Flag& flag : global_flags) flags.push_back(&flag);
  for (const Node& node : nodes) {
    if (!node.app->parsed()) continue;
    chosen = &node;
    for (const Flag& flag : node.command->flags) flags.push_back(&flag);
  }
  const std::string path = chosen == nullptr ? "" : chosen->path;
  if (app.count("--help") > 0 || (chosen != nullptr && chosen->app->count("--help") > 0)) {
    return Parsed{nullptr, path,
                  chosen == nullptr ? help.OfProgram() : help.OfCommand(*chosen->command, path)};
  }
  if (app.count("--version") > 0) return Parsed{nullptr, "", VersionLine()};
  if (const std::string missing = FlagWithoutValue(arguments, flags); !missing.empty()) {
    return Misunderstood(missing, path);
  }
  const std::vector<std::string> unknown = app.remaining(true);
  if (!unknown.empty()) return UnknownWord(unknown.front(), chosen, commands, global_flags);
  if (!error.empty()) return Misunderstood(error, path);
  if (chosen == nullptr) return Misunderstood("which command?", "");
  if (!chosen->command->run) {
    return Misunderstood(
        absl::StrCat("which of ", path, ": ",
                     absl::StrJoin(NamesOf(chosen->command->subcommands), ", "), "?"),
        path);
  }
  return Parsed{chosen->command, path, ""};
}

}  // namespace gradwatch::cli
