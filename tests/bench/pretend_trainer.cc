#include "tests/bench/pretend_trainer.h"

#include <string>
#include <utility>

#include "server/base/check.h"

namespace gradwatch::bench {
namespace {

class PretendTrainer final : public train::Trainer {
 public:
  PretendTrainer(std::shared_ptr<const PretendScript> script, const v1::Job& job, int64_t step)
      : script_(std::move(script)), job_(job), step_(step) {}

  int64_t step() const override { return step_; }
  int64_t updates_applied() const override { return step_; }
  int nonfinite_in_a_row() const override { return 0; }
  const v1::Job& settings() const override { return job_; }
  int threads_useful() const override { return 1; }
  void SetThreads(int /*threads*/) override {}

  void Step(v1::StepStats* stats) override {
    script_->entered(step_, std::chrono::steady_clock::now());
    script_->work(step_);
    *stats = script_->typical;
    stats->set_step(step_);
    stats->set_updates_applied(step_ + 1);
    // No rule sees anything in it but that the loss does not fall, and no two records are alike.
    const double wiggle = 1.0 + 1e-3 * static_cast<double>(step_ * 7919 % 1000) / 1000.0;
    stats->set_loss(stats->loss() * wiggle);
    stats->set_norm_before(stats->norm_before() * wiggle);
    ++step_;
    script_->left(step_ - 1, std::chrono::steady_clock::now());
  }

  v1::EvaluationResult Evaluate() override { return {}; }
  absl::Status ApplySettings(const v1::Job& job) override {
    job_ = job;
    return absl::OkStatus();
  }
  v1::Checkpoint Save() const override {
    v1::Checkpoint checkpoint;
    checkpoint.set_step(step_);
    checkpoint.set_updates_applied(step_);
    return checkpoint;
  }
  const std::vector<v1::ParameterInfo>& parameters() const override { return parameters_; }

 private:
  const std::shared_ptr<const PretendScript> script_;
  const std::vector<v1::ParameterInfo> parameters_;
  v1::Job job_;
  int64_t step_;
};

}  // namespace

v1::StepStats TypicalStats(v1::Job job) {
  job.set_name("jobs/typical");
  job.set_seed(1);
  train::FillDefaults(&job);
  auto trainer = train::Trainer::Create(job, nullptr);
  GRADWATCH_CHECK(trainer.ok());
  v1::StepStats stats;
  for (int i = 0; i < 3; ++i) (*trainer)->Step(&stats);
  return stats;
}

jobs::TrainerFactory PretendTrainers(std::shared_ptr<const PretendScript> script) {
  return [script = std::move(script)](
             const v1::Job& job, std::shared_ptr<const data::DatasetContent>,
             const v1::Checkpoint* checkpoint) -> absl::StatusOr<std::unique_ptr<train::Trainer>> {
    return std::make_unique<PretendTrainer>(script, job,
                                            checkpoint != nullptr ? checkpoint->step() : 0);
  };
}

}  // namespace gradwatch::bench
