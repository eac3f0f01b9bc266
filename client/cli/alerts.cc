// alerts, alerts rules.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
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

std::string SettingsOf(const v1::RuleSettings& defaults) {
  std::string text;
  const auto add = [&text](const char* name, bool present, const std::string& value) {
    if (present) absl::StrAppend(&text, text.empty() ? "" : ",", name, "=", value);
  };
  add("threshold", defaults.has_threshold(), FormatNumber(defaults.threshold()));
  add("warmup", defaults.has_warmup_steps(), absl::StrCat(defaults.warmup_steps()));
  add("for", defaults.has_for_steps(), absl::StrCat(defaults.for_steps()));
  add("resolve", defaults.has_resolve_steps(), absl::StrCat(defaults.resolve_steps()));
  add("cooldown", defaults.has_cooldown_steps(), absl::StrCat(defaults.cooldown_steps()));
  return text;
}

Command RulesCommand() {
  Command command{.name = "rules",
                  .purpose = "List the built-in rules with their conditions and defaults.",
                  .description =
                      "The settings are what submit --rule RULE:... and update --rule "
                      "can change.",
                  .examples = {"alerts rules", "alerts rules -o json"}};
  command.run = [](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<v1::ListRulesResponse> rules = (*client)->ListRules({});
    if (!rules.ok()) return rules.status();
    if (session->json()) {
      session->PrintJson(*rules);
      return kOk;
    }
    Table table({{"RULE"}, {"SEVERITY"}, {"DEFAULTS"}, {"CONDITION"}});
    for (const v1::Rule& rule : rules->rules()) {
      table.AddRow({rule.name(), SeverityName(rule.severity()), SettingsOf(rule.defaults()),
                    rule.condition()});
    }
    session->out() << table.ToString();
    return kOk;
  };
  return command;
}

}  // namespace

Command AlertsCommand() {
  const auto flags = std::make_shared<AlertFlags>();
  Command command{
      .name = "alerts",
      .purpose = "List alerts of one job or of all, or watch them come; list the rules.",
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
  command.subcommands.push_back(RulesCommand());
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
