#include "client/cli/interventions.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/text.h"
#include "google/protobuf/util/json_util.h"

// advance, interventions.
namespace gradwatch::cli {
namespace {

// A value of v1::SettingChange for people.
std::string ValueText(const std::string& path, const std::string& value) {
  if (value.empty()) return "not set";
  v1::Job job;
  if (path == "clipping" &&
      google::protobuf::util::JsonStringToMessage(absl::StrCat("{\"clipping\":", value, "}"), &job)
          .ok()) {
    return DescribeClipping(job);
  }
  return absl::StrReplaceAll(value, {{"\"", ""}, {"STATISTICS_LEVEL_", ""}, {"RULE_ID_", ""}});
}

absl::StatusOr<v1::ListInterventionsResponse> FetchInterventions(const std::string& parent,
                                                                 client::Client* client) {
  v1::ListInterventionsRequest request;
  request.set_parent(parent);
  request.set_page_size(1000);
  v1::ListInterventionsResponse all;
  do {
    absl::StatusOr<v1::ListInterventionsResponse> page = client->ListInterventions(request);
    if (!page.ok()) return page.status();
    for (v1::Intervention& intervention : *page->mutable_interventions()) {
      all.add_interventions()->Swap(&intervention);
    }
    all.set_forgotten(page->forgotten());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

// Waits until the job stands before `step` or is final.
absl::StatusOr<v1::Job> AwaitStanding(v1::Job job, int64_t step, client::Client* client,
                                      Session* session) {
  const auto stands = [step](const v1::Job& now) {
    return IsFinal(now.state()) || (now.state() == v1::Job::STATE_PAUSED && now.step() >= step);
  };
  if (stands(job)) return job;
  v1::WatchJobRequest request;
  request.set_name(job.name());
  client::StreamOptions options{.reconnect = false, .deadline = {}, .on_reconnect = {}};
  options.deadline = session->options().timeout_given
                         ? absl::Now() + session->options().client.timeout
                         : absl::InfiniteFuture();
  const auto reader = client->WatchJob(request, options);
  v1::WatchJobResponse message;
  while (reader->Next(&message)) {
    if (message.has_job() && stands(message.job())) return message.job();
  }
  absl::Status status = reader->Finish();
  if (!status.ok()) return status;
  v1::GetJobRequest get;
  get.set_name(job.name());
  return client->GetJob(get);
}

std::string StandingText(const v1::Job& job) {
  std::string text =
      absl::StrCat(job.name(), " ", StateName(job.state()), ": stands before step ", job.step());
  if (job.has_latest_stats()) {
    const v1::StepStats& stats = job.latest_stats();
    absl::StrAppend(&text, "; step ", stats.step(), ": loss ", FormatNumber(stats.loss()),
                    ", norm ", FormatNumber(stats.norm_before()));
    if (stats.has_norm_after()) {
      absl::StrAppend(&text, " before clipping, ", FormatNumber(stats.norm_after()), " after");
    }
    if (stats.skipped()) text += ", skipped";
  }
  return text;
}

}  // namespace

std::string InterventionKindName(v1::Intervention::Kind kind) {
  const std::string& name = v1::Intervention::Kind_Name(kind);
  return name.empty() ? absl::StrCat(static_cast<int>(kind))
                      : std::string(absl::StripPrefix(name, "KIND_"));
}

std::string DescribeIntervention(const v1::Intervention& intervention) {
  std::vector<std::string> parts;
  for (const v1::SettingChange& change : intervention.changes()) {
    parts.push_back(absl::StrCat(change.path(), ": ", ValueText(change.path(), change.old_value()),
                                 " -> ", ValueText(change.path(), change.new_value())));
  }
  if (intervention.has_restored_step()) {
    parts.push_back(absl::StrCat("back to the weights before step ", intervention.restored_step(),
                                 ", ", intervention.batches_skipped(), " batches left out"));
  }
  if (!intervention.cause().empty()) parts.push_back(intervention.cause());
  return absl::StrJoin(parts, ", ");
}

std::string InterventionLine(const v1::Intervention& intervention) {
  std::string text =
      absl::StrCat(InterventionKindName(intervention.kind()), " at step ", intervention.step());
  if (!intervention.author().empty()) absl::StrAppend(&text, " by ", intervention.author());
  const std::string what = DescribeIntervention(intervention);
  return what.empty() ? text : absl::StrCat(text, ": ", what);
}

Command InterventionsCommand() {
  const auto job = std::make_shared<std::string>();
  Command command{
      .name = "interventions",
      .purpose = "List what changed a run since it was submitted: edits and actions of the ladder.",
      .description = "Oldest first, with step, author, cause, and the values before and after.",
      .examples = {"interventions my-job", "interventions my-job -o json"},
      .flags = {JobArgument(job.get())}};
  command.run = [job](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::ListInterventionsResponse> all =
        FetchInterventions(JobName(*job), *client);
    if (!all.ok()) return all.status();
    if (session->json()) {
      session->PrintJson(*all);
      return kOk;
    }
    if (all->forgotten() > 0) {
      session->Note(absl::StrCat(all->forgotten(), " older ones are no longer kept"));
    }
    if (all->interventions().empty()) {
      session->Note("no interventions: the run is as it was submitted");
      return kOk;
    }
    Table table({{"STEP", Align::kRight}, {"KIND"}, {"BY"}, {"AGE"}, {"WHAT"}});
    for (const v1::Intervention& one : all->interventions()) {
      table.AddRow({absl::StrCat(one.step()), InterventionKindName(one.kind()), one.author(),
                    FormatElapsed(absl::Now() - FromProto(one.time())), DescribeIntervention(one)});
    }
    session->out() << table.ToString();
    return kOk;
  };
  return command;
}

Command AdvanceCommand() {
  struct AdvanceFlags {
    std::string job;
    int64_t steps = 1;
  };
  const auto flags = std::make_shared<AdvanceFlags>();
  Command command{.name = "advance",
                  .purpose = "Run a few steps of a paused job, then pause it again.",
                  .description =
                      "Waits until it stands again; --timeout bounds the wait. With update --stats "
                      "full a bad patch can be looked at step by step; gradwatch export has all "
                      "numbers.",
                  .examples = {"advance my-job", "advance my-job -n 20"},
                  .flags = {JobArgument(&flags->job),
                            {.names = "-n,--steps",
                             .value = "N",
                             .help = "How many steps.",
                             .default_text = "1",
                             .set = Into(&flags->steps)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(10), true);
    if (!client.ok()) return client.status();
    v1::AdvanceJobRequest request;
    request.set_name(JobName(flags->job));
    request.set_steps(flags->steps);
    const absl::StatusOr<v1::JobActionResponse> response = (*client)->AdvanceJob(request);
    if (!response.ok()) return response.status();
    const absl::StatusOr<v1::Job> job =
        AwaitStanding(response->job(), response->effective_step(), *client, session);
    if (!job.ok()) return job.status();
    if (session->json()) {
      session->PrintJson(*job);
    } else {
      session->out() << StandingText(*job) << "\n";
    }
    return job->state() == v1::Job::STATE_FAILED ? kFailed : kOk;
  };
  return command;
}

}  // namespace gradwatch::cli
