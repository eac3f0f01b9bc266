#include "server/data/mackey_glass.h"

#include <cmath>

#include "server/base/status.h"
#include "server/data/example_maker.h"
#include "server/data/field_check.h"

namespace gradwatch::data {
namespace {

constexpr int64_t kStepsPerSample = 10;
constexpr double kStep = 1.0 / kStepsPerSample;
constexpr int64_t kDelaySteps = 17 * kStepsPerSample;
constexpr int64_t kDropped = 1000;

// The part of the derivative that the past decides.
double Production(double delayed) {
  const double x2 = delayed * delayed;
  const double x4 = x2 * x2;
  return 0.2 * delayed / (1.0 + x4 * x4 * x2);
}

// Where windows may start. Between the two ranges lies the span of one window, so that no value is
// in both a training and an evaluation window.
constexpr int64_t kTrainingStarts = 20000;
constexpr int64_t kEvaluationStarts = 10000;

int64_t SamplesFor(int64_t span) { return kTrainingStarts + kEvaluationStarts + 2 * span; }

class MackeyGlassMaker final : public ExampleMaker {
 public:
  MackeyGlassMaker(int64_t time_steps, int64_t horizon, int64_t warmup)
      : time_steps_(time_steps),
        horizon_(horizon),
        warmup_(warmup),
        span_(time_steps + horizon),
        series_(MackeyGlassSeries(SamplesFor(span_))) {
    Standardize();
  }

  int64_t DrawLength(RandomStream*) const override { return time_steps_; }

  void Write(Purpose purpose, RandomStream* random, int64_t row, Batch* batch) const override {
    const int64_t start = purpose == Purpose::kTraining
                              ? random->NextBelow(kTrainingStarts)
                              : kTrainingStarts + span_ + random->NextBelow(kEvaluationStarts);
    for (int64_t t = 0; t < time_steps_; ++t) {
      const size_t at = static_cast<size_t>(t * batch->rows + row);
      batch->inputs[at] = series_[static_cast<size_t>(start + t)];
      batch->target_values[at] = series_[static_cast<size_t>(start + t + horizon_)];
      batch->weights[at] = t >= warmup_ ? 1.0 : 0.0;
    }
  }

  absl::Span<const TargetScale> target_scales() const override {
    return absl::MakeConstSpan(&scale_, 1);
  }

 private:
  // By mean and deviation of the training part.
  void Standardize() {
    const size_t training = static_cast<size_t>(kTrainingStarts + span_);
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < training; ++i) sum += series_[i];
    scale_.mean = sum / static_cast<double>(training);
    for (size_t i = 0; i < training; ++i) {
      squares += (series_[i] - scale_.mean) * (series_[i] - scale_.mean);
    }
    scale_.deviation = std::sqrt(squares / static_cast<double>(training));
    for (double& value : series_) value = (value - scale_.mean) / scale_.deviation;
  }

  const int64_t time_steps_, horizon_, warmup_, span_;
  std::vector<double> series_;
  TargetScale scale_;
};

}  // namespace

std::vector<double> MackeyGlassSeries(int64_t samples) {
  const int64_t steps = (kDropped + samples) * kStepsPerSample;
  // x[k] is the value at time (k - kDelaySteps) * kStep.
  std::vector<double> x(static_cast<size_t>(kDelaySteps + steps + 1), 1.2);
  std::vector<double> series;
  series.reserve(static_cast<size_t>(samples));
  for (int64_t k = 0; k < steps; ++k) {
    if (k % kStepsPerSample == 0 && k / kStepsPerSample >= kDropped) {
      series.push_back(x[static_cast<size_t>(kDelaySteps + k)]);
    }
    const double* past = &x[static_cast<size_t>(k)];
    // Half a step on, the past is interpolated by a cubic through four of its points.
    const double before = k > 0 ? past[-1] : past[0];
    const double middle = (9.0 * (past[0] + past[1]) - (before + past[2])) / 16.0;
    const double p0 = Production(past[0]), p1 = Production(middle), p2 = Production(past[1]);
    const double now = past[kDelaySteps];
    const double k1 = p0 - 0.1 * now;
    const double k2 = p1 - 0.1 * (now + 0.5 * kStep * k1);
    const double k3 = p1 - 0.1 * (now + 0.5 * kStep * k2);
    const double k4 = p2 - 0.1 * (now + kStep * k3);
    x[static_cast<size_t>(kDelaySteps + k + 1)] = now + kStep / 6.0 * (k1 + 2.0 * (k2 + k3) + k4);
  }
  return series;
}

int64_t MackeyGlassBytes(const v1::MackeyGlassTask& task) {
  const int64_t samples = SamplesFor(task.time_steps() + task.horizon());
  return 8 * (samples + (samples + kDropped) * kStepsPerSample + kDelaySteps + 1);
}

absl::StatusOr<TaskShape> MackeyGlassShape(const v1::MackeyGlassTask& task) {
  RETURN_IF_ERROR(CheckRange("task.mackey_glass.time_steps", task.time_steps(), 1, 10000));
  RETURN_IF_ERROR(CheckRange("task.mackey_glass.horizon", task.horizon(), 1, 1000));
  RETURN_IF_ERROR(CheckRange("task.mackey_glass.warmup_time_steps", task.warmup_time_steps(), 0,
                             task.time_steps() - 1));
  TaskShape shape;
  shape.time_steps = task.time_steps();
  shape.features = 1;
  shape.outputs = 1;
  shape.target_names = {"x"};
  shape.feature_names = {"x"};
  return shape;
}

std::unique_ptr<ExampleMaker> NewMackeyGlassMaker(const v1::MackeyGlassTask& task) {
  return std::make_unique<MackeyGlassMaker>(task.time_steps(), task.horizon(),
                                            task.warmup_time_steps());
}

}  // namespace gradwatch::data
