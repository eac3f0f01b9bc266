#ifndef GRADWATCH_TESTS_UNIT_JOBS_FAKE_TRAINER_H_
#define GRADWATCH_TESTS_UNIT_JOBS_FAKE_TRAINER_H_

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/mutex.h"
#include "server/jobs/trainer_factory.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {

// What scripted trainers do, and a gate that holds them between two steps. Shared by a test and
// every trainer that its factory makes. Thread-safe.
class TrainerScript {
 public:
  // --- For the test. Set before jobs are created.
  // Fills what a step reports; by default loss 1 / (step + 1) and norm 1.
  std::function<void(v1::StepStats*)> step_stats;
  // What the trainer then changes of its own settings; by default nothing.
  std::function<void(const v1::StepStats&, v1::Job*)> change_settings;
  // What building answers; OK by default.
  std::function<absl::Status()> build;
  // Threads that a step can use.
  int threads_useful = 1;

  // Lets `steps` more steps pass. At first there is no limit.
  void Allow(int64_t steps) {
    MutexLock lock(&mu_);
    allowed_ = steps;
  }
  void AllowAll() { Allow(std::numeric_limits<int64_t>::max()); }
  // Returns when some trainer waits at the gate.
  void AwaitBlocked() {
    MutexLock lock(&mu_);
    mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return blocked_ > 0; });
  }
  // Returns when the trainer of `job` was told to use so many threads, and was told nothing since.
  void AwaitThreads(const std::string& job, int threads) {
    MutexLock lock(&mu_);
    mu_.Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return threads_[job] == threads; });
  }
  int trainers_alive() const {
    MutexLock lock(&mu_);
    return alive_;
  }
  int built() const {
    MutexLock lock(&mu_);
    return built_;
  }
  int restored() const {
    MutexLock lock(&mu_);
    return restored_;
  }
  int most_alive() const {
    MutexLock lock(&mu_);
    return most_alive_;
  }

  // --- For the trainers.
  void Pass() {
    MutexLock lock(&mu_);
    if (allowed_ == 0) ++blocked_;
    const bool waited = allowed_ == 0;
    mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return allowed_ > 0; });
    if (waited) --blocked_;
    if (allowed_ != std::numeric_limits<int64_t>::max()) --allowed_;
  }
  void SetThreads(const std::string& job, int threads) {
    MutexLock lock(&mu_);
    threads_[job] = threads;
  }
  void Born(bool restored) {
    MutexLock lock(&mu_);
    ++(restored ? restored_ : built_);
    ++alive_;
    most_alive_ = std::max(most_alive_, alive_);
  }
  void Gone() {
    MutexLock lock(&mu_);
    --alive_;
  }

 private:
  mutable Mutex mu_;
  int64_t allowed_ ABSL_GUARDED_BY(mu_) = std::numeric_limits<int64_t>::max();
  std::map<std::string, int> threads_ ABSL_GUARDED_BY(mu_);
  int blocked_ ABSL_GUARDED_BY(mu_) = 0;
  int alive_ ABSL_GUARDED_BY(mu_) = 0;
  int most_alive_ ABSL_GUARDED_BY(mu_) = 0;
  int built_ ABSL_GUARDED_BY(mu_) = 0;
  int restored_ ABSL_GUARDED_BY(mu_) = 0;
};

// A trainer without arithmetic. Its weights are the number of steps that it made.
class FakeTrainer final : public train::Trainer {
 public:
  FakeTrainer(const v1::Job& job, std::shared_ptr<TrainerScript> script,
              const v1::Checkpoint* checkpoint)
      : job_(job), script_(std::move(script)) {
    v1::ParameterInfo info;
    info.set_name("rnn.weight_hh_l0");
    info.add_shape(1);
    info.add_shape(1);
    info.set_recurrent(true);
    parameters_.push_back(info);
    if (checkpoint != nullptr) {
      step_ = checkpoint->step();
      updates_ = checkpoint->updates_applied();
      nonfinite_ = checkpoint->nonfinite_in_a_row();
    }
    script_->Born(checkpoint != nullptr);
  }
  ~FakeTrainer() override { script_->Gone(); }

  int64_t step() const override { return step_; }
  int64_t updates_applied() const override { return updates_; }
  int nonfinite_in_a_row() const override { return nonfinite_; }
  const v1::Job& settings() const override { return job_; }

  int threads_useful() const override { return script_->threads_useful; }
  void SetThreads(int threads) override { script_->SetThreads(job_.name(), threads); }

  void Step(v1::StepStats* stats) override {
    script_->Pass();
    stats->Clear();
    stats->set_step(step_);
    stats->set_loss(1.0 / static_cast<double>(step_ + 1));
    stats->set_norm_before(1.0);
    stats->set_norm_after(1.0);
    stats->set_learning_rate(job_.optimizer().learning_rate());
    if (script_->step_stats) script_->step_stats(stats);
    if (script_->change_settings) script_->change_settings(*stats, &job_);
    const bool finite = !stats->has_nonfinite_origin();
    nonfinite_ = finite ? 0 : nonfinite_ + 1;
    if (finite) ++updates_;
    stats->set_skipped(!finite);
    stats->set_updates_applied(updates_);
    ++step_;
  }

  v1::EvaluationResult Evaluate() override {
    v1::EvaluationResult result;
    result.set_step(step_);
    result.set_loss(0.5);
    result.set_examples(1);
    return result;
  }

  absl::Status ApplySettings(const v1::Job& job) override {
    job_ = job;
    return absl::OkStatus();
  }

  v1::Checkpoint Save() const override {
    v1::Checkpoint checkpoint;
    checkpoint.set_step(step_);
    checkpoint.set_updates_applied(updates_);
    checkpoint.set_nonfinite_in_a_row(nonfinite_);
    checkpoint.set_weights(std::to_string(step_));
    checkpoint.set_optimizer_state("optimizer");
    for (const auto& info : parameters_) *checkpoint.add_parameters() = info;
    return checkpoint;
  }

  const std::vector<v1::ParameterInfo>& parameters() const override { return parameters_; }

 private:
  v1::Job job_;
  const std::shared_ptr<TrainerScript> script_;
  std::vector<v1::ParameterInfo> parameters_;
  int64_t step_ = 0;
  int64_t updates_ = 0;
  int nonfinite_ = 0;
};

inline TrainerFactory FakeTrainers(std::shared_ptr<TrainerScript> script) {
  return [script = std::move(script)](
             const v1::Job& job, std::shared_ptr<const data::DatasetContent>,
             const v1::Checkpoint* checkpoint) -> absl::StatusOr<std::unique_ptr<train::Trainer>> {
    if (script->build) {
      if (absl::Status status = script->build(); !status.ok()) return status;
    }
    return std::make_unique<FakeTrainer>(job, script, checkpoint);
  };
}

// A callback that can be waited for.
class Bell {
 public:
  absl::AnyInvocable<void()> Ringer() {
    return [this] {
      MutexLock lock(&mu_);
      rung_ = true;
    };
  }
  // Returns once it has rung since the last Await.
  void Await() {
    MutexLock lock(&mu_);
    mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return rung_; });
    rung_ = false;
  }

 private:
  Mutex mu_;
  bool rung_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_TESTS_UNIT_JOBS_FAKE_TRAINER_H_
