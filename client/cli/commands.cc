#include "client/cli/commands.h"

#include <utility>

#include "client/cli/exit_code.h"
#include "client/cli/version.h"
#include "google/protobuf/struct.pb.h"

namespace gradwatch::cli {

Command HealthCommand() {
  Command command{.name = "health",
                  .purpose = "Ask whether the server is serving.",
                  .description = "Exit code 0: it serves; 7: it does not answer or is not ready.",
                  .examples = {"health", "health --server gpu1:7070 --timeout 2"}};
  command.run = [](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    if (const absl::Status status = (*client)->CheckHealth(""); !status.ok()) return status;
    if (session->json()) {
      google::protobuf::Struct answer;
      (*answer.mutable_fields())["status"].set_string_value("SERVING");
      session->PrintJson(answer);
    } else {
      session->out() << session->options().client.server << " is serving\n";
    }
    return kOk;
  };
  return command;
}

Command VersionCommand() {
  Command command{.name = "version",
                  .purpose = "Print the version of this program.",
                  .examples = {"version", "version -o json"}};
  command.run = [](Session* session) -> absl::StatusOr<int> {
    if (session->json()) {
      google::protobuf::Struct answer;
      (*answer.mutable_fields())["version"].set_string_value(Version());
      session->PrintJson(answer);
    } else {
      session->out() << VersionLine();
    }
    return kOk;
  };
  return command;
}

std::vector<Command> AllCommands() {
  std::vector<Command> commands;
  commands.push_back(SubmitCommand());
  commands.push_back(ListCommand());
  commands.push_back(GetCommand());
  commands.push_back(WatchCommand());
  commands.push_back(PauseCommand());
  commands.push_back(ResumeCommand());
  commands.push_back(AdvanceCommand());
  commands.push_back(CancelCommand());
  commands.push_back(UpdateCommand());
  commands.push_back(InterventionsCommand());
  commands.push_back(DeleteCommand());
  commands.push_back(AlertsCommand());
  commands.push_back(BatchCommand());
  commands.push_back(ReportCommand());
  commands.push_back(AdviseCommand());
  commands.push_back(CompareCommand());
  commands.push_back(SweepCommand());
  commands.push_back(CheckCommand());
  commands.push_back(ExportCommand());
  commands.push_back(DownloadCommand());
  commands.push_back(GenerateCommand());
  commands.push_back(DatasetsCommand());
  commands.push_back(HealthCommand());
  commands.push_back(VersionCommand());
  return commands;
}

}  // namespace gradwatch::cli
