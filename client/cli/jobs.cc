// list, get, pause, resume, cancel, update, delete.
#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/interventions.h"
#include "client/cli/job_flags.h"

namespace gradwatch::cli {
namespace {

// What pause, resume and cancel share.
template <typename Request>
Command ActionCommand(
    Command command, std::string done,
    absl::StatusOr<v1::JobActionResponse> (client::Client::*method)(const Request&)) {
  const auto jobs = std::make_shared<std::vector<std::string>>();
  command.flags = {{.names = "JOB",
                    .value = "JOB",
                    .help = "Ids of one or more jobs.",
                    .repeated = true,
                    .set = Into(jobs.get())}};
  command.run = [jobs, done, method](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    for (const std::string& job : *jobs) {
      Request request;
      request.set_name(JobName(job));
      const absl::StatusOr<v1::JobActionResponse> response = ((*client)->*method)(request);
      if (!response.ok()) return response.status();
      if (session->json()) {
        session->PrintJson(*response, jobs->size() > 1);
      } else {
        const v1::Job::State state = response->job().state();
        const bool pending = state == v1::Job::STATE_PAUSING || state == v1::Job::STATE_CANCELLING;
        session->out() << response->job().name() << " " << StateName(state) << ": "
                       << (pending ? "will be done at the next step boundary"
                                   : absl::StrCat(done, " step ", response->effective_step()))
                       << "\n";
      }
    }
    return kOk;
  };
  return command;
}

struct ListFlags {
  std::vector<std::string> states;
  std::vector<std::string> labels;
  std::string filter;
  int64_t limit = 1000;
};

std::string FilterOf(const ListFlags& flags) {
  std::vector<std::string> terms;
  for (const std::string& state : flags.states) {
    terms.push_back(absl::StrCat(
        "state = ", absl::StrReplaceAll(absl::AsciiStrToUpper(state), {{"STATE_", ""}})));
  }
  for (const std::string& label : flags.labels) {
    const size_t equals = label.find('=');
    terms.push_back(equals == std::string::npos
                        ? absl::StrCat("labels:", label)
                        : absl::StrCat("labels.", label.substr(0, equals), " = \"",
                                       label.substr(equals + 1), "\""));
  }
  if (!flags.filter.empty()) terms.push_back(flags.filter);
  return absl::StrJoin(terms, " AND ");
}

absl::StatusOr<v1::ListJobsResponse> FetchJobs(client::Client* client, const ListFlags& flags) {
  constexpr int kPage = 100;
  v1::ListJobsRequest request;
  request.set_filter(FilterOf(flags));
  request.set_page_size(kPage);
  v1::ListJobsResponse all;
  do {
    absl::StatusOr<v1::ListJobsResponse> page = client->ListJobs(request);
    if (!page.ok()) return page.status();
    for (v1::Job& job : *page->mutable_jobs()) {
      if (all.jobs_size() < flags.limit) all.add_jobs()->Swap(&job);
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && all.jobs_size() < flags.limit);
  return all;
}

struct UpdateFlags {
  std::string job;
  ClipFlags clip;
  std::string learning_rate;
  std::string steps;
  std::string truncation;
  std::string statistics;
  std::string author;
  std::string name;
  bool name_given = false;
  std::vector<std::string> labels;
  std::vector<std::string> removed_labels;
  std::vector<std::string> rules;
  std::vector<std::string> custom_rules;
  std::vector<std::string> removed_custom_rules;

  // Whether something changes that the server replaces as a whole.
  bool merges() const {
    return !labels.empty() || !removed_labels.empty() || !rules.empty() || !custom_rules.empty() ||
           !removed_custom_rules.empty();
  }
};

absl::Status MergeCustomRules(const UpdateFlags& flags,
                              google::protobuf::RepeatedPtrField<v1::CustomRule>* rules) {
  for (const std::string& name : flags.removed_custom_rules) {
    const auto found = std::find_if(rules->begin(), rules->end(),
                                    [&](const auto& rule) { return rule.name() == name; });
    if (found == rules->end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--remove-custom-rule: the job has no rule '", name, "'"));
    }
    rules->erase(found);
  }
  for (const std::string& text : flags.custom_rules) {
    const absl::StatusOr<v1::CustomRule> rule = ParseCustomRule(text);
    if (!rule.ok()) return rule.status();
    MergeCustomRule(*rule, rules);
  }
  return absl::OkStatus();
}

// Labels and rules are replaced as a whole by the server, so they start from what the job has; its
// etag makes sure that nobody changed them meanwhile.
absl::Status MergeIntoCurrent(const UpdateFlags& flags, client::Client* client,
                              v1::UpdateJobRequest* request) {
  v1::GetJobRequest get;
  get.set_name(JobName(flags.job));
  const absl::StatusOr<v1::Job> current = client->GetJob(get);
  if (!current.ok()) return current.status();
  request->set_etag(current->etag());
  if (!flags.labels.empty() || !flags.removed_labels.empty()) {
    *request->mutable_job()->mutable_labels() = current->labels();
    for (const std::string& label : flags.labels) {
      const absl::Status status = ParseLabel(label, request->mutable_job()->mutable_labels());
      if (!status.ok()) return status;
    }
    for (const std::string& key : flags.removed_labels) {
      request->mutable_job()->mutable_labels()->erase(key);
    }
    request->mutable_update_mask()->add_paths("labels");
  }
  if (!flags.rules.empty()) {
    *request->mutable_job()->mutable_rules() = current->rules();
    for (const std::string& text : flags.rules) {
      const absl::StatusOr<v1::RuleSettings> rule = ParseRule(text);
      if (!rule.ok()) return rule.status();
      MergeRule(*rule, request->mutable_job()->mutable_rules());
    }
    request->mutable_update_mask()->add_paths("rules");
  }
  if (flags.custom_rules.empty() && flags.removed_custom_rules.empty()) return absl::OkStatus();
  *request->mutable_job()->mutable_custom_rules() = current->custom_rules();
  request->mutable_update_mask()->add_paths("custom_rules");
  return MergeCustomRules(flags, request->mutable_job()->mutable_custom_rules());
}

absl::StatusOr<v1::UpdateJobRequest> UpdateRequest(const UpdateFlags& flags,
                                                   client::Client* client) {
  v1::UpdateJobRequest request;
  v1::Job* const job = request.mutable_job();
  job->set_name(JobName(flags.job));
  google::protobuf::FieldMask* const mask = request.mutable_update_mask();
  if (flags.clip.given()) {
    absl::StatusOr<v1::Clipping> clipping = flags.clip.ToProto();
    if (!clipping.ok()) return clipping.status();
    *job->mutable_clipping() = *std::move(clipping);
    mask->add_paths("clipping");
  }
  if (!flags.learning_rate.empty()) {
    double rate = 0;
    if (absl::Status status = Into(&rate)(flags.learning_rate); !status.ok()) return status;
    job->mutable_optimizer()->set_learning_rate(rate);
    mask->add_paths("optimizer.learning_rate");
  }
  if (!flags.steps.empty()) {
    int64_t steps = 0;
    if (absl::Status status = Into(&steps)(flags.steps); !status.ok()) return status;
    job->mutable_training()->set_step_limit(steps);
    mask->add_paths("training.step_limit");
  }
  if (!flags.truncation.empty()) {
    if (flags.truncation != "none") {
      int64_t truncation = 0;
      if (absl::Status status = Into(&truncation)(flags.truncation); !status.ok()) return status;
      job->mutable_training()->set_truncation(static_cast<int32_t>(std::clamp<int64_t>(
          truncation, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max())));
    }
    mask->add_paths("training.truncation");
  }
  if (!flags.statistics.empty()) {
    v1::StatisticsLevel level = v1::STATISTICS_LEVEL_UNSPECIFIED;
    v1::StatisticsLevel_Parse(
        absl::StrCat("STATISTICS_LEVEL_", absl::AsciiStrToUpper(flags.statistics)), &level);
    job->set_statistics_level(level);
    mask->add_paths("statistics_level");
  }
  if (flags.name_given) {
    job->set_display_name(flags.name);
    mask->add_paths("display_name");
  }
  if (flags.merges()) {
    if (absl::Status status = MergeIntoCurrent(flags, client, &request); !status.ok()) {
      return status;
    }
  }
  if (mask->paths().empty()) {
    return absl::InvalidArgumentError(
        "nothing to change: give --clip, --lr, --steps, --truncation, --stats, --name, --label, "
        "--rule or --custom-rule");
  }
  return request;
}

}  // namespace

Command ListCommand() {
  const auto flags = std::make_shared<ListFlags>();
  Command command{
      .name = "list",
      .purpose = "List jobs, newest first.",
      .examples = {"list", "list --state RUNNING --label team=speech",
                   "list --filter 'state != FAILED' -o json"},
      .flags = {{.names = "--state",
                 .value = "STATE",
                 .help = "Only jobs in this state: QUEUED, RUNNING, PAUSING, PAUSED, CANCELLING, "
                         "SUCCEEDED, FAILED, CANCELLED.",
                 .set = Into(&flags->states)},
                {.names = "--label",
                 .value = "KEY[=VALUE]",
                 .help = "Only jobs that have this label (with this value); may be repeated.",
                 .repeated = true,
                 .set = Into(&flags->labels)},
                {.names = "--filter",
                 .value = "FILTER",
                 .help = "A filter as the API has it: terms joined by AND.",
                 .set = Into(&flags->filter)},
                {.names = "--limit",
                 .value = "N",
                 .help = "At most so many.",
                 .default_text = "1000",
                 .set = Into(&flags->limit)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::ListJobsResponse> jobs = FetchJobs(*client, *flags);
    if (!jobs.ok()) return jobs.status();
    if (session->json()) {
      session->PrintJson(*jobs);
    } else if (jobs->jobs().empty()) {
      session->Note("no jobs: gradwatch submit makes one");
    } else {
      session->out()
          << JobTable({jobs->jobs().begin(), jobs->jobs().end()}, absl::Now()).ToString();
    }
    return kOk;
  };
  return command;
}

Command GetCommand() {
  const auto job = std::make_shared<std::string>();
  Command command{.name = "get",
                  .purpose = "Show one job: its settings, how it stands, how it ended.",
                  .examples = {"get my-job", "get my-job -o json | jq .state"},
                  .flags = {JobArgument(job.get())}};
  command.run = [job](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::GetJobRequest request;
    request.set_name(JobName(*job));
    const absl::StatusOr<v1::Job> found = (*client)->GetJob(request);
    if (!found.ok()) return found.status();
    if (session->json()) {
      session->PrintJson(*found);
    } else {
      session->out() << DescribeJob(*found, absl::Now());
    }
    return kOk;
  };
  return command;
}

Command PauseCommand() {
  return ActionCommand<v1::PauseJobRequest>(
      {.name = "pause",
       .purpose = "Stop a job at the next step and keep its checkpoint.",
       .description = "A paused job holds no place among the running ones; resume goes on bit for "
                      "bit.",
       .examples = {"pause my-job", "pause job-1 job-2"}},
      "stands before", &client::Client::PauseJob);
}

Command ResumeCommand() {
  return ActionCommand<v1::ResumeJobRequest>({.name = "resume",
                                              .purpose = "Queue a paused job again.",
                                              .examples = {"resume my-job", "resume job-1 job-2"}},
                                             "goes on with", &client::Client::ResumeJob);
}

Command CancelCommand() {
  return ActionCommand<v1::CancelJobRequest>(
      {.name = "cancel",
       .purpose = "End a job at the next step; its history and weights stay.",
       .examples = {"cancel my-job", "cancel job-1 job-2"}},
      "ended before", &client::Client::CancelJob);
}

Command UpdateCommand() {
  const auto flags = std::make_shared<UpdateFlags>();
  Command command{
      .name = "update",
      .purpose = "Change settings of a job, also while it runs.",
      .description =
          "Applied between two steps, all or nothing; the answer says from which step "
          "on. Any --clip flag replaces all policies that the job had. gradwatch interventions "
          "lists what was changed, when and by whom.",
      .examples = {"update my-job --clip 0.5", "update my-job --clip none --lr 0.01",
                   "update my-job --truncation 20 --stats full --author ann",
                   "update my-job --rule EXPLODING_ABS:threshold=500 --label owner=ann"},
      .flags = {JobArgument(&flags->job)}};
  for (Flag& flag : FlagsOf(&flags->clip)) {
    if (flag.names == "--clip") flag.default_text.clear();
    command.flags.push_back(std::move(flag));
  }
  for (Flag& flag :
       std::vector<Flag>{{.names = "--lr",
       .value = "RATE",
       .help = "Learning rate.",
       .field = "optimizer.learning_rate",
       .set = Into(&flags->learning_rate)},
                         {.names = "--steps",
                         .value = "N",
                         .help = "Step limit, not below the steps done.",
                         .field = "training.step_limit",
                         .set = Into(&flags->steps)},
                         {.names = "--truncation",
                         .value = "K|none",
                         .help = "The gradient goes back at most so many time steps; none: through "
                                 "all.",
                         .field = "training.truncation",
                         .set = Into(&flags->truncation)},
                         {.names = "--stats",
                         .value = "LEVEL",
                         .help = "What is measured at each step: off, basic or full.",
                         .field = "statistics_level",
                         .set = OneOf({"off", "basic", "full"}, &flags->statistics)},
                         {.names = "--author",
                         .value = "NAME",
                         .help = "Who changes it, for the list of interventions.",
                         .default_text = "$USER",
                         .field = "author",
                         .set = Into(&flags->author)},
                         {.names = "--name",
                         .value = "TEXT",
                         .help = "Name for people.",
                         .field = "display_name",
                         .set =
                              [flags](const std::string& text) {
                                flags->name_given = true;
                                return Into(&flags->name)(text);
                              }},
                         {.names = "--label",
                         .value = "KEY=VALUE",
                         .help = "Set a label; may be repeated.",
                         .field = "labels",
                         .repeated = true,
                         .set = Into(&flags->labels)},
                         {.names = "--remove-label",
                         .value = "KEY",
                         .help = "Remove a label; may be repeated.",
                         .repeated = true,
                         .set = Into(&flags->removed_labels)},
                         {.names = "--rule",
                         .value = "RULE:SETTINGS",
                         .help = "Settings of an alert rule, as in submit; may be repeated.",
                         .field = "rules",
                         .repeated = true,
                         .set = Into(&flags->rules)},
                         {.names = "--custom-rule",
                         .value = "NAME: EXPRESSION",
                         .help = "Add or replace a rule of the job's own, as in submit; may be "
                                 "repeated.",
                         .field = "custom_rules",
                         .repeated = true,
                         .set = Into(&flags->custom_rules)},
                         {.names = "--remove-custom-rule",
                         .value = "NAME",
                         .help = "Remove a rule of the job's own; may be repeated.",
                         .repeated = true,
                         .set = Into(&flags->removed_custom_rules)}}) {
    command.flags.push_back(std::move(flag));
  }
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    absl::StatusOr<v1::UpdateJobRequest> request = UpdateRequest(*flags, *client);
    if (!request.ok()) return request.status();
    const auto user = session->environment().variables.find("USER");
    if (!flags->author.empty()) {
      request->set_author(flags->author);
    } else if (user != session->environment().variables.end()) {
      request->set_author(user->second);
    }
    const absl::StatusOr<v1::UpdateJobResponse> response = (*client)->UpdateJob(*request);
    if (!response.ok()) return response.status();
    if (session->json()) {
      session->PrintJson(*response);
      return kOk;
    }
    session->out() << response->job().name() << " updated"
                   << (response->pending() ? ": will be applied at the next step boundary"
                       : response->has_effective_step()
                           ? absl::StrCat(" from step ", response->effective_step(), " on")
                           : "");
    if (response->has_intervention()) {
      session->out() << ": " << DescribeIntervention(response->intervention());
    }
    session->out() << "\n";
    return kOk;
  };
  return command;
}

Command DeleteCommand() {
  struct DeleteFlags {
    std::vector<std::string> jobs;
    bool force = false;
  };
  const auto flags = std::make_shared<DeleteFlags>();
  Command command{.name = "delete",
                  .purpose = "Forget jobs with their history and weights.",
                  .examples = {"delete my-job", "delete --force job-1 job-2"},
                  .flags = {{.names = "JOB",
                             .value = "JOB",
                             .help = "Ids of one or more jobs.",
                             .repeated = true,
                             .set = Into(&flags->jobs)},
                            {.names = "--force",
                             .help = "Cancel a job first that has not ended.",
                             .set = Into(&flags->force)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    for (const std::string& job : flags->jobs) {
      v1::DeleteJobRequest request;
      request.set_name(JobName(job));
      request.set_force(flags->force);
      if (absl::Status status = (*client)->DeleteJob(request); !status.ok()) return status;
      session->Note(absl::StrCat("deleted ", request.name()));
    }
    return kOk;
  };
  return command;
}

}  // namespace gradwatch::cli
