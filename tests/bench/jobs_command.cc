// gradwatch_bench jobs: see service_bench.h.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "tests/bench/flags.h"
#include "tests/bench/service_bench.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<int> jobs = {2, 8, 64};
  int hidden = 32;
  int batch = 1;
  int time_steps = 100;
  double seconds = 3.0;
  int rounds = 3;
};

v1::CreateJobRequest RequestOf(const Options& options, int number) {
  v1::CreateJobRequest request;
  request.set_job_id(absl::StrCat("job-", number));
  v1::Job* job = request.mutable_job();
  job->set_seed(static_cast<uint64_t>(number));
  job->mutable_model()->set_hidden_units(options.hidden);
  job->mutable_training()->set_batch_size(options.batch);
  job->mutable_training()->set_step_limit(1'000'000'000);
  job->mutable_task()->mutable_adding()->set_time_steps(options.time_steps);
  job->mutable_evaluation()->set_every_steps(0);
  return request;
}

int64_t StepsOf(jobs::JobManager* manager, int jobs) {
  int64_t steps = 0;
  for (int i = 0; i < jobs; ++i) {
    const auto job = manager->Get(absl::StrCat("jobs/job-", i));
    GRADWATCH_CHECK(job.ok());
    steps += job->step();
  }
  return steps;
}

// Steps a second of all jobs together, on so many cores, once all have begun.
double Throughput(const Options& options, int jobs, int cores) {
  RealClock clock;
  jobs::DatasetStore datasets(jobs::DatasetLimits(), &clock);
  jobs::JobLimits limits;
  limits.cores = cores;
  limits.running_max = jobs;
  jobs::JobManager manager(limits, &datasets, &clock);
  for (int i = 0; i < jobs; ++i) {
    const auto created = manager.Create(RequestOf(options, i));
    if (!created.ok()) std::fprintf(stderr, "%s\n", created.status().ToString().c_str());
    GRADWATCH_CHECK(created.ok());
  }
  absl::SleepFor(absl::Seconds(0.3 * options.seconds));
  const int64_t before = StepsOf(&manager, jobs);
  const auto begin = Clock::now();
  absl::SleepFor(absl::Seconds(options.seconds));
  const int64_t after = StepsOf(&manager, jobs);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return static_cast<double>(after - before) / seconds;
}

}  // namespace

int RunJobs(absl::Span<const std::string> args) {
  Options options;
  CLI::App app("Many jobs at once: steps a second of all together, against what the cores allow.",
               "gradwatch_bench jobs");
  app.add_option("--jobs", options.jobs, "Jobs at once, one result for each number")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--hidden", options.hidden, "Hidden units")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Rows of a batch")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--time", options.time_steps, "Time steps")
      ->check(CLI::Range(2, 10'000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "Length of each measurement")
      ->check(CLI::Range(0.1, 600.0))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "Rounds over one job and all numbers of jobs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  if (const auto exit_code = ParseFlags(app, args)) return *exit_code;
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // As gradwatchd does.

  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<double> alone;
  std::vector<std::vector<double>> together(options.jobs.size()), shares(options.jobs.size());
  for (int round = 0; round < options.rounds; ++round) {
    // One job on one core, before and behind the others, so that a change of the machine shows.
    const double first = Throughput(options, 1, 1);
    std::vector<double> rates;
    for (const int jobs : options.jobs) rates.push_back(Throughput(options, jobs, cores));
    const double one = (first + Throughput(options, 1, 1)) / 2.0;
    alone.push_back(one);
    for (size_t i = 0; i < rates.size(); ++i) {
      together[i].push_back(rates[i]);
      shares[i].push_back(rates[i] / (one * std::min(cores, options.jobs[i])));
    }
  }
  for (size_t i = 0; i < options.jobs.size(); ++i) {
    const nlohmann::ordered_json line = {{"benchmark", "jobs"},
                                         {"jobs", options.jobs[i]},
                                         {"cores", cores},
                                         {"hidden", options.hidden},
                                         {"batch", options.batch},
                                         {"time", options.time_steps},
                                         {"rounds", options.rounds},
                                         {"steps_per_second", MedianOf(together[i])},
                                         {"one_job_steps_per_second", MedianOf(alone)},
                                         {"ideal_share", MedianOf(shares[i])},
                                         {"ideal_share_min", QuantileOf(shares[i], 0.0)},
                                         {"ideal_share_max", QuantileOf(shares[i], 1.0)}};
    std::printf("%s\n", line.dump().c_str());
  }
  return 0;
}

}  // namespace gradwatch::bench
