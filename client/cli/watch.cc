// watch, and waiting for a job.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/interventions.h"
#include "client/cli/report.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

// Lines of recorded history before the live ones, and for a job that has ended.
constexpr int kHistoryLines = 10;
constexpr int kReplayLines = 20;
// Reports that the redrawn view keeps for its charts.
constexpr size_t kReportsMax = 200;
// The job and its alerts are asked for at most this often.
constexpr absl::Duration kAskEvery = absl::Seconds(1);
constexpr absl::Duration kViewEvery = absl::Milliseconds(200);
constexpr size_t kAlertsMax = 1000;

absl::Time DeadlineOf(const Session& session) {
  return session.options().timeout_given ? absl::Now() + session.options().client.timeout
                                         : absl::InfiniteFuture();
}

// What the end of a stream means for somebody who waits for a job. OK: the job is final.
absl::StatusOr<int> ExplainEnd(const absl::Status& status, const std::string& job, bool seen_before,
                               Session* session) {
  std::ostream& err = *session->environment().err;
  const std::string id = IdOf(job);
  const std::string& server = session->options().client.server;
  if (session->interrupted()) {
    err << "gradwatch: stopped watching; " << job << " goes on (gradwatch watch " << id
        << " shows it again, gradwatch cancel " << id << " ends it)" << std::endl;
    return kInterrupted;
  }
  if (absl::IsDeadlineExceeded(status)) {
    err << "gradwatch: " << job << " has not ended in the time that --timeout gives; it goes on"
        << std::endl;
    return kTimeout;
  }
  if (absl::IsUnavailable(status) && seen_before) {
    err << "gradwatch: the server at " << server << " went away while " << job << " was watched ("
        << std::string(status.message()) << "): see whether gradwatchd still runs; gradwatch watch "
        << id << " --reconnect waits for it to come back" << std::endl;
    return kUnavailable;
  }
  if (absl::IsNotFound(status) && seen_before) {
    err << "gradwatch: " << job << " is not on the server at " << server
        << " any more: it was deleted, or the server was started anew (jobs live in its memory)"
        << std::endl;
    return kNotFound;
  }
  return status;
}

// One `watch`.
class Watcher {
 public:
  Watcher(const WatchOptions& options, client::Client* client, Session* session)
      : options_(options),
        name_(JobName(options.job)),
        deadline_(DeadlineOf(*session)),
        unicode_(session->environment().unicode),
        redraws_(session->environment().out_is_terminal && !options.plain && !options.lossless),
        client_(client),
        session_(session) {}

  absl::StatusOr<int> Run() {
    absl::Status status = FetchJob();
    if (!status.ok()) return End(status);
    seen_ = true;
    if (session_->json()) return End(StreamJson());
    session_->out() << session_->Paint(Color::kBold, Title()) << std::endl;
    // A job that stands still says so at once.
    if (!IsFinal(job_.state()) && job_.state() != v1::Job::STATE_RUNNING) ShowState();
    int64_t next_step = 0;
    const bool live = !IsFinal(job_.state());
    if (!live || !options_.from_step) status = ShowHistory(live, &next_step);
    if (status.ok() && live) status = Follow(options_.from_step.value_or(next_step));
    if (status.ok()) status = Conclude();
    return End(status);
  }

 private:
  absl::StatusOr<int> End(const absl::Status& status) {
    EraseView();
    if (!status.ok()) return ExplainEnd(status, name_, seen_, session_);
    return ExitCodeOf(job_.state());
  }

  std::string Title() const {
    return absl::StrCat(name_, ": ", DescribeTask(job_.task()), ", ", DescribeModel(job_.model()),
                        ", ", DescribeOptimizer(job_.optimizer()), ", clip ",
                        DescribeClipping(job_), ", ", job_.training().step_limit(), " steps, seed ",
                        job_.seed());
  }

  absl::Status FetchJob() {
    v1::GetJobRequest request;
    request.set_name(name_);
    absl::StatusOr<v1::Job> job = client_->GetJob(request);
    if (job.ok()) job_ = *std::move(job);
    return job.status();
  }

  v1::StreamStatsRequest StreamRequest(int64_t from_step) const {
    v1::StreamStatsRequest request;
    request.set_name(name_);
    request.set_from_step(from_step);
    request.set_lossless(options_.lossless);
    request.set_scalars_only(!session_->json());
    // Without an interval of its own, lossless means every step.
    absl::Duration interval = options_.interval;
    if (!options_.interval_given && redraws_) interval = kViewEvery;
    if (!options_.interval_given && options_.lossless) interval = absl::ZeroDuration();
    if (interval > absl::ZeroDuration()) {
      google::protobuf::Duration* const proto = request.mutable_min_interval();
      proto->set_seconds(absl::IDivDuration(interval, absl::Seconds(1), &interval));
      proto->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(interval)));
    }
    return request;
  }

  client::StreamOptions Stream() {
    return {.reconnect = options_.reconnect,
            .deadline = deadline_,
            .on_reconnect = [this](const absl::Status&) {
              if (std::exchange(reconnecting_, true)) return;
              EraseView();
              session_->Note(absl::StrCat("gradwatch: the server at ",
                                          session_->options().client.server,
                                          " went away; trying again"));
            }};
  }

  // Every message of the stream as one line of JSON.
  absl::Status StreamJson() {
    int64_t from_step = options_.from_step.value_or(0);
    if (!options_.from_step) {
      const absl::StatusOr<v1::QueryStatsResponse> history = Query(1);
      if (!history.ok()) return history.status();
      from_step = std::max<int64_t>(history->oldest_step(), 0);
    }
    const auto reader = client_->StreamStats(StreamRequest(from_step), Stream());
    v1::StreamStatsResponse message;
    while (reader->Next(&message)) {
      reconnecting_ = false;
      session_->PrintJson(message, true);
      if (message.has_final_job()) job_ = message.final_job();
    }
    return reader->Finish();
  }

  absl::StatusOr<v1::QueryStatsResponse> Query(int points) {
    v1::QueryStatsRequest request;
    request.set_name(name_);
    request.set_points(points);
    if (options_.from_step) request.set_from_step(*options_.from_step);
    return client_->QueryStats(request);
  }

  absl::Status ShowHistory(bool live, int64_t* next_step) {
    const absl::StatusOr<v1::QueryStatsResponse> history =
        Query(redraws_ && live ? static_cast<int>(kReportsMax) / 2
                               : (live ? kHistoryLines : kReplayLines));
    if (!history.ok()) return history.status();
    *next_step = history->newest_step() + 1;
    for (const v1::FoldedStats& bucket : history->buckets()) ShowInterventions(bucket);
    for (const Report& report : ReportsOf(*history)) Show(report);
    return absl::OkStatus();
  }

  absl::Status Follow(int64_t from_step) {
    const auto reader = client_->StreamStats(StreamRequest(from_step), Stream());
    ReportMaker maker;
    v1::StreamStatsResponse message;
    while (reader->Next(&message)) {
      reconnecting_ = false;
      if (message.dropped_before() > 0) {
        EraseView();
        session_->Note(absl::StrCat(message.dropped_before(), " steps were dropped on the way"));
      }
      if (absl::Status status = Ask(message, &maker); !status.ok()) return status;
      ShowInterventions(message.folded());
      for (const v1::StepStats& step : message.steps()) ShowInterventions(step);
      for (const Report& report : ReportsIn(message, &maker)) Show(report);
      if (message.has_final_job()) job_ = message.final_job();
    }
    absl::Status status = reader->Finish();
    if (status.ok() && !IsFinal(job_.state())) status = FetchJob();
    return status;
  }

  // What the stream does not tell: changes of state, evaluations within folded steps, alerts.
  absl::Status Ask(const v1::StreamStatsResponse& message, ReportMaker* maker) {
    if (absl::Now() - asked_ < kAskEvery || message.has_final_job()) return absl::OkStatus();
    asked_ = absl::Now();
    const v1::Job::State before = job_.state();
    if (absl::Status status = FetchJob(); !status.ok()) return status;
    if (job_.has_latest_evaluation()) maker->Note(job_.latest_evaluation());
    const bool stands = message.heartbeat() && !IsFinal(job_.state());
    if (stands && job_.state() != before) ShowState();
    return ShowAlerts();
  }

  // One report for a message; with `lossless` one for each step.
  std::vector<Report> ReportsIn(const v1::StreamStatsResponse& message, ReportMaker* maker) const {
    std::vector<Report> reports;
    const auto add = [&](const v1::StreamStatsResponse& part) {
      if (std::optional<Report> report = maker->Add(part)) reports.push_back(*std::move(report));
    };
    if (!options_.lossless) {
      add(message);
      return reports;
    }
    v1::StreamStatsResponse part;
    *part.mutable_folded() = message.folded();
    if (message.folded().count() > 0) add(part);
    for (const v1::StepStats& step : message.steps()) {
      part.Clear();
      *part.add_steps() = step;
      add(part);
    }
    return reports;
  }

  void Show(const Report& report) {
    if (redraws_ && !IsFinal(job_.state())) {
      reports_.push_back(report);
      if (reports_.size() > kReportsMax) reports_.erase(reports_.begin());
      DrawView();
      return;
    }
    if (!header_shown_) session_->out() << ReportHeader(unicode_) << "\n";
    header_shown_ = true;
    const std::string line = ReportLine(report, unicode_);
    session_->out() << (report.steps.nonfinite_steps() > 0 ? session_->Paint(Color::kRed, line)
                                                           : line)
                    << std::endl;
  }

  // Of a step, or of steps that were folded.
  template <typename Stats>
  void ShowInterventions(const Stats& stats) {
    for (const v1::Intervention& intervention : stats.interventions()) {
      EraseView();
      const auto width = static_cast<size_t>(std::clamp(session_->environment().columns, 60, 120));
      session_->out() << session_->Paint(
                             Color::kBold,
                             Wrap(absl::StrCat("* ", InterventionLine(intervention)), width, 4))
                      << std::endl;
    }
  }

  void ShowState() {
    EraseView();
    std::string line = absl::StrCat(StateName(job_.state()), " at step ", job_.step());
    if (job_.queue_position() > 0) {
      absl::StrAppend(&line, ", place ", job_.queue_position(), " in the queue");
    }
    if (job_.state() == v1::Job::STATE_PAUSED) {
      absl::StrAppend(&line, "; gradwatch resume ", IdOf(name_), " lets it go on");
    }
    session_->out() << line << std::endl;
  }

  // Prints alerts that are new or changed since the last time.
  absl::Status ShowAlerts() {
    absl::StatusOr<std::vector<v1::Alert>> alerts = AllAlerts(client_, name_, kAlertsMax);
    if (!alerts.ok()) return alerts.status();
    std::reverse(alerts->begin(), alerts->end());
    for (const v1::Alert& alert : *alerts) {
      const std::string key =
          absl::StrCat(alert.state(), " ", alert.severity(), " ", alert.count());
      std::string& shown = alerts_shown_[alert.name()];
      if (shown == key) continue;
      const bool is_new = shown.empty();
      shown = key;
      ShowAlert(alert, is_new);
    }
    return absl::OkStatus();
  }

  void ShowAlert(const v1::Alert& alert, bool is_new) {
    EraseView();
    const bool resolved = alert.state() == v1::Alert::STATE_RESOLVED;
    const Color color = resolved                                ? Color::kGreen
                        : alert.severity() == v1::SEVERITY_CRIT ? Color::kRed
                                                                : Color::kYellow;
    const auto width = static_cast<size_t>(std::clamp(session_->environment().columns, 60, 120));
    session_->out() << session_->Paint(color, Wrap(absl::StrCat("! ", AlertLine(alert)), width, 4))
                    << "\n";
    if (is_new && !resolved && !alert.advice().empty()) {
      session_->out() << "    " << Wrap(alert.advice(), width - 4, 4) << "\n";
    }
    session_->out().flush();
  }

  // --- the view that is redrawn in place ---

  void DrawView() {
    EraseView();
    const auto columns = static_cast<size_t>(std::max(session_->environment().columns, 40));
    for (const std::string& line : LiveView(job_, reports_, {columns, unicode_})) {
      session_->out() << Shorten(line, columns - 1, unicode_) << "\n";
      ++view_lines_;
    }
    session_->out().flush();
  }

  void EraseView() {
    if (view_lines_ > 0) session_->out() << "\033[" << view_lines_ << "F\033[J" << std::flush;
    view_lines_ = 0;
  }

  // Charts over all steps, the alerts that were not shown yet, the outcome.
  absl::Status Conclude() {
    EraseView();
    if (absl::Status status = ShowAlerts(); !status.ok()) return status;
    const auto columns = static_cast<size_t>(std::max(session_->environment().columns, 40));
    const absl::StatusOr<v1::QueryStatsResponse> history = Query(100);
    if (!history.ok()) return history.status();
    if (const std::string chart = Timeline(*history, {columns, unicode_}); !chart.empty()) {
      session_->out() << "\n" << chart;
    }
    const Color color = job_.state() == v1::Job::STATE_SUCCEEDED ? Color::kGreen : Color::kRed;
    session_->out() << session_->Paint(color, OutcomeLine(job_)) << std::endl;
    return absl::OkStatus();
  }

  const WatchOptions options_;
  const std::string name_;
  const absl::Time deadline_;
  const bool unicode_;
  const bool redraws_;
  client::Client* const client_;
  Session* const session_;
  v1::Job job_;
  bool seen_ = false;
  bool reconnecting_ = false;
  bool header_shown_ = false;
  std::vector<Report> reports_;
  size_t view_lines_ = 0;
  absl::Time asked_ = absl::InfinitePast();
  std::map<std::string, std::string> alerts_shown_;
};

}  // namespace

absl::StatusOr<std::vector<v1::Alert>> AllAlerts(client::Client* client, const std::string& parent,
                                                 size_t limit) {
  v1::ListAlertsRequest request;
  request.set_parent(parent);
  request.set_page_size(1000);
  std::vector<v1::Alert> alerts;
  do {
    absl::StatusOr<v1::ListAlertsResponse> page = client->ListAlerts(request);
    if (!page.ok()) return page.status();
    for (v1::Alert& alert : *page->mutable_alerts()) {
      if (alerts.size() < limit) alerts.push_back(std::move(alert));
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && alerts.size() < limit);
  return alerts;
}

absl::StatusOr<int> WatchJob(Session* session, const WatchOptions& options) {
  const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(10), true);
  if (!client.ok()) return client.status();
  return Watcher(options, *client, session).Run();
}

absl::StatusOr<int> WaitForJob(Session* session, const std::string& job, bool reconnect) {
  const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(10), true);
  if (!client.ok()) return client.status();
  v1::WatchJobRequest request;
  request.set_name(JobName(job));
  const auto reader = (*client)->WatchJob(
      request, {.reconnect = reconnect, .deadline = DeadlineOf(*session), .on_reconnect = {}});
  v1::WatchJobResponse message;
  v1::Job newest;
  while (reader->Next(&message)) {
    if (message.has_job()) newest = message.job();
  }
  const absl::Status status = reader->Finish();
  if (!status.ok()) return ExplainEnd(status, request.name(), true, session);
  if (session->json()) {
    session->PrintJson(newest);
  } else {
    session->out() << OutcomeLine(newest) << std::endl;
  }
  return ExitCodeOf(newest.state());
}

Command WatchCommand() {
  const auto options = std::make_shared<WatchOptions>();
  Command command{
      .name = "watch",
      .purpose = "Follow a job until it ends, then show its whole course as charts.",
      .description =
          "One line for each report, with the mean loss of its steps, the largest norm before and "
          "after clipping, the share of clipped steps, the mean growth factor of the gradient "
          "through time (above 1 it grows, below 1 it fades), the newest evaluation (share of "
          "right answers, else the loss) and alerts as they come. In a terminal the lines are a "
          "small view that is redrawn. A job that has ended is replayed, thinned out. Ctrl-C ends "
          "the watching, not the job.\n"
          "Exit codes: 0 the job succeeded, 1 it failed, 3 there is no such job, 5 it was "
          "cancelled, 6 --timeout, 7 the server went away, 130 Ctrl-C. With -o json each message "
          "of the stream is one line.",
      .examples = {"watch my-job", "watch my-job --plain --interval 5 --reconnect",
                   "watch my-job --from-step 0 --lossless -o json > steps.jsonl"},
      .flags = {
          JobArgument(&options->job),
          {.names = "--from-step",
           .value = "N",
           .help = "Start with this step.",
           .default_text = "what is kept, thinned out, then live",
           .set =
               [options](const std::string& text) {
                 int64_t step = 0;
                 const absl::Status status = Into(&step)(text);
                 if (status.ok()) options->from_step = step;
                 return status;
               }},
          {.names = "--interval",
           .value = "TIME",
           .help = "At most one report in this time; the steps between are folded into it. 0: "
                   "every message.",
           .default_text = "1 s, redrawn view 0.2 s, --lossless 0",
           .set =
               [options](const std::string& text) {
                 options->interval_given = true;
                 return Into(&options->interval)(text);
               }},
          {.names = "--lossless",
           .help = "Every step on a line of its own; nothing is dropped for a slow reader.",
           .set = Into(&options->lossless)},
          {.names = "--reconnect",
           .help = "When the server goes away, try again until it is back, and go on where it was.",
           .set = Into(&options->reconnect)},
          {.names = "--plain",
           .help = "Lines instead of the redrawn view, in a terminal too.",
           .set = Into(&options->plain)}}};
  command.run = [options](Session* session) { return WatchJob(session, *options); };
  return command;
}

}  // namespace gradwatch::cli
