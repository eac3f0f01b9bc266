// gradwatch_bench scrape: see service_bench.h.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/alerts/rule_catalogue.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/metrics/metrics.h"
#include "tests/bench/flags.h"
#include "tests/bench/pretend_trainer.h"
#include "tests/bench/service_bench.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

using Clock = std::chrono::steady_clock;

// A server's metrics over jobs that train without arithmetic.
class Scraped {
 public:
  // The first two jobs run, `step_us` for each step; the others wait behind them.
  Scraped(int jobs, int step_us) : script_(std::make_shared<PretendScript>()) {
    script_->typical = TypicalStats(v1::Job());
    script_->work = [this, step_us](int64_t) {
      absl::SleepFor(absl::Microseconds(stop_ ? 0 : step_us));
    };
    jobs::JobLimits limits;
    limits.running_max = 2;
    limits.total_bytes_max = int64_t{1} << 50;
    manager_ =
        std::make_unique<jobs::JobManager>(limits, &datasets_, &clock_, PretendTrainers(script_));
    metrics_ = std::make_unique<metrics::Metrics>(
        metrics::MetricsOptions(), alerts::RuleCatalogue(),
        [this] { return metrics::ReadJobs(*manager_); }, &clock_);
    for (int i = 0; i < jobs; ++i) {
      v1::CreateJobRequest request;
      request.set_job_id(absl::StrCat("job-", i));
      request.mutable_job()->mutable_training()->set_step_limit(1'000'000'000);
      GRADWATCH_CHECK(manager_->Create(request).ok());
    }
  }
  ~Scraped() { stop_ = true; }

  std::string Scrape() { return metrics_->Render(); }

 private:
  std::atomic<bool> stop_ = false;
  RealClock clock_;
  jobs::DatasetStore datasets_{jobs::DatasetLimits(), &clock_};
  const std::shared_ptr<PretendScript> script_;
  std::unique_ptr<metrics::Metrics> metrics_;
  std::unique_ptr<jobs::JobManager> manager_;
};

int64_t SeriesOf(const std::string& text) {
  int64_t series = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    series += !line.empty() && !absl::StartsWith(line, "#") ? 1 : 0;
  }
  return series;
}

}  // namespace

int RunScrape(absl::Span<const std::string> args) {
  std::vector<int> jobs = {2, 20, 100, 1000};
  std::vector<int> step_us = {100'000, 100};
  int scrapes = 50;
  CLI::App app("What a scrape of /metrics costs, by jobs and by how fast they step.",
               "gradwatch_bench scrape");
  app.add_option("--jobs", jobs, "Jobs, two of which run; one result for each number")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--step-us", step_us, "Microseconds of a step, one result for each number")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  app.add_option("--scrapes", scrapes, "Scrapes for each result")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  if (const auto exit_code = ParseFlags(app, args)) return *exit_code;
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // As gradwatchd does.

  for (const int count : jobs) {
    for (const int step : step_us) {
      Scraped scraped(count, step);
      absl::SleepFor(absl::Milliseconds(100));
      const int64_t series = SeriesOf(scraped.Scrape());
      std::vector<double> microseconds;
      for (int i = 0; i < scrapes; ++i) {
        const auto begin = Clock::now();
        scraped.Scrape();
        microseconds.push_back(
            std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
      }
      const nlohmann::ordered_json line = {
          {"benchmark", "scrape"},
          {"jobs", count},
          {"step_us", step},
          {"scrapes", scrapes},
          {"series", series},
          {"scrape_us_p50", MedianOf(microseconds)},
          {"scrape_us_p99", QuantileOf(microseconds, 0.99)},
          {"us_per_series", MedianOf(microseconds) / static_cast<double>(series)}};
      std::printf("%s\n", line.dump().c_str());
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace gradwatch::bench
