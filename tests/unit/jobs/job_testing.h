#ifndef GRADWATCH_TESTS_UNIT_JOBS_JOB_TESTING_H_
#define GRADWATCH_TESTS_UNIT_JOBS_JOB_TESTING_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/jobs/job_manager.h"
#include "server/jobs/step_record.h"
#include "tests/unit/jobs/fake_clock.h"
#include "tests/unit/jobs/fake_trainer.h"

namespace gradwatch::jobs {

// A small job that asks for an id.
inline v1::CreateJobRequest RequestOf(absl::string_view id, int64_t step_limit = 10) {
  v1::CreateJobRequest request;
  request.set_job_id(std::string(id));
  request.mutable_job()->mutable_training()->set_step_limit(step_limit);
  return request;
}

// A manager with scripted trainers and a clock that stands still.
class JobManagerTest : public testing::Test {
 protected:
  static constexpr int64_t kManySteps = 1'000'000'000;

  JobManagerTest() {
    limits_.running_max = 1;
    limits_.step_boundary_wait = absl::Seconds(60);
  }
  ~JobManagerTest() override { script_->AllowAll(); }

  JobManager& manager() {
    if (manager_ == nullptr) {
      manager_ = std::make_unique<JobManager>(limits_, &datasets_, &clock_, FakeTrainers(script_));
    }
    return *manager_;
  }

  // Creates jobs/{id}.
  v1::Job Create(absl::string_view id, int64_t step_limit = 10) {
    const auto job = manager().Create(RequestOf(id, step_limit));
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : v1::Job();
  }

  // Waits until the job is as `wanted` says, and gives it.
  v1::Job AwaitJob(absl::string_view name, const std::function<bool(const v1::Job&)>& wanted) {
    Bell bell;
    const auto reader = manager().OpenJob(name, bell.Ringer());
    EXPECT_TRUE(reader.ok()) << reader.status();
    v1::Job job;
    for (;;) {
      const auto changed = (*reader)->Read(&job);
      EXPECT_TRUE(changed.ok()) << changed.status();
      if (!changed.ok() || wanted(job)) return job;
      if (!*changed) bell.Await();
    }
  }
  v1::Job AwaitState(absl::string_view name, v1::Job::State state) {
    return AwaitJob(name, [state](const v1::Job& job) { return job.state() == state; });
  }

  // Everything that a reader gives until its last portion.
  struct Stream {
    std::vector<int64_t> steps;
    int64_t dropped = 0;
    int64_t folded = 0;
    int portions = 0;
    absl::Status status;
    std::unique_ptr<v1::Job> final_job;
  };
  Stream ReadAll(const v1::StreamStatsRequest& request) {
    Stream stream;
    Bell bell;
    const auto reader = manager().OpenStats(request, bell.Ringer());
    if (!reader.ok()) {
      stream.status = reader.status();
      return stream;
    }
    return ReadAll(reader->get(), &bell);
  }
  static Stream ReadAll(JobManager::StatsReader* reader, Bell* bell) {
    Stream stream;
    while (stream.final_job == nullptr) {
      JobManager::StatsPortion portion;
      const auto read = reader->Read(&portion);
      if (!read.ok()) {
        stream.status = read.status();
        return stream;
      }
      if (!*read) {
        bell->Await();
        continue;
      }
      ++stream.portions;
      stream.dropped += portion.dropped_before;
      stream.folded += portion.folded.count();
      for (const auto& record : portion.steps) stream.steps.push_back(record->step);
      stream.final_job = std::move(portion.final_job);
    }
    return stream;
  }

  FakeClock clock_;
  DatasetStore datasets_{DatasetLimits(), &clock_};
  JobLimits limits_;  // Changed before the first use of manager().
  std::shared_ptr<TrainerScript> script_ = std::make_shared<TrainerScript>();
  std::unique_ptr<JobManager> manager_;
};

inline v1::UpdateJobRequest UpdateOf(absl::string_view name,
                                     const std::vector<std::string>& paths) {
  v1::UpdateJobRequest request;
  request.mutable_job()->set_name(std::string(name));
  for (const auto& path : paths) request.mutable_update_mask()->add_paths(path);
  return request;
}

// Every recorded step of a job, whole, once the job is final.
inline std::vector<v1::StepStats> ReadHistory(absl::string_view name, JobManager* manager) {
  std::vector<v1::StepStats> history;
  v1::StreamStatsRequest request;
  request.set_name(std::string(name));
  request.set_from_step(0);
  request.set_lossless(true);
  Bell bell;
  const auto reader = manager->OpenStats(request, bell.Ringer());
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return history;
  JobManager::StatsPortion portion;
  while (portion.final_job == nullptr) {
    const auto read = (*reader)->Read(&portion);
    EXPECT_TRUE(read.ok()) << read.status();
    if (!read.ok()) return history;
    if (!*read) bell.Await();
    for (const auto& record : portion.steps) {
      EXPECT_TRUE(ParseRecord(*record, &history.emplace_back()));
    }
  }
  return history;
}

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_TESTS_UNIT_JOBS_JOB_TESTING_H_
