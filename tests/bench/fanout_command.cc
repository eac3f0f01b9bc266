// gradwatch_bench fanout: see service_bench.h.

#include <time.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/base/check.h"
#include "tests/bench/flags.h"
#include "tests/bench/loopback.h"
#include "tests/bench/pretend_trainer.h"
#include "tests/bench/service_bench.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<int> streams = {100, 1000};
  int steps = 5000;
  int rounds = 5;
  int latency_steps = 500;
  int training_seconds = 5;
};

constexpr int kStreamsPerConnection = 100;

double SecondsSince(SteadyTime begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

v1::StreamStatsRequest HistoryOf(const std::string& job) {
  v1::StreamStatsRequest request;
  request.set_name(job);
  request.set_from_step(0);
  request.set_lossless(true);
  return request;
}

void Print(const nlohmann::ordered_json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

// --- Recorded history to many streams.

struct Cost {
  double seconds;
  double cpu_seconds;  // Of both ends.
};

// Until `streams` streams have read everything.
Cost ReadAll(int port, int streams, const v1::StreamStatsRequest& request, size_t messages) {
  Connections connections(port, (streams + kStreamsPerConnection - 1) / kStreamsPerConnection);
  const double cpu_before = ProcessCpuSeconds();
  const SteadyTime begin = Clock::now();
  StreamReaders readers(&connections, BytesOf(request), streams);
  GRADWATCH_CHECK(readers.AwaitEnd());
  const Cost cost = {SecondsSince(begin), ProcessCpuSeconds() - cpu_before};
  GRADWATCH_CHECK(readers.messages() ==
                  static_cast<int64_t>(messages) * static_cast<int64_t>(streams));
  return cost;
}

void MeasureHistory(const Options& options) {
  auto script = std::make_shared<PretendScript>();
  script->typical = TypicalStats(v1::Job());
  RealServer real(jobs::JobLimits(), PretendTrainers(script));
  v1::CreateJobRequest job;
  job.set_job_id("recorded");
  job.mutable_job()->mutable_training()->set_step_limit(options.steps);
  real.RunJob(job);
  const v1::StreamStatsRequest request = HistoryOf("jobs/recorded");

  // What the real server sends is what the bare one has to send.
  std::vector<grpc::ByteBuffer> messages;
  {
    Connections connections(real.port(), 1);
    StreamReaders reader(&connections, BytesOf(request), 1,
                         [&messages](const grpc::ByteBuffer& message) {
                           const grpc::Slice slice(TextOf(message));
                           messages.emplace_back(&slice, 1);
                         });
    GRADWATCH_CHECK(reader.AwaitEnd());
  }
  size_t bytes = 0;
  for (const grpc::ByteBuffer& message : messages) bytes += message.Length();
  const BareServer bare(messages, grpc::ByteBuffer());

  for (const int streams : options.streams) {
    std::vector<double> ours, theirs, ratios, cpu_ratios;
    for (int round = 0; round < options.rounds; ++round) {
      Cost cost[2];
      for (const int which : {round % 2, 1 - round % 2}) {
        cost[which] =
            ReadAll(which == 0 ? real.port() : bare.port(), streams, request, messages.size());
      }
      const auto sent = static_cast<double>(messages.size()) * streams;
      ours.push_back(sent / cost[0].seconds);
      theirs.push_back(sent / cost[1].seconds);
      ratios.push_back(ours.back() / theirs.back());
      cpu_ratios.push_back(cost[1].cpu_seconds / cost[0].cpu_seconds);
    }
    Print({{"benchmark", "fanout"},
           {"what", "history"},
           {"streams", streams},
           {"steps", options.steps},
           {"rounds", options.rounds},
           {"messages_per_stream", messages.size()},
           {"bytes_per_message", bytes / messages.size()},
           {"messages_per_second", MedianOf(ours)},
           {"bare_messages_per_second", MedianOf(theirs)},
           {"ratio", MedianOf(ratios)},
           {"ratio_min", QuantileOf(ratios, 0.0)},
           {"ratio_max", QuantileOf(ratios, 1.0)},
           {"cpu_ratio", MedianOf(cpu_ratios)}});
  }
}

// --- From the end of a step to a subscriber, on a server with nothing else to do.

int64_t NewestStepOf(const grpc::ByteBuffer& message) {
  v1::StreamStatsResponse response;
  GRADWATCH_CHECK(response.ParseFromString(TextOf(message)));
  return response.steps().empty() ? -1 : response.steps().rbegin()->step();
}

void MeasureLatency(const Options& options) {
  Mutex mu;
  std::vector<SteadyTime> left(static_cast<size_t>(options.latency_steps));
  std::vector<double> microseconds;
  auto script = std::make_shared<PretendScript>();
  script->typical = TypicalStats(v1::Job());
  script->work = [](int64_t) { absl::SleepFor(absl::Milliseconds(4)); };
  script->left = [&](int64_t step, SteadyTime time) {
    MutexLock lock(&mu);
    left[static_cast<size_t>(step)] = time;
  };
  RealServer real(jobs::JobLimits(), PretendTrainers(script));
  v1::CreateJobRequest job;
  job.set_job_id("live");
  job.mutable_job()->mutable_training()->set_step_limit(options.latency_steps);
  GRADWATCH_CHECK(real.jobs()->Create(job).ok());
  Connections connections(real.port(), 1);
  StreamReaders reader(
      &connections, BytesOf(HistoryOf("jobs/live")), 1, [&](const grpc::ByteBuffer& message) {
        const SteadyTime now = Clock::now();
        const int64_t step = NewestStepOf(message);
        if (step < options.latency_steps / 10) return;
        MutexLock lock(&mu);
        microseconds.push_back(
            std::chrono::duration<double, std::micro>(now - left[static_cast<size_t>(step)])
                .count());
      });
  GRADWATCH_CHECK(reader.AwaitEnd());
  MutexLock lock(&mu);
  Print({{"benchmark", "fanout"},
         {"what", "latency"},
         {"samples", microseconds.size()},
         {"latency_us_p50", MedianOf(microseconds)},
         {"latency_us_p99", QuantileOf(microseconds, 0.99)},
         {"latency_us_max", QuantileOf(microseconds, 1.0)}});
}

// --- What 100 readers at 4 messages a second cost a job that trains.

double ThreadCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A trainer of the engine that tells how much CPU its thread used, after each step.
class MeteredTrainer final : public train::Trainer {
 public:
  using Meter = std::function<void(double cpu_seconds)>;
  MeteredTrainer(std::unique_ptr<train::Trainer> trainer, Meter meter)
      : trainer_(std::move(trainer)), meter_(std::move(meter)) {}

  int64_t step() const override { return trainer_->step(); }
  int64_t updates_applied() const override { return trainer_->updates_applied(); }
  int nonfinite_in_a_row() const override { return trainer_->nonfinite_in_a_row(); }
  const v1::Job& settings() const override { return trainer_->settings(); }
  int threads_useful() const override { return 1; }
  void SetThreads(int threads) override { trainer_->SetThreads(threads); }
  void Step(v1::StepStats* stats) override {
    meter_(ThreadCpuSeconds());
    trainer_->Step(stats);
  }
  v1::EvaluationResult Evaluate() override { return trainer_->Evaluate(); }
  absl::Status ApplySettings(const v1::Job& job) override { return trainer_->ApplySettings(job); }
  v1::Checkpoint Save() const override { return trainer_->Save(); }
  const std::vector<v1::ParameterInfo>& parameters() const override {
    return trainer_->parameters();
  }

 private:
  const std::unique_ptr<train::Trainer> trainer_;
  const Meter meter_;
};

void MeasureTraining(const Options& options) {
  constexpr int kReaders = 100;
  Mutex mu;
  double cpu = 0.0;
  int64_t steps = 0;
  RealServer real(jobs::JobLimits(),
                  [&](const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
                      const v1::Checkpoint*) -> absl::StatusOr<std::unique_ptr<train::Trainer>> {
                    auto trainer = train::Trainer::Create(job, std::move(dataset));
                    if (!trainer.ok()) return trainer.status();
                    return std::make_unique<MeteredTrainer>(*std::move(trainer),
                                                            [&](double cpu_seconds) {
                                                              MutexLock lock(&mu);
                                                              cpu = cpu_seconds;
                                                              ++steps;
                                                            });
                  });
  v1::CreateJobRequest job;
  job.set_job_id("training");
  job.mutable_job()->mutable_training()->set_step_limit(1'000'000'000);
  job.mutable_job()->mutable_evaluation()->set_every_steps(0);
  GRADWATCH_CHECK(real.jobs()->Create(job).ok());
  v1::StreamStatsRequest request;
  request.set_name("jobs/training");
  request.mutable_min_interval()->set_nanos(250'000'000);

  // Microseconds of CPU for each step.
  const auto measure = [&] {
    double cpu_before = 0.0;
    int64_t steps_before = 0;
    {
      MutexLock lock(&mu);
      cpu_before = cpu;
      steps_before = steps;
    }
    absl::SleepFor(absl::Seconds(options.training_seconds));
    MutexLock lock(&mu);
    return 1e6 * (cpu - cpu_before) / static_cast<double>(steps - steps_before);
  };
  measure();  // Warms up.
  std::vector<double> alone, watched, increases;
  Connections connections(real.port(), 1);
  for (int round = 0; round < options.rounds; ++round) {
    double us[2];
    for (const int which : {round % 2, 1 - round % 2}) {
      std::unique_ptr<StreamReaders> readers;
      if (which == 1) {
        readers = std::make_unique<StreamReaders>(&connections, BytesOf(request), kReaders);
      }
      us[which] = measure();
    }
    alone.push_back(us[0]);
    watched.push_back(us[1]);
    increases.push_back(us[1] / us[0] - 1.0);
  }
  Print({{"benchmark", "fanout"},
         {"what", "training"},
         {"readers", kReaders},
         {"rounds", options.rounds},
         {"step_cpu_us_alone", MedianOf(alone)},
         {"step_cpu_us_watched", MedianOf(watched)},
         {"increase", MedianOf(increases)},
         {"increase_min", QuantileOf(increases, 0.0)},
         {"increase_max", QuantileOf(increases, 1.0)}});
}

}  // namespace

int RunFanout(absl::Span<const std::string> args) {
  Options options;
  std::string what = "all";
  CLI::App app("Streams of statistics: many at once, how late, and what they cost training.",
               "gradwatch_bench fanout");
  app.add_option("--what", what, "history, latency, training or all")
      ->check(CLI::IsMember({"history", "latency", "training", "all"}))
      ->capture_default_str();
  app.add_option("--streams", options.streams, "Streams at once, one result for each number")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--steps", options.steps, "Steps of the recorded job")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "Rounds, with the order swapped each time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--latency-steps", options.latency_steps, "Steps of the job that is watched live")
      ->check(CLI::Range(10, 100'000))
      ->capture_default_str();
  app.add_option("--training-seconds", options.training_seconds, "Length of each measurement")
      ->check(CLI::Range(1, 600))
      ->capture_default_str();
  if (const auto exit_code = ParseFlags(app, args)) return *exit_code;
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // As gradwatchd does.
  if (what == "history" || what == "all") MeasureHistory(options);
  if (what == "latency" || what == "all") MeasureLatency(options);
  if (what == "training" || what == "all") MeasureTraining(options);
  return 0;
}

}  // namespace gradwatch::bench
