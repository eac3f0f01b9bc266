// gradwatch_bench publish: see service_bench.h.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/base/thread_pool.h"
#include "server/jobs/job_manager.h"
#include "tests/bench/flags.h"
#include "tests/bench/pretend_trainer.h"
#include "tests/bench/service_bench.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<int> readers = {0, 20, 100};
  int steps = 5000;
  int step_us = 100;
  int rounds = 3;
};

double NanosBetween(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double, std::nano>(to - from).count();
}

// A live reader that is served as a stream of the server is: one task at a time on a pool that all
// share, woken by the log.
class Reader {
 public:
  Reader(jobs::JobManager* manager, ThreadPool* pool, const std::string& job) : pool_(pool) {
    v1::StreamStatsRequest request;
    request.set_name(job);
    request.set_from_step(0);
    auto reader = manager->OpenStats(request, [this] { Wake(); });
    GRADWATCH_CHECK(reader.ok());
    reader_ = *std::move(reader);
    Wake();
  }

  ~Reader() {
    {
      MutexLock lock(&mu_);
      closed_ = true;
      mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !task_; });
    }
    reader_.reset();  // First: it wakes nobody any more.
  }

  // Returns when it has read everything, and says how many steps that were.
  int64_t AwaitEnd() {
    MutexLock lock(&mu_);
    mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ended_ && !task_; });
    return steps_;
  }

 private:
  void Wake() {
    {
      MutexLock lock(&mu_);
      again_ = true;
      if (task_ || closed_) return;
      task_ = true;
    }
    GRADWATCH_CHECK(pool_->Schedule([this] { ReadAll(); }));
  }

  void ReadAll() {
    for (;;) {
      {
        MutexLock lock(&mu_);
        if (!std::exchange(again_, false)) {
          task_ = false;
          return;
        }
      }
      jobs::JobManager::StatsPortion portion;
      while (*reader_->Read(&portion)) {
        MutexLock lock(&mu_);
        steps_ += static_cast<int64_t>(portion.steps.size()) + portion.dropped_before;
        if (portion.final_job != nullptr) ended_ = true;
      }
    }
  }

  ThreadPool* const pool_;
  std::unique_ptr<jobs::JobManager::StatsReader> reader_;
  Mutex mu_;
  bool task_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  int64_t steps_ ABSL_GUARDED_BY(mu_) = 0;
};

void SpinUntil(SteadyTime time) {
  while (Clock::now() < time) {
  }
}

// Nanoseconds.
struct Times {
  std::vector<double> publications;  // Between the end of a step and the begin of the next.
  std::vector<double> floors;        // The message written once into memory that is there.
};

// Of one job with so many readers; the first tenth is left out.
void Measure(const Options& options, const v1::StepStats& typical, int readers, Times* times) {
  constexpr int64_t kFloorEvery = 8;  // That step's publication is not counted: it finds warm code.
  std::string buffer(typical.ByteSizeLong(), '\0');
  SteadyTime last;
  auto script = std::make_shared<PretendScript>();
  std::atomic<bool> go = readers == 0;
  script->typical = typical;
  script->entered = [&](int64_t step, SteadyTime time) {
    if (step <= options.steps / 10 || step % kFloorEvery == 0) return;
    times->publications.push_back(NanosBetween(last, time));
  };
  script->work = [&](int64_t step) {
    go.wait(false);
    SpinUntil(Clock::now() + std::chrono::microseconds(options.step_us));
    if (step % kFloorEvery != kFloorEvery - 1) return;
    const SteadyTime begin = Clock::now();
    GRADWATCH_CHECK(typical.SerializeToArray(buffer.data(), static_cast<int>(buffer.size())));
    times->floors.push_back(NanosBetween(begin, Clock::now()));
  };
  script->left = [&](int64_t, SteadyTime time) { last = time; };

  RealClock clock;
  jobs::DatasetStore datasets(jobs::DatasetLimits(), &clock);
  jobs::JobLimits limits;
  limits.running_max = 1;
  jobs::JobManager manager(limits, &datasets, &clock, PretendTrainers(script));
  v1::CreateJobRequest request;
  request.set_job_id("bench");
  request.mutable_job()->mutable_training()->set_step_limit(options.steps);
  GRADWATCH_CHECK(manager.Create(request).ok());

  ThreadPool pool(4, 1000);
  std::vector<std::unique_ptr<Reader>> all;
  for (int i = 0; i < readers; ++i) {
    all.push_back(std::make_unique<Reader>(&manager, &pool, "jobs/bench"));
  }
  go = true;
  go.notify_all();
  for (const auto& reader : all) GRADWATCH_CHECK(reader->AwaitEnd() == options.steps);
  if (readers == 0) Reader(&manager, &pool, "jobs/bench").AwaitEnd();
  manager.Shutdown();
}

void Print(const Options& options, const v1::StepStats& typical, int readers, const Times& times) {
  const nlohmann::ordered_json line = {
      {"benchmark", "publish"},
      {"readers", readers},
      {"steps", options.steps},
      {"step_us", options.step_us},
      {"rounds", options.rounds},
      {"record_bytes", typical.ByteSizeLong()},
      {"publish_ns_p50", MedianOf(times.publications)},
      {"publish_ns_p90", QuantileOf(times.publications, 0.9)},
      {"publish_ns_p99", QuantileOf(times.publications, 0.99)},
      {"publish_ns_max", QuantileOf(times.publications, 1.0)},
      {"serialise_ns_p50", MedianOf(times.floors)},
  };
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int RunPublish(absl::Span<const std::string> args) {
  Options options;
  CLI::App app("What the publication of a step costs the thread that trains, at level BASIC.",
               "gradwatch_bench publish");
  app.add_option("--readers", options.readers, "Live readers, one result for each number")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option("--steps", options.steps, "Steps of each round")
      ->check(CLI::Range(100, 1'000'000))
      ->capture_default_str();
  app.add_option("--step-us", options.step_us, "Microseconds that a step computes")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "Rounds over all numbers of readers")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  if (const auto exit_code = ParseFlags(app, args)) return *exit_code;
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // As gradwatchd does.

  const v1::StepStats typical = TypicalStats(v1::Job());
  std::vector<Times> times(options.readers.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < times.size(); ++i) {
      Measure(options, typical, options.readers[i], &times[i]);
    }
  }
  for (size_t i = 0; i < times.size(); ++i) {
    Print(options, typical, options.readers[i], times[i]);
  }
  return 0;
}

}  // namespace gradwatch::bench
