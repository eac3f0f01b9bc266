// alerts, alerts rules, show, ack, silence, silences, unsilence, evaluate.
#include <memory>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/batch.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/job_flags.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

struct AlertFlags {
  std::string job;
  bool all = false;
  bool watch = false;
  bool reconnect = false;
};

absl::StatusOr<int> Watch(const AlertFlags& flags, const std::string& parent,
                          client::Client* client, Session* session) {
  v1::WatchAlertsRequest request;
  request.set_parent(parent);
  client::StreamOptions options{.reconnect = flags.reconnect, .deadline = {}, .on_reconnect = {}};
  options.deadline = session->options().timeout_given
                         ? absl::Now() + session->options().client.timeout
                         : absl::InfiniteFuture();
  const auto reader = client->WatchAlerts(request, options);
  v1::WatchAlertsResponse message;
  while (reader->Next(&message)) {
    if (!message.has_alert()) continue;
    if (session->json()) {
      session->PrintJson(message.alert(), true);
    } else {
      session->out() << message.alert().name() << " " << AlertLine(message.alert()) << std::endl;
    }
    if (message.dropped_before() > 0) {
      session->Note(absl::StrCat(message.dropped_before(), " changes were dropped on the way"));
    }
  }
  if (const absl::Status status = reader->Finish(); !status.ok()) return status;
  return kOk;
}

absl::StatusOr<int> List(const AlertFlags& flags, const std::string& parent, client::Client* client,
                         Session* session) {
  constexpr size_t kAlertsMax = 10'000;
  absl::StatusOr<std::vector<v1::Alert>> alerts = AllAlerts(client, parent, kAlertsMax);
  if (!alerts.ok()) return alerts.status();
  if (session->json()) {
    v1::ListAlertsResponse all;
    for (v1::Alert& alert : *alerts) all.add_alerts()->Swap(&alert);
    session->PrintJson(all);
    return kOk;
  }
  if (alerts->empty()) {
    session->Note("no alerts");
    return kOk;
  }
  const Environment& environment = session->environment();
  // A pipe has no width: nothing is cut.
  const size_t width =
      environment.out_is_terminal ? static_cast<size_t>(environment.columns) : 10'000;
  session->out() << AlertTable(*alerts, width, environment.unicode).ToString();
  for (const v1::Alert& alert : *alerts) {
    if (flags.all || alert.advice().empty() || alert.state() == v1::Alert::STATE_RESOLVED) continue;
    session->out() << "\n"
                   << alert.rule_name() << ": "
                   << Wrap(alert.advice(), static_cast<size_t>(environment.columns), 2) << "\n";
  }
  return kOk;
}

// Names and values of the settings that a rule has.
std::vector<std::pair<std::string, std::string>> SettingsList(const v1::RuleSettings& settings) {
  std::vector<std::pair<std::string, std::string>> list;
  const auto add = [&list](const char* name, bool present, const std::string& value) {
    if (present) list.emplace_back(name, value);
  };
  add("threshold", settings.has_threshold(), FormatNumber(settings.threshold()));
  add("second", settings.has_second_threshold(), FormatNumber(settings.second_threshold()));
  add("window", settings.has_window_steps(), absl::StrCat(settings.window_steps()));
  add("warmup", settings.has_warmup_steps(), absl::StrCat(settings.warmup_steps()));
  add("for", settings.has_for_steps(), absl::StrCat(settings.for_steps()));
  add("resolve", settings.has_resolve_steps(), absl::StrCat(settings.resolve_steps()));
  add("cooldown", settings.has_cooldown_steps(), absl::StrCat(settings.cooldown_steps()));
  return list;
}

std::string SettingsText(const std::vector<std::pair<std::string, std::string>>& list) {
  return absl::StrJoin(list, ",", absl::PairFormatter("="));
}

// The settings of a job that are not the defaults; empty where all are.
std::string ChangedText(const v1::Rule& rule) {
  if (rule.has_custom()) return "its own";
  if (rule.in_force().disabled()) return "off";
  std::vector<std::pair<std::string, std::string>> changed;
  const auto before = SettingsList(rule.defaults());
  for (const auto& setting : SettingsList(rule.in_force())) {
    if (!absl::c_linear_search(before, setting)) changed.push_back(setting);
  }
  if (rule.in_force().severity() != v1::SEVERITY_UNSPECIFIED) {
    changed.emplace_back("severity", SeverityName(rule.in_force().severity()));
  }
  return SettingsText(changed);
}

Table RulesTable(const v1::ListRulesResponse& rules, bool of_job) {
  std::vector<Table::Column> columns = {{"RULE"}, {"SEVERITY"}, {"DEFAULTS"}, {"CONDITION"}};
  if (of_job) {
    columns[2].title = "IN FORCE";
    columns.insert(columns.begin() + 3, {"CHANGED"});
  }
  Table table(std::move(columns));
  for (const v1::Rule& rule : rules.rules()) {
    const bool changed = of_job && rule.has_in_force();
    std::vector<std::string> row = {
        rule.name(), SeverityName(rule.severity()),
        SettingsText(SettingsList(changed ? rule.in_force() : rule.defaults())), rule.condition()};
    if (of_job) row.insert(row.begin() + 3, ChangedText(rule));
    table.AddRow(std::move(row));
  }
  return table;
}

Command RulesCommand() {
  const auto job = std::make_shared<std::string>();
  Command command{.name = "rules",
                  .purpose = "List the rules with their conditions and settings.",
                  .description =
                      "Without --job the built-in rules and their defaults; with it what is in "
                      "force there, and the job's own rules. The settings are what submit --rule "
                      "RULE:... and update --rule can change.",
                  .examples = {"alerts rules", "alerts rules --job my-job", "alerts rules -o json"},
                  .flags = {{.names = "--job",
                             .value = "JOB",
                             .help = "As the rules are set in this job.",
                             .field = "job",
                             .set = Into(job.get())}}};
  command.run = [job](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::ListRulesRequest request;
    if (!job->empty()) request.set_job(JobName(*job));
    const absl::StatusOr<v1::ListRulesResponse> rules = (*client)->ListRules(request);
    if (!rules.ok()) return rules.status();
    if (session->json()) {
      session->PrintJson(*rules);
      return kOk;
    }
    session->out() << RulesTable(*rules, !job->empty()).ToString();
    return kOk;
  };
  return command;
}

// What acknowledgements and silences have in common.
struct NoteFlags {
  std::string target;
  std::string rule;
  std::string author;
  std::string comment;
  absl::Duration duration = absl::ZeroDuration();
};

std::vector<Flag> FlagsOf(NoteFlags* note, std::string duration_help) {
  return {{.names = "--by", .value = "WHO", .help = "Who you are.", .set = Into(&note->author)},
          {.names = "--note", .value = "TEXT", .help = "Why.", .set = Into(&note->comment)},
          {.names = "--for",
           .value = "DURATION",
           .help = std::move(duration_help),
           .set = Into(&note->duration)}};
}

// --by, or who is logged in.
absl::StatusOr<std::string> AuthorOf(const NoteFlags& note, const Environment& environment) {
  if (!note.author.empty()) return note.author;
  const auto user = environment.variables.find("USER");
  if (user != environment.variables.end() && !user->second.empty()) return user->second;
  return absl::InvalidArgumentError("who are you? Give --by");
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* message) {
  message->set_seconds(absl::ToInt64Seconds(duration));
  message->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(message->seconds()))));
}

// "jobs/x/alerts/3" for that, for "x/alerts/3" and for "x/3".
std::string AlertName(const std::string& text) {
  const std::string id = IdOf(text);
  const size_t slash = id.rfind('/');
  if (slash == std::string::npos || absl::StrContains(id, "/alerts/")) return JobName(id);
  return absl::StrCat(JobName(id.substr(0, slash)), "/alerts/", id.substr(slash + 1));
}

// The alert of that name.
absl::StatusOr<v1::Alert> FindAlert(const std::string& name, client::Client* client) {
  constexpr size_t kAlertsMax = 10'000;
  const size_t end = name.rfind("/alerts/");
  if (end == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", IdOf(name), "' names no alert; give JOB/N, as gradwatch alerts --watch names it"));
  }
  const std::string job = name.substr(0, end);
  const absl::StatusOr<std::vector<v1::Alert>> alerts = AllAlerts(client, job, kAlertsMax);
  if (!alerts.ok()) return alerts.status();
  for (const v1::Alert& alert : *alerts) {
    if (alert.name() == name) return alert;
  }
  return absl::NotFoundError(absl::StrCat("there is no ", name, "; ", job, " has ", alerts->size(),
                                          alerts->size() == 1 ? " alert" : " alerts",
                                          " (gradwatch alerts ", IdOf(job), ")"));
}

Command ShowCommand() {
  struct ShowFlags {
    std::string alert;
    bool batch = false;
    int64_t examples = kExamplesDefault;
  };
  const auto flags = std::make_shared<ShowFlags>();
  Command command{
      .name = "show",
      .purpose = "Show one alert whole: what, where, when, how bad, what to do.",
      .description =
          "With --batch and -o json it prints two messages: the alert, then the batch. gradwatch "
          "batch shows those of any step.",
      .examples = {"alerts show my-job/3", "alerts show my-job/3 --batch --examples 1"},
      .flags = {{.names = "ALERT",
                 .value = "JOB/N",
                 .help = "The alert, as gradwatch alerts --watch names it.",
                 .set = Into(&flags->alert)},
                {.names = "--batch",
                 .help = "Also examples of the step at which it fired.",
                 .set = Into(&flags->batch)},
                ExamplesFlag(&flags->examples)}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::Status checked = CheckExamples(flags->examples);
    if (!checked.ok()) return checked;
    const std::string name = AlertName(flags->alert);
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::Alert> alert = FindAlert(name, *client);
    if (!alert.ok()) return alert.status();
    if (session->json()) {
      session->PrintJson(*alert);
    } else {
      session->out() << DescribeAlert(*alert, static_cast<size_t>(session->environment().columns));
    }
    if (!flags->batch) return kOk;
    if (!alert->has_batch_origin()) {
      session->Note("no step raised this alert, so it has no batch");
      return kOk;
    }
    if (!session->json()) session->out() << "\n";
    const absl::Status status =
        PrintBatch(name.substr(0, name.rfind("/alerts/")), alert->firing_step(), flags->examples,
                   false, *client, session);
    if (!status.ok()) return status;
    return kOk;
  };
  return command;
}

Command AckCommand() {
  const auto note = std::make_shared<NoteFlags>();
  Command command{.name = "ack",
                  .purpose = "Say that you look after an alert that fires.",
                  .description = "It counts until the alert resolves, fires again or grows worse.",
                  .examples = {"alerts ack my-job/3 --by ann --note 'lowering the rate'",
                               "alerts ack my-job/3 --for 2h"},
                  .flags = {{.names = "ALERT",
                             .value = "JOB/N",
                             .help = "The alert, as gradwatch alerts --watch names it.",
                             .set = Into(&note->target)}}};
  for (Flag& flag : FlagsOf(note.get(), "How long it counts at most.")) {
    command.flags.push_back(std::move(flag));
  }
  command.run = [note](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<std::string> author = AuthorOf(*note, session->environment());
    if (!author.ok()) return author.status();
    v1::AcknowledgeAlertRequest request;
    request.set_name(AlertName(note->target));
    request.set_author(*author);
    request.set_comment(note->comment);
    if (note->duration > absl::ZeroDuration()) {
      SetDuration(note->duration, request.mutable_duration());
    }
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::Alert> alert = (*client)->AcknowledgeAlert(request);
    if (!alert.ok()) return alert.status();
    if (session->json()) {
      session->PrintJson(*alert);
    } else {
      session->out() << alert->name() << " " << alert->rule_name() << ": " << AlertStateText(*alert)
                     << "\n";
    }
    return kOk;
  };
  return command;
}

Command SilenceCommand() {
  const auto note = std::make_shared<NoteFlags>();
  note->duration = absl::Hours(1);
  Command command{
      .name = "silence",
      .purpose = "Hear no more of one rule of one job for some time.",
      .description =
          "Its alerts are still recorded and listed, but neither streamed nor counted "
          "in the metrics.",
      .examples = {"alerts silence my-job EXPLODING_REL --for 4h --by ann --note 'known bursts'",
                   "alerts silence my-job LOSS_PLATEAU"},
      .flags = {JobArgument(&note->target),
                {.names = "RULE",
                 .value = "RULE",
                 .help = "The rule's name.",
                 .set = Into(&note->rule)}}};
  for (Flag& flag : FlagsOf(note.get(), "How long.")) {
    if (flag.names == "--for") flag.default_text = "1h";
    command.flags.push_back(std::move(flag));
  }
  command.run = [note](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<std::string> author = AuthorOf(*note, session->environment());
    if (!author.ok()) return author.status();
    v1::SilenceRuleRequest request;
    request.set_job(JobName(note->target));
    request.set_rule_name(note->rule);
    request.set_author(*author);
    request.set_comment(note->comment);
    SetDuration(note->duration, request.mutable_duration());
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::Silence> silence = (*client)->SilenceRule(request);
    if (!silence.ok()) return silence.status();
    if (session->json()) {
      session->PrintJson(*silence);
    } else {
      session->out() << silence->job() << ": " << silence->rule_name() << " is silenced for "
                     << FormatElapsed(FromProto(silence->expire_time()) -
                                      FromProto(silence->create_time()))
                     << "\n";
    }
    return kOk;
  };
  return command;
}

Command SilencesCommand() {
  const auto job = std::make_shared<std::string>();
  Command command{.name = "silences",
                  .purpose = "List the silences of one job or of all.",
                  .examples = {"alerts silences", "alerts silences my-job"},
                  .flags = {{.names = "JOB",
                             .value = "JOB",
                             .help = "The job's id.",
                             .required = false,
                             .set = Into(job.get())}}};
  command.run = [job](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::ListSilencesRequest request;
    request.set_parent(job->empty() ? "jobs/-" : JobName(*job));
    const absl::StatusOr<v1::ListSilencesResponse> silences = (*client)->ListSilences(request);
    if (!silences.ok()) return silences.status();
    if (session->json()) {
      session->PrintJson(*silences);
      return kOk;
    }
    if (silences->silences().empty()) {
      session->Note("no silences");
      return kOk;
    }
    Table table({{"JOB"}, {"RULE"}, {"BY"}, {"LEFT"}, {"NOTE"}});
    for (const v1::Silence& silence : silences->silences()) {
      table.AddRow({IdOf(silence.job()), silence.rule_name(), silence.author(),
                    FormatElapsed(FromProto(silence.expire_time()) - absl::Now()),
                    silence.comment()});
    }
    session->out() << table.ToString();
    return kOk;
  };
  return command;
}

Command UnsilenceCommand() {
  const auto note = std::make_shared<NoteFlags>();
  Command command{.name = "unsilence",
                  .purpose = "End a silence early.",
                  .examples = {"alerts unsilence my-job EXPLODING_REL",
                               "alerts unsilence jobs/my-job LOSS_PLATEAU"},
                  .flags = {JobArgument(&note->target),
                            {.names = "RULE",
                             .value = "RULE",
                             .help = "The rule's name.",
                             .set = Into(&note->rule)}}};
  command.run = [note](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::DeleteSilenceRequest request;
    request.set_job(JobName(note->target));
    request.set_rule_name(note->rule);
    const absl::Status status = (*client)->DeleteSilence(request);
    if (!status.ok()) return status;
    if (!session->json()) {
      session->out() << request.job() << ": " << note->rule << " is heard again\n";
    }
    return kOk;
  };
  return command;
}

struct EvaluateFlags {
  std::string job;
  std::vector<std::string> rules;
  std::vector<std::string> custom_rules;
  bool only = false;
  int64_t from_step = 0;
  int64_t to_step = -1;
};

// The settings that the job has, with the given ones in place of them.
absl::StatusOr<v1::EvaluateRulesRequest> EvaluateRequest(const EvaluateFlags& flags,
                                                         client::Client* client) {
  v1::EvaluateRulesRequest request;
  request.set_name(JobName(flags.job));
  request.set_from_step(flags.from_step);
  if (flags.to_step >= 0) request.set_to_step(flags.to_step);
  if (!flags.only) {
    v1::GetJobRequest get;
    get.set_name(request.name());
    const absl::StatusOr<v1::Job> job = client->GetJob(get);
    if (!job.ok()) return job.status();
    *request.mutable_rules() = job->rules();
    *request.mutable_custom_rules() = job->custom_rules();
  }
  for (const std::string& text : flags.rules) {
    const absl::StatusOr<v1::RuleSettings> rule = ParseRule(text);
    if (!rule.ok()) return rule.status();
    MergeRule(*rule, request.mutable_rules());
  }
  for (const std::string& text : flags.custom_rules) {
    const absl::StatusOr<v1::CustomRule> rule = ParseCustomRule(text);
    if (!rule.ok()) return rule.status();
    MergeCustomRule(*rule, request.mutable_custom_rules());
  }
  return request;
}

Command EvaluateCommand() {
  const auto flags = std::make_shared<EvaluateFlags>();
  Command command{
      .name = "evaluate",
      .purpose = "Replay rules over the recorded history of a job.",
      .description =
          "Shows the alerts that would have come with other settings; the job stays as "
          "it is. STALLED_JOB looks at the clock and is not replayed.",
      .examples = {"alerts evaluate my-job --rule EXPLODING_ABS:threshold=50",
                   "alerts evaluate my-job --custom-rule 'SPIKE: norm_before > 20 * median'"},
      .flags = {JobArgument(&flags->job),
                {.names = "--rule",
                 .value = "RULE:SETTINGS",
                 .help = "Settings of a rule, as in submit; may be repeated.",
                 .field = "rules",
                 .repeated = true,
                 .set = Into(&flags->rules)},
                {.names = "--custom-rule",
                 .value = "NAME: EXPRESSION",
                 .help = "A rule of your own, as in submit; may be repeated.",
                 .field = "custom_rules",
                 .repeated = true,
                 .set = Into(&flags->custom_rules)},
                {.names = "--defaults",
                 .help = "Begin with the catalogue's settings instead of the job's.",
                 .set = Into(&flags->only)},
                {.names = "--from",
                 .value = "STEP",
                 .help = "The first step that the rules see.",
                 .default_text = "the oldest that is kept",
                 .field = "from_step",
                 .set = Into(&flags->from_step)},
                {.names = "--to",
                 .value = "STEP",
                 .help = "The last one.",
                 .default_text = "the newest",
                 .field = "to_step",
                 .set = Into(&flags->to_step)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect(absl::Minutes(1));
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::EvaluateRulesRequest> request = EvaluateRequest(*flags, *client);
    if (!request.ok()) return request.status();
    absl::StatusOr<v1::EvaluateRulesResponse> response = (*client)->EvaluateRules(*request);
    if (!response.ok()) return response.status();
    if (session->json()) {
      session->PrintJson(*response);
      return kOk;
    }
    session->Note(absl::StrCat(response->steps(), " steps replayed, ", response->first_step(),
                               " to ", response->last_step(), "; ", response->alerts_size(),
                               response->alerts_size() == 1 ? " alert" : " alerts"));
    if (response->alerts().empty()) return kOk;
    for (v1::Alert& alert : *response->mutable_alerts()) alert.set_name(request->name());
    const Environment& environment = session->environment();
    const size_t width =
        environment.out_is_terminal ? static_cast<size_t>(environment.columns) : 10'000;
    session->out() << AlertTable({response->alerts().begin(), response->alerts().end()}, width,
                                 environment.unicode)
                          .ToString();
    return kOk;
  };
  return command;
}

}  // namespace

Command AlertsCommand() {
  const auto flags = std::make_shared<AlertFlags>();
  Command command{
      .name = "alerts",
      .purpose =
          "List alerts of one job or of all, or watch them come; show one whole, note who looks "
          "after them, silence rules, try rules on recorded steps; list the rules.",
      .examples = {"alerts my-job", "alerts --all", "alerts my-job --watch", "alerts rules"},
      .flags = {{.names = "JOB",
                 .value = "JOB",
                 .help = "The job's id; not with --all.",
                 .required = false,
                 .set = Into(&flags->job)},
                {.names = "--all", .help = "Alerts of all jobs.", .set = Into(&flags->all)},
                {.names = "--watch",
                 .help = "Show those that fire now and each change, until the job ends.",
                 .set = Into(&flags->watch)},
                {.names = "--reconnect",
                 .help = "With --watch: wait for a server that goes away.",
                 .set = Into(&flags->reconnect)}}};
  for (Command& subcommand :
       std::vector<Command>{RulesCommand(), ShowCommand(), AckCommand(), SilenceCommand(),
                            SilencesCommand(), UnsilenceCommand(), EvaluateCommand()}) {
    command.subcommands.push_back(std::move(subcommand));
  }
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    if (flags->all != flags->job.empty()) {
      return absl::InvalidArgumentError("alerts of which job? Give its id, or --all");
    }
    const std::string parent = flags->all ? "jobs/-" : JobName(flags->job);
    const absl::StatusOr<client::Client*> client =
        session->Connect(absl::Seconds(10), flags->watch);
    if (!client.ok()) return client.status();
    return flags->watch ? Watch(*flags, parent, *client, session)
                        : List(*flags, parent, *client, session);
  };
  return command;
}

}  // namespace gradwatch::cli
