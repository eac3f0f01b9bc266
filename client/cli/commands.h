#ifndef GRADWATCH_CLIENT_CLI_COMMANDS_H_
#define GRADWATCH_CLIENT_CLI_COMMANDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "client/cli/compare.h"
#include "gradwatch/v1/alert.pb.h"

// The commands, by file; AllCommands (command.h) puts them together.
namespace gradwatch::cli {

Command SubmitCommand();         // submit.cc
Command CheckCommand();          // submit.cc
Command ListCommand();           // jobs.cc
Command GetCommand();            // jobs.cc
Command PauseCommand();          // jobs.cc
Command ResumeCommand();         // jobs.cc
Command CancelCommand();         // jobs.cc
Command UpdateCommand();         // jobs.cc
Command DeleteCommand();         // jobs.cc
Command AdvanceCommand();        // interventions.cc
Command InterventionsCommand();  // interventions.cc
Command WatchCommand();          // watch.cc
Command AlertsCommand();         // alerts.cc
Command BatchCommand();          // batch.cc
Command ReportCommand();         // results.cc
Command AdviseCommand();         // advise.cc
Command CompareCommand();        // results.cc
Command SweepCommand();          // sweep.cc
Command ExportCommand();         // results.cc
Command DownloadCommand();       // results.cc
Command GenerateCommand();       // results.cc
Command DatasetsCommand();       // datasets.cc
Command HealthCommand();         // commands.cc
Command VersionCommand();        // commands.cc

// How a job is waited for.
struct WatchOptions {
  std::string job;                   // Id or name.
  std::optional<int64_t> from_step;  // Absent: what is kept, thinned out, then live.
  absl::Duration interval = absl::Seconds(1);
  bool interval_given = false;
  bool reconnect = false;
  bool lossless = false;
  bool plain = false;
};

// Shows a job until it is final; returns the exit code that its state, Ctrl-C, the timeout or a
// lost server gives.
absl::StatusOr<int> WatchJob(Session* session, const WatchOptions& options);

// Only waits; prints the outcome.
absl::StatusOr<int> WaitForJob(Session* session, const std::string& job, bool reconnect);

// What compare and sweep ask about a job.
absl::StatusOr<JobSummary> Summarise(client::Client* client, const std::string& name);

// Every alert of a job ("jobs/-": of all), at most `limit`, newest first.
absl::StatusOr<std::vector<v1::Alert>> AllAlerts(client::Client* client, const std::string& parent,
                                                 size_t limit);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_COMMANDS_H_
