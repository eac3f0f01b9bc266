#include "server/train/gradient_noise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/arithmetic_mode.h"
#include "server/base/philox.h"
#include "server/data/source.h"
#include "server/train/job_network.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

// --- against gradients of whole batches, in which all other rows have no weight ------------------

struct Estimates {
  double squared_norm = 0.0;
  double variance = 0.0;
  double signal_to_noise = 0.0;
  std::vector<double> tensor_signal_to_noise;
};

// The rows of a batch as they were drawn: generated examples have rising numbers.
std::vector<size_t> DrawnRows(const Batch& batch) {
  std::vector<size_t> rows(batch.lengths.size());
  std::iota(rows.begin(), rows.end(), size_t{0});
  if (batch.lengths.front() == batch.lengths.back()) return rows;
  std::sort(rows.begin(), rows.end(),
            [&](size_t a, size_t b) { return batch.origins[a] < batch.origins[b]; });
  return rows;
}

// The network as a job has it before a step.
std::vector<double> GradientOfRows(const TestJob& made, const v1::Checkpoint& before, Batch batch,
                                   const std::vector<size_t>& rows) {
  for (size_t i = 0; i < batch.weights.size(); ++i) {
    const size_t row = i % static_cast<size_t>(batch.rows);
    if (std::find(rows.begin(), rows.end(), row) == rows.end()) batch.weights[i] = 0.0;
  }
  const data::TaskShape shape = *data::ShapeOf(made.job, made.dataset.get());
  nn::Network<double> network(NetworkConfigOf(made.job, shape), shape.rows_max, shape.time_steps);
  std::memcpy(network.weights().data(), before.weights().data(), before.weights().size());
  std::memcpy(network.state().data(), before.carried_state().data(), before.carried_state().size());
  network.ForwardBackward(batch);
  return {network.gradients().begin(), network.gradients().end()};
}

Estimates EstimatesOf(const std::vector<std::vector<double>>& parts, double rows,
                      const std::vector<v1::ParameterInfo>& parameters) {
  const auto k = static_cast<double>(parts.size());
  Estimates estimates;
  double small = 0.0;  // Mean of |g|^2 of the parts.
  double large = 0.0;  // |g|^2 of all together.
  size_t entry = 0;
  for (const v1::ParameterInfo& parameter : parameters) {
    int64_t size = 1;
    for (const int64_t side : parameter.shape()) size *= side;
    double ratios = 0.0;
    for (int64_t i = 0; i < size; ++i, ++entry) {
      double mean = 0.0;
      double deviation = 0.0;
      for (const std::vector<double>& part : parts) mean += part[entry] / k;
      for (const std::vector<double>& part : parts) {
        deviation += std::pow(part[entry] - mean, 2);
        small += part[entry] * part[entry] / k;
      }
      large += mean * mean;
      ratios += mean * mean / (deviation / (k - 1.0) + 1e-5);
    }
    estimates.signal_to_noise += ratios;
    estimates.tensor_signal_to_noise.push_back(ratios / static_cast<double>(size));
  }
  estimates.signal_to_noise /= static_cast<double>(entry);
  // McCandlish et al. 2018, A.1, with small batches of `rows` and a large one of k times that.
  estimates.squared_norm = (k * rows * large - rows * small) / (k * rows - rows);
  estimates.variance = (small - large) / (1.0 / rows - 1.0 / (k * rows));
  return estimates;
}

TEST(GradientNoiseTest, EstimatesAreThoseOfThePartsGradients) {
  const ArithmeticMode mode;
  for (const Kind kind : kAllKinds) {
    TestJob made = MakeJob(kind);
    made.job.mutable_training()->set_precision(v1::Training::PRECISION_FLOAT64);
    made.job.mutable_training()->set_batch_size(7);
    made.job.mutable_diagnostics()->set_noise_every_steps(1);
    made.job.mutable_diagnostics()->set_noise_parts(3);
    const auto trainer = NewTrainer(made);
    const auto source = *data::NewSource(made.job, made.dataset);
    Batch batch;
    for (int step = 0; step < 3; ++step) {
      const v1::Checkpoint before = trainer->Save();
      source->NextBatch(&batch);
      const std::vector<size_t> drawn = DrawnRows(batch);
      std::vector<std::vector<double>> parts;
      for (size_t part = 0; part < 3; ++part) {
        parts.push_back(
            GradientOfRows(made, before, batch, {drawn[2 * part], drawn[2 * part + 1]}));
      }
      const Estimates expected = EstimatesOf(parts, 2.0, trainer->parameters());

      v1::StepStats record;
      trainer->Step(&record);

      // Both are differences of sums of squares that are at most `scale`.
      const v1::NoiseStats& noise = record.noise();
      const double scale = std::abs(expected.squared_norm) + expected.variance;
      EXPECT_NEAR(noise.squared_norm(), expected.squared_norm, 1e-11 * scale);
      EXPECT_NEAR(noise.variance(), expected.variance, 1e-11 * scale);
      EXPECT_NEAR(noise.signal_to_noise(), expected.signal_to_noise,
                  1e-9 * expected.signal_to_noise);
      ASSERT_EQ(noise.tensor_signal_to_noise_size(), record.tensors_size());
      for (int p = 0; p < record.tensors_size(); ++p) {
        const double ratio = expected.tensor_signal_to_noise[static_cast<size_t>(p)];
        EXPECT_NEAR(noise.tensor_signal_to_noise(p), ratio, 1e-9 * ratio + 1e-14);
      }
    }
  }
}

// --- where the truth is known --------------------------------------------------------------------

// All weights are 0 but the read-out's bias b, so h is 0 and b alone has a gradient: of a row with
// target y it is 2 (b - y). For y normal with mean m and deviation d the mean gradient is 2 (b -
// m), and the variance of a row's 4 d^2.
class GaussianModel {
 public:
  GaussianModel(int64_t rows, int parts, double bias, double mean, double deviation)
      : mean_(mean),
        deviation_(deviation),
        random_(7, StreamOf("gaussian model"), 0),
        network_(Config(), rows, 1),
        noise_(Shape(rows), network_, parts, &team_) {
    network_.weights().back() = bias;
    batch_.time_steps = 1;
    batch_.rows = rows;
    batch_.features = 1;
    batch_.outputs = 1;
    batch_.inputs.assign(static_cast<size_t>(rows), 1.0);
    batch_.target_values.resize(static_cast<size_t>(rows));
    batch_.weights.assign(static_cast<size_t>(rows), 1.0);
    batch_.lengths.assign(static_cast<size_t>(rows), 1);
    batch_.restart.assign(static_cast<size_t>(rows), 1);
    batch_.origins.assign(static_cast<size_t>(rows), 0);
  }

  v1::StepStats Step() {
    for (double& value : batch_.target_values) value = mean_ + deviation_ * random_.NextNormal();
    v1::StepStats record;
    noise_.Measure(batch_, &network_, &record);
    return record;
  }

  Batch& batch() { return batch_; }

 private:
  static nn::NetworkConfig Config() {
    nn::NetworkConfig config;
    config.cell = nn::Cell::kRnnTanh;
    config.layers = 1;
    config.hidden = 2;
    config.features = 1;
    config.outputs = 1;
    config.loss_at = nn::LossAt::kLastStep;
    return config;
  }

  static data::TaskShape Shape(int64_t rows) {
    data::TaskShape shape;
    shape.time_steps = 1;
    shape.rows_max = rows;
    shape.features = 1;
    shape.outputs = 1;
    shape.loss_at_last = true;
    return shape;
  }

  const double mean_;
  const double deviation_;
  RandomStream random_;
  ThreadTeam team_{1};
  nn::Network<double> network_;
  GradientNoise<double> noise_;
  Batch batch_;
};

struct Sample {
  double mean;
  double standard_error;
};

Sample SampleOf(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / (n - 1.0) / n)};
}

TEST(GradientNoiseTest, EstimatesAreUnbiasedWhereTheTruthIsKnown) {
  for (const int parts : {2, 3, 8}) {
    GaussianModel model(/*rows=*/24, parts, /*bias=*/0.5, /*mean=*/0.25, /*deviation=*/1.5);
    std::vector<double> squared_norms;
    std::vector<double> variances;
    for (int step = 0; step < 4000; ++step) {
      const v1::StepStats record = model.Step();
      squared_norms.push_back(record.noise().squared_norm());
      variances.push_back(record.noise().variance());
    }

    const Sample squared_norm = SampleOf(squared_norms);
    const Sample variance = SampleOf(variances);

    // Four standard errors: one in 16,000 by chance, and the seed is fixed.
    EXPECT_NEAR(squared_norm.mean, 0.25, 4.0 * squared_norm.standard_error) << parts;
    EXPECT_NEAR(variance.mean, 9.0, 4.0 * variance.standard_error) << parts;
    EXPECT_LT(squared_norm.standard_error, 0.02) << parts;
    EXPECT_LT(variance.standard_error, 0.25) << parts;
  }
}

TEST(GradientNoiseTest, NoiseScaleDividesTheMovingAverages) {
  GaussianModel model(/*rows=*/32, /*parts=*/2, /*bias=*/1.0, /*mean=*/0.0, /*deviation=*/1.0);
  double squared_norm = 0.0;
  double variance = 0.0;
  for (int step = 0; step < 600; ++step) {
    const v1::StepStats record = model.Step();

    squared_norm = 0.99 * squared_norm + 0.01 * record.noise().squared_norm();
    variance = 0.99 * variance + 0.01 * record.noise().variance();
    ASSERT_TRUE(record.noise().has_noise_scale());
    EXPECT_NEAR(record.noise().noise_scale(), variance / squared_norm,
                1e-10 * variance / squared_norm);
  }

  // 4 / 4 rows; an average over about 200 values that each vary by a factor of sqrt(2).
  EXPECT_NEAR(variance / squared_norm, 1.0, 0.4);
}

TEST(GradientNoiseTest, HasNoScaleWhileTheNormIsNotAboveZero) {
  GaussianModel model(/*rows=*/8, /*parts=*/2, /*bias=*/1.0, /*mean=*/1.0, /*deviation=*/1.0);
  double squared_norm = 0.0;
  int with = 0;
  int without = 0;
  for (int step = 0; step < 200; ++step) {
    const v1::StepStats record = model.Step();

    squared_norm = 0.99 * squared_norm + 0.01 * record.noise().squared_norm();
    EXPECT_EQ(record.noise().has_noise_scale(), squared_norm > 0.0);
    (squared_norm > 0.0 ? with : without) += 1;
  }
  EXPECT_GT(with, 0);
  EXPECT_GT(without, 0);
}

TEST(GradientNoiseTest, LeavesOutWhatIsNotFiniteAndGoesOn) {
  GaussianModel model(/*rows=*/6, /*parts=*/3, /*bias=*/1.0, /*mean=*/0.0, /*deviation=*/1.0);
  const double before = model.Step().noise().squared_norm();
  model.batch().inputs[4] = std::nan("");

  const v1::StepStats broken = model.Step();
  model.batch().inputs[4] = 1.0;
  const v1::StepStats after = model.Step();

  EXPECT_FALSE(broken.has_noise());
  const double squared_norm = (0.99 * before + after.noise().squared_norm()) / 1.99;
  ASSERT_GT(squared_norm, 0.0);
  EXPECT_TRUE(after.noise().has_noise_scale());
}

TEST(GradientNoiseTest, MeasuresNoBatchWithFewerRowsThanParts) {
  GaussianModel model(/*rows=*/2, /*parts=*/3, /*bias=*/1.0, /*mean=*/0.0, /*deviation=*/1.0);

  EXPECT_FALSE(model.Step().has_noise());
}

TEST(GradientNoiseTest, IsMeasuredAtMultiplesAndFromBasicOn) {
  TestJob made = MakeJob(Kind::kAdding);
  made.job.mutable_diagnostics()->set_noise_every_steps(3);
  const auto trainer = NewTrainer(made);
  made.job.set_statistics_level(v1::STATISTICS_LEVEL_OFF);
  const auto off = NewTrainer(made);

  for (int step = 0; step < 7; ++step) {
    v1::StepStats record;
    trainer->Step(&record);
    EXPECT_EQ(record.has_noise(), step % 3 == 0);
    off->Step(&record);
    EXPECT_FALSE(record.has_noise());
  }
}

}  // namespace
}  // namespace gradwatch::train
