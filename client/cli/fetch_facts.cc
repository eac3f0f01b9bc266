#include "client/cli/fetch_facts.h"

#include <algorithm>
#include <utility>

#include "client/cli/commands.h"

namespace gradwatch::cli {
namespace {

// Points of a curve: about two for each three pixels of the page.
constexpr int kCurvePoints = 400;
constexpr size_t kReportAlertsMax = 1000;
// How often reading starts again because a running job's history moved past it.
constexpr int kAttemptsMax = 5;

// Reads the recorded steps from `from_step` on into `digest`; `next_step` is behind the last read.
absl::Status ReadSteps(client::Client* client, const v1::Job& job, int64_t* next_step,
                       RunDigest* digest) {
  v1::StreamStatsRequest request;
  request.set_name(job.name());
  request.set_from_step(*next_step);
  request.set_lossless(true);
  request.set_history_only(true);
  const bool arrays = job.statistics_level() == v1::STATISTICS_LEVEL_FULL ||
                      job.diagnostics().recurrent_every_steps() > 0 ||
                      job.diagnostics().probe_every_steps() > 0;
  request.set_scalars_only(!arrays);
  const auto reader = client->StreamStats(request, {});
  v1::StreamStatsResponse message;
  while (reader->Next(&message)) {
    for (const v1::StepStats& step : message.steps()) {
      digest->Add(step);
      *next_step = step.step() + 1;
    }
  }
  return reader->Finish();
}

absl::Status ReadDigest(client::Client* client, RunFacts* facts) {
  const std::string& name = facts->summary.job.name();
  v1::QueryStatsResponse* const history = &facts->summary.history;
  facts->digest =
      RunDigest(history->oldest_step(), history->newest_step(), facts->summary.job.parameters());
  int64_t next_step = history->oldest_step();
  absl::Status status;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    status = ReadSteps(client, facts->summary.job, &next_step, &facts->digest);
    if (!absl::IsOutOfRange(status)) return status;
    // The oldest steps were forgotten meanwhile: go on with those that are still kept.
    v1::QueryStatsRequest request;
    request.set_name(name);
    request.set_points(1);
    const absl::StatusOr<v1::QueryStatsResponse> kept = client->QueryStats(request);
    if (!kept.ok()) return kept.status();
    next_step = std::max(next_step, kept->oldest_step());
  }
  return status;
}

absl::Status FetchAdvice(client::Client* client, RunFacts* facts) {
  v1::GetClipAdviceRequest request;
  request.set_name(facts->summary.job.name());
  absl::StatusOr<v1::ClipAdvice> advice = client->GetClipAdvice(request);
  if (advice.ok()) facts->advice = *std::move(advice);
  return advice.status();
}

// Absent for a job without uploaded data, and for data that was deleted since.
absl::Status FetchDataset(client::Client* client, RunFacts* facts) {
  const v1::Task& task = facts->summary.job.task();
  v1::GetDatasetRequest request;
  request.set_name(task.has_language()   ? task.language().dataset()
                   : task.has_forecast() ? task.forecast().dataset()
                                         : "");
  if (request.name().empty()) return absl::OkStatus();
  absl::StatusOr<v1::Dataset> dataset = client->GetDataset(request);
  if (absl::IsNotFound(dataset.status())) return absl::OkStatus();
  if (dataset.ok()) facts->dataset = *std::move(dataset);
  return dataset.status();
}

}  // namespace

absl::StatusOr<RunFacts> FetchRunFacts(client::Client* client, const std::string& name) {
  RunFacts facts;
  v1::GetJobRequest get;
  get.set_name(name);
  absl::StatusOr<v1::Job> job = client->GetJob(get);
  if (!job.ok()) return job.status();
  facts.summary.job = *std::move(job);
  v1::QueryStatsRequest query;
  query.set_name(name);
  query.set_points(kCurvePoints);
  absl::StatusOr<v1::QueryStatsResponse> history = client->QueryStats(query);
  if (!history.ok()) return history.status();
  facts.summary.history = *std::move(history);
  absl::StatusOr<std::vector<v1::Alert>> alerts = AllAlerts(client, name, kReportAlertsMax);
  if (!alerts.ok()) return alerts.status();
  facts.summary.alerts = *std::move(alerts);
  std::stable_sort(
      facts.summary.alerts.begin(), facts.summary.alerts.end(),
      [](const v1::Alert& a, const v1::Alert& b) { return a.firing_step() < b.firing_step(); });
  if (absl::Status status = FetchDataset(client, &facts); !status.ok()) return status;
  if (absl::Status status = FetchAdvice(client, &facts); !status.ok()) return status;
  if (facts.summary.history.newest_step() < 0) return facts;
  if (absl::Status status = ReadDigest(client, &facts); !status.ok()) return status;
  return facts;
}

}  // namespace gradwatch::cli
