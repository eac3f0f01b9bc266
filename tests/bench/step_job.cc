#include "tests/bench/step_job.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/batch.h"
#include "server/base/philox.h"
#include "server/data/source.h"

namespace gradwatch::bench {
namespace {

data::TaskShape TaskShapeOf(const Shape& shape) {
  data::TaskShape task;
  task.time_steps = shape.time;
  task.rows_max = shape.batch;
  task.vocabulary = shape.vocab;
  task.features = shape.vocab > 0 ? 0 : shape.input;
  task.outputs = shape.vocab > 0 ? shape.vocab : 1;
  task.classification = shape.vocab > 0;
  task.loss_at_last = shape.vocab == 0;
  if (shape.vocab == 0) task.target_names = {"y"};
  return task;
}

// Gives the same batch again and again; nothing is held out.
class FixedSource final : public data::Source {
 public:
  FixedSource(const Shape& shape, uint64_t seed) : shape_(TaskShapeOf(shape)), seed_(seed) {
    if (shape.vocab == 0) scales_.resize(1);
  }

  const data::TaskShape& shape() const override { return shape_; }

  // A batch that was filled before still is.
  void NextBatch(Batch* batch) override {
    if (batch == filled_) return;
    Fill(batch);
    filled_ = batch;
  }

  void Seek(int64_t) override {}
  int64_t evaluation_batches() const override { return 0; }
  void EvaluationBatch(int64_t, Batch*) override {}
  absl::Span<const data::TargetScale> target_scales() const override { return scales_; }
  std::string SaveState() const override { return ""; }
  absl::Status LoadState(absl::string_view) override { return absl::OkStatus(); }

 private:
  void Fill(Batch* batch) const {
    batch->time_steps = shape_.time_steps;
    batch->rows = shape_.rows_max;
    const auto rows = static_cast<size_t>(batch->rows);
    batch->lengths.assign(rows, static_cast<int32_t>(batch->time_steps));
    batch->restart.assign(rows, 1);
    batch->origins.assign(rows, 0);
    RandomStream random(seed_, StreamOf("benchmark"), 0);
    if (shape_.classification) {
      FillTokens(&random, batch);
    } else {
      FillFeatures(&random, batch);
    }
  }

  void FillTokens(RandomStream* random, Batch* batch) const {
    const auto positions = static_cast<size_t>(batch->rows * batch->time_steps);
    const auto bound = static_cast<uint32_t>(shape_.vocabulary);
    batch->tokens.resize(positions);
    batch->target_classes.resize(positions);
    batch->weights.assign(positions, 1.0);
    for (int32_t& token : batch->tokens) token = static_cast<int32_t>(random->NextBelow(bound));
    for (int32_t& token : batch->target_classes) {
      token = static_cast<int32_t>(random->NextBelow(bound));
    }
  }

  void FillFeatures(RandomStream* random, Batch* batch) const {
    batch->features = shape_.features;
    batch->outputs = 1;
    batch->inputs.resize(static_cast<size_t>(batch->rows * batch->time_steps * batch->features));
    batch->target_values.resize(static_cast<size_t>(batch->rows));
    batch->weights.assign(static_cast<size_t>(batch->rows), 1.0);
    for (double& value : batch->inputs) value = random->NextNormal();
    for (double& value : batch->target_values) value = random->NextNormal();
  }

  const data::TaskShape shape_;
  const uint64_t seed_;
  std::vector<data::TargetScale> scales_;
  const Batch* filled_ = nullptr;
};

v1::Job JobOf(const StepSettings& settings) {
  v1::Job job;
  job.set_name("jobs/benchmark");
  job.set_seed(settings.seed);
  job.mutable_model()->set_cell(settings.cell);
  job.mutable_model()->set_layers(static_cast<int32_t>(settings.layers));
  job.mutable_model()->set_hidden_units(static_cast<int32_t>(settings.shape.hidden));
  if (settings.shape.vocab > 0) {
    job.mutable_model()->set_token_input(v1::Model::TOKEN_INPUT_EMBEDDING);
    job.mutable_model()->set_embedding_width(static_cast<int32_t>(settings.shape.input));
  }
  v1::Optimizer* optimizer = job.mutable_optimizer();
  optimizer->set_learning_rate(settings.rate);
  if (settings.adam) {
    optimizer->mutable_adam();
  } else {
    optimizer->mutable_sgd();
  }
  v1::Clipping* clipping = job.mutable_clipping();
  if (settings.clip > 0.0) {
    clipping->add_policies()->mutable_global_norm()->set_max_norm(settings.clip);
  }
  job.mutable_training()->set_batch_size(static_cast<int32_t>(settings.shape.batch));
  job.mutable_training()->set_step_limit(1'000'000'000);
  job.mutable_evaluation()->set_every_steps(0);
  job.set_statistics_level(settings.statistics);
  *job.mutable_diagnostics() = settings.diagnostics;
  train::FillDefaults(&job);
  return job;
}

}  // namespace

absl::StatusOr<v1::StatisticsLevel> StatisticsNamed(absl::string_view name) {
  if (name == "off" || name == "none") return v1::STATISTICS_LEVEL_OFF;
  if (name == "basic") return v1::STATISTICS_LEVEL_BASIC;
  if (name == "full") return v1::STATISTICS_LEVEL_FULL;
  return absl::InvalidArgumentError(
      absl::StrCat("--stats: '", name, "' is unknown; known are off, basic and full"));
}

absl::StatusOr<v1::Diagnostics> DiagnosticsNamed(absl::string_view name) {
  v1::Diagnostics diagnostics;
  if (name == "default") return diagnostics;
  diagnostics.set_compare_steps(name == "compare");
  if (name == "recurrent") {
    diagnostics.set_recurrent_every_steps(1);
  } else if (name == "probe") {
    diagnostics.set_probe_every_steps(1);
  } else if (name == "noise") {
    diagnostics.set_noise_every_steps(1);
  } else if (name != "compare" && name != "none") {
    return absl::InvalidArgumentError(
        absl::StrCat("--diagnostics: '", name,
                     "' is unknown; known are default, none, compare, recurrent, probe, noise"));
  }
  return diagnostics;
}

absl::StatusOr<std::unique_ptr<train::Trainer>> NewStepTrainer(const StepSettings& settings) {
  return train::Trainer::CreateOn(JobOf(settings),
                                  std::make_unique<FixedSource>(settings.shape, settings.seed));
}

}  // namespace gradwatch::bench
