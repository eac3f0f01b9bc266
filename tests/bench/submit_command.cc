// gradwatch_bench submit: see service_bench.h.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/base/check.h"
#include "tests/bench/flags.h"
#include "tests/bench/loopback.h"
#include "tests/bench/pretend_trainer.h"
#include "tests/bench/service_bench.h"
#include "tests/bench/summary.h"

namespace gradwatch::bench {
namespace {

using Clock = std::chrono::steady_clock;

// So many calls under way at any time, each followed by the next when it ends.
class CallLoop {
 public:
  CallLoop(Connections* connections, const grpc::ByteBuffer& request, int at_once, int64_t calls)
      : connections_(connections), request_(request), left_(calls), open_(at_once) {
    for (int i = 0; i < at_once; ++i) Next(i);
  }

  // Returns when all calls have ended.
  void AwaitEnd() {
    MutexLock lock(&mu_);
    mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return open_ == 0; });
  }

 private:
  struct Call {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
  };

  void Next(int lane) {
    if (left_.fetch_sub(1) <= 0) {
      MutexLock lock(&mu_);
      --open_;
      return;
    }
    auto* const call = new Call;
    connections_->stub(lane)->UnaryCall(&call->context, "/gradwatch.v1.JobService/CreateJob", {},
                                        &request_, &call->response,
                                        [this, call, lane](const grpc::Status& status) {
                                          GRADWATCH_CHECK(status.ok());
                                          delete call;
                                          Next(lane);
                                        });
  }

  Connections* const connections_;
  const grpc::ByteBuffer request_;
  std::atomic<int64_t> left_;
  Mutex mu_;
  int open_ ABSL_GUARDED_BY(mu_);
};

struct Rate {
  double calls_per_second;
  double cpu_us;  // Of both ends, for each call.
};

Rate Measure(Connections* connections, const grpc::ByteBuffer& request, int at_once,
             int64_t calls) {
  const double cpu_before = ProcessCpuSeconds();
  const auto begin = Clock::now();
  CallLoop(connections, request, at_once, calls).AwaitEnd();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto count = static_cast<double>(calls);
  return {count / seconds, 1e6 * (ProcessCpuSeconds() - cpu_before) / count};
}

// Microseconds of one check without the wire.
double CheckMicroseconds(jobs::JobManager* jobs, const v1::CreateJobRequest& request) {
  std::vector<double> times;
  for (int i = 0; i < 1000; ++i) {
    const auto begin = Clock::now();
    GRADWATCH_CHECK(jobs->Create(request).ok());
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  return MedianOf(times);
}

}  // namespace

int RunSubmit(absl::Span<const std::string> args) {
  std::vector<int> at_once = {1, 32};
  int calls = 5000;
  int rounds = 10;
  CLI::App app("Creations of jobs that are only checked, against a bare unary call.",
               "gradwatch_bench submit");
  app.add_option("--at-once", at_once, "Calls under way, one result for each number")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--calls", calls, "Calls of each round")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  app.add_option("--rounds", rounds, "Rounds, with the order swapped each time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  if (const auto exit_code = ParseFlags(app, args)) return *exit_code;
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // As gradwatchd does.

  RealServer real(jobs::JobLimits(), jobs::EngineTrainers());
  v1::CreateJobRequest request;
  request.set_job_id("checked");
  request.set_validate_only(true);
  const auto job = real.jobs()->Create(request);
  GRADWATCH_CHECK(job.ok());
  const BareServer bare({}, BytesOf(*job));
  Connections to_real(real.port(), 4);
  Connections to_bare(bare.port(), 4);
  const double check_us = CheckMicroseconds(real.jobs(), request);
  for (const int lanes : at_once) {
    Measure(&to_real, BytesOf(request), lanes, calls / 10);
    Measure(&to_bare, BytesOf(request), lanes, calls / 10);
    std::vector<double> ours, theirs, ratios, cpu, bare_cpu;
    for (int round = 0; round < rounds; ++round) {
      Rate rate[2];
      for (const int which : {round % 2, 1 - round % 2}) {
        rate[which] = Measure(which == 0 ? &to_real : &to_bare, BytesOf(request), lanes, calls);
      }
      ours.push_back(rate[0].calls_per_second);
      theirs.push_back(rate[1].calls_per_second);
      ratios.push_back(ours.back() / theirs.back());
      cpu.push_back(rate[0].cpu_us);
      bare_cpu.push_back(rate[1].cpu_us);
    }
    const nlohmann::ordered_json line = {{"benchmark", "submit"},
                                         {"at_once", lanes},
                                         {"calls", calls},
                                         {"rounds", rounds},
                                         {"answer_bytes", job->ByteSizeLong()},
                                         {"calls_per_second", MedianOf(ours)},
                                         {"bare_calls_per_second", MedianOf(theirs)},
                                         {"ratio", MedianOf(ratios)},
                                         {"ratio_min", QuantileOf(ratios, 0.0)},
                                         {"ratio_max", QuantileOf(ratios, 1.0)},
                                         {"cpu_us_per_call", MedianOf(cpu)},
                                         {"bare_cpu_us_per_call", MedianOf(bare_cpu)},
                                         {"check_us", check_us}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace gradwatch::bench
