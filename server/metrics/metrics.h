#ifndef GRADWATCH_SERVER_METRICS_METRICS_H_
#define GRADWATCH_SERVER_METRICS_METRICS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradwatch/v1/alert.pb.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"

namespace gradwatch::metrics {

// What one scrape reads of the jobs.
struct JobsView {
  std::vector<jobs::JobSnapshot> snapshots;  // Running ones first, then newest.
  std::vector<int64_t> count_by_state;       // Indexed by v1::Job::State.
  jobs::Totals totals;
  std::vector<double> step_duration_bounds;  // Upper bounds in seconds.
};
JobsView ReadJobs(const jobs::JobManager& manager);

struct MetricsOptions {
  // For gradwatch_build_info.
  std::string version;
  std::string revision;
  // Bounds of what one scrape shows. Jobs beyond, and then whole jobs beyond
  // the series, are left out in the order of JobsView and counted in
  // gradwatch_exporter_series_dropped.
  int jobs_max = 100;
  int series_max = 10'000;
};

// The counters of one RPC method, registered once, counted without a look-up.
class RpcMethod {
 public:
  virtual ~RpcMethod() = default;
  virtual void Started() = 0;
  // `code` is a grpc::StatusCode by number; "OK" is exported as 0 from the
  // start.
  virtual void Handled(int code) = 0;
};

// Everything that /metrics shows: README.md lists the names. Labels that need a
// word:
//   job_id    the bare id, without "jobs/"
//   state     as in v1::Job::State without its prefix: QUEUED, RUNNING,
//   PAUSING, PAUSED,
//             CANCELLING, SUCCEEDED, FAILED, CANCELLED
//   severity  INFO, WARN, CRIT
//   rule      the rule's name, such as EXPLODING_ABS
//   point     pre_clip, post_clip
//   reason    why stream events were not delivered: slow_reader
//
// The only place that includes prometheus-cpp. Nothing here can throw once it
// is constructed: all names are fixed, and a label's value may be any text.
// Threads: every method may be called from any thread.
class Metrics {
 public:
  // `read_jobs` is called at each scrape and must outlive nothing but this
  // object; it takes no lock that a trainer holds for long. `rules` is the
  // catalogue, for the thresholds in force.
  Metrics(MetricsOptions options, std::vector<v1::Rule> rules, std::function<JobsView()> read_jobs,
          const Clock* clock);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // The text format 0.0.4.
  std::string Render();
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

  // The same pointer for the same arguments; valid as long as this object.
  // `type` is unary, client_stream or server_stream.
  RpcMethod* Method(absl::string_view service, absl::string_view method, absl::string_view type);

  void StreamOpened();
  void StreamClosed();
  // Steps, job changes and alert changes that were handed to a stream's
  // transport.
  void EventsSent(int64_t events);
  // What a reader lost because it was too slow.
  void EventsDropped(int64_t events);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwatch::metrics

#endif  // GRADWATCH_SERVER_METRICS_METRICS_H_
