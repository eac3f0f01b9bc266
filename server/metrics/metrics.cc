#include "server/metrics/metrics.h"

#include <array>
#include <limits>
#include <map>
#include <sstream>
#include <tuple>
#include <utility>

#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/base/mutex.h"
#include "server/metrics/families.h"
#include "server/metrics/job_series.h"
#include "server/metrics/process_stats.h"

namespace gradwatch::metrics {
namespace {

// By the number of grpc::StatusCode, which this room does not include.
constexpr std::array<const char*, 17> kCodeNames = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

const char* CodeName(int code) {
  const bool known = code >= 0 && static_cast<size_t>(code) < kCodeNames.size();
  return known ? kCodeNames[static_cast<size_t>(code)] : "Unknown";
}

// Reads the jobs once for each scrape: an ended job vanishes by not being
// emitted.
class JobCollectable final : public prometheus::Collectable {
 public:
  JobCollectable(int jobs_max, int series_max, std::vector<v1::Rule> rules,
                 std::function<JobsView()> read_jobs, const Clock* clock)
      : jobs_max_(static_cast<size_t>(jobs_max)),
        series_max_(static_cast<size_t>(series_max)),
        rules_(std::move(rules)),
        read_jobs_(std::move(read_jobs)),
        clock_(clock) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    const absl::Time start = clock_->Now();
    const JobsView view = read_jobs_();
    FamilySet out;
    AddSummarySeries(view.count_by_state, view.snapshots, &out);
    size_t shown = 0, dropped = 0, jobs = 0;
    FamilySet counted = FamilySet::Counting();
    for (const jobs::JobSnapshot& snapshot : view.snapshots) {
      // First, since a job is shown whole or not at all.
      const size_t before = counted.series();
      AddJobSeries(snapshot, rules_, &counted);
      const size_t series = counted.series() - before;
      if (jobs == jobs_max_ || shown + series > series_max_) {
        dropped += series;
        continue;
      }
      ++jobs;
      shown += series;
      AddJobSeries(snapshot, rules_, &out);
    }
    AddProcessSeries(&out);
    out.Gauge("gradwatch_exporter_series", "Series of single jobs that this scrape shows.")
        .Add(static_cast<double>(shown));
    out.Gauge("gradwatch_exporter_series_dropped",
              "Series of single jobs that this scrape leaves out because of "
              "its bounds.")
        .Add(static_cast<double>(dropped));
    out.Gauge("gradwatch_exporter_collect_duration_seconds", "How long reading the jobs took.")
        .Add(absl::ToDoubleSeconds(clock_->Now() - start));
    std::vector<prometheus::MetricFamily> families = out.Take();
    families.push_back(StepDurations(view.totals, view.step_duration_bounds));
    return families;
  }

 private:
  static prometheus::MetricFamily StepDurations(const jobs::Totals& totals,
                                                const std::vector<double>& bounds) {
    prometheus::MetricFamily family;
    family.name = "gradwatch_step_duration_seconds";
    family.help = "How long steps took, all jobs together.";
    family.type = prometheus::MetricType::Histogram;
    prometheus::ClientMetric metric;
    uint64_t cumulative = 0;
    for (size_t i = 0; i <= bounds.size(); ++i) {
      if (i < totals.step_duration_counts.size()) cumulative += totals.step_duration_counts[i];
      const double bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({cumulative, bound});
    }
    metric.histogram.sample_count = cumulative;
    metric.histogram.sample_sum = totals.step_duration_sum_seconds;
    family.metric.push_back(std::move(metric));
    return family;
  }

  const size_t jobs_max_;
  const size_t series_max_;
  const std::vector<v1::Rule> rules_;
  const std::function<JobsView()> read_jobs_;
  const Clock* const clock_;
};

class CountedMethod final : public RpcMethod {
 public:
  CountedMethod(prometheus::Labels labels, prometheus::Family<prometheus::Counter>* started,
                prometheus::Family<prometheus::Counter>* handled)
      : labels_(std::move(labels)),
        started_(&started->Add(labels_)),
        handled_(handled),
        ok_(&ByCode(0)) {}

  void Started() override { started_->Increment(); }
  void Handled(int code) override { (code == 0 ? *ok_ : ByCode(code)).Increment(); }

 private:
  prometheus::Counter& ByCode(int code) {
    prometheus::Labels labels = labels_;
    labels["grpc_code"] = CodeName(code);
    return handled_->Add(labels);
  }

  const prometheus::Labels labels_;
  prometheus::Counter* const started_;
  prometheus::Family<prometheus::Counter>* const handled_;
  // The usual one, without a look-up.
  prometheus::Counter* const ok_;
};

}  // namespace

class Metrics::Impl {
 public:
  Impl(MetricsOptions options, std::vector<v1::Rule> rules, std::function<JobsView()> read_jobs,
       const Clock* clock)
      : jobs_(options.jobs_max, options.series_max, std::move(rules), std::move(read_jobs), clock) {
    prometheus::BuildGauge()
        .Name("gradwatch_build_info")
        .Help("Which release this is; always 1.")
        .Register(registry_)
        .Add({{"version", options.version}, {"revision", options.revision}})
        .Set(1);
  }

  std::string Render() const {
    std::vector<prometheus::MetricFamily> families = registry_.Collect();
    for (auto& family : jobs_.Collect()) families.push_back(std::move(family));
    std::ostringstream text;
    prometheus::TextSerializer().Serialize(text, families);
    return text.str();
  }

  RpcMethod* Method(absl::string_view service, absl::string_view method, absl::string_view type) {
    MutexLock lock(&mu_);
    auto& known = methods_[{std::string(service), std::string(method), std::string(type)}];
    if (known == nullptr) {
      prometheus::Labels labels = {{"grpc_service", std::string(service)},
                                   {"grpc_method", std::string(method)},
                                   {"grpc_type", std::string(type)}};
      known = std::make_unique<CountedMethod>(std::move(labels), &started_, &handled_);
    }
    return known.get();
  }

  void AddSubscribers(double change) { subscribers_.Increment(change); }
  void AddSent(int64_t events) { sent_.Increment(static_cast<double>(events)); }
  void AddDropped(int64_t events) { dropped_.Increment(static_cast<double>(events)); }

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& started_ = prometheus::BuildCounter()
                                                          .Name("grpc_server_started_total")
                                                          .Help("RPCs that began.")
                                                          .Register(registry_);
  prometheus::Family<prometheus::Counter>& handled_ = prometheus::BuildCounter()
                                                          .Name("grpc_server_handled_total")
                                                          .Help("RPCs that ended, by status code.")
                                                          .Register(registry_);
  prometheus::Gauge& subscribers_ = prometheus::BuildGauge()
                                        .Name("gradwatch_stream_subscribers")
                                        .Help("Streams that are open now.")
                                        .Register(registry_)
                                        .Add({});
  prometheus::Counter& sent_ = prometheus::BuildCounter()
                                   .Name("gradwatch_stream_events_sent_total")
                                   .Help("Steps and changes that were sent on streams.")
                                   .Register(registry_)
                                   .Add({});
  prometheus::Counter& dropped_ = prometheus::BuildCounter()
                                      .Name("gradwatch_stream_events_dropped_total")
                                      .Help("Steps and changes that readers of streams lost.")
                                      .Register(registry_)
                                      .Add({{"reason", "slow_reader"}});
  const JobCollectable jobs_;

  Mutex mu_;
  std::map<std::tuple<std::string, std::string, std::string>, std::unique_ptr<CountedMethod>>
      methods_ ABSL_GUARDED_BY(mu_);
};

Metrics::Metrics(MetricsOptions options, std::vector<v1::Rule> rules,
                 std::function<JobsView()> read_jobs, const Clock* clock)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(rules), std::move(read_jobs),
                                   clock)) {}
Metrics::~Metrics() = default;

std::string Metrics::Render() { return impl_->Render(); }

RpcMethod* Metrics::Method(absl::string_view service, absl::string_view method,
                           absl::string_view type) {
  return impl_->Method(service, method, type);
}

void Metrics::StreamOpened() { impl_->AddSubscribers(1); }
void Metrics::StreamClosed() { impl_->AddSubscribers(-1); }
void Metrics::EventsSent(int64_t events) { impl_->AddSent(events); }
void Metrics::EventsDropped(int64_t events) { impl_->AddDropped(events); }

}  // namespace gradwatch::metrics
