#include "server/data/mackey_glass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

// Mean and deviation.
std::pair<double, double> MomentsOf(const std::vector<double>& values) {
  double mean = 0.0, variance = 0.0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  for (const double value : values) {
    variance += (value - mean) * (value - mean) / static_cast<double>(values.size());
  }
  return {mean, std::sqrt(variance)};
}

TEST(MackeyGlassSeriesTest, HasTheKnownMeanAndDeviation) {
  const auto [mean, deviation] = MomentsOf(MackeyGlassSeries(50000));

  EXPECT_NEAR(mean, 0.929, 0.002);
  EXPECT_NEAR(deviation, 0.226, 0.002);
}

TEST(MackeyGlassSeriesTest, ALongerSeriesBeginsWithTheShorter) {
  const std::vector<double> shorter = MackeyGlassSeries(100), longer = MackeyGlassSeries(300);

  ASSERT_EQ(shorter.size(), 100u);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

TEST(MackeyGlassSeriesTest, SolvesTheEquation) {
  // The derivative by central differences of samples is too coarse; the integral over one time
  // unit by Simpson's rule on the production, with the decay solved exactly, is not.
  const std::vector<double> x = MackeyGlassSeries(2000);
  const auto production = [&x](size_t t) {
    return 0.2 * x[t - 17] / (1.0 + std::pow(x[t - 17], 10.0));
  };
  for (size_t t = 18; t + 2 < x.size(); t += 7) {
    // x(t+1) = x(t-1) e^-0.2 + integral of e^{-0.1 (t+1-s)} production(s) over [t-1, t+1].
    const double integral = (std::exp(-0.2) * production(t - 1) +
                             4.0 * std::exp(-0.1) * production(t) + production(t + 1)) /
                            3.0;
    // Simpson's rule is off by at most 1/90 of the integrand's fourth derivative, here below 0.15.
    EXPECT_NEAR(x[t + 1], x[t - 1] * std::exp(-0.2) + integral, 2e-3) << t;
  }
}

TEST(MackeyGlassTest, TargetsAreTheSeriesAheadAndWarmupDoesNotCount) {
  const auto source = SourceOf(MackeyGlassJob(4, 30, 6, 20));
  Batch batch;

  source->NextBatch(&batch);

  ExpectWellFormed(source->shape(), batch);
  for (size_t row = 0; row < 4; ++row) {
    for (size_t t = 0; t < 30; ++t) {
      if (t + 6 < 30) {
        EXPECT_EQ(batch.target_values[t * 4 + row], batch.inputs[(t + 6) * 4 + row]);
      }
      EXPECT_EQ(batch.weights[t * 4 + row], t < 20 ? 0.0 : 1.0);
    }
  }
}

TEST(MackeyGlassTest, ValuesAreScaledAndScalesLeadBack) {
  const auto source = SourceOf(MackeyGlassJob(1000, 2, 1, 0));
  Batch batch;
  source->NextBatch(&batch);

  const auto [mean, deviation] = MomentsOf(batch.inputs);

  // 2000 samples of correlated pairs: five deviations of about 1 / sqrt(1000).
  EXPECT_NEAR(mean, 0.0, 0.16);
  EXPECT_NEAR(deviation, 1.0, 0.16);
  ASSERT_EQ(source->target_scales().size(), 1u);
  EXPECT_NEAR(source->target_scales()[0].mean, 0.929, 0.003);
  EXPECT_NEAR(source->target_scales()[0].deviation, 0.226, 0.003);
}

TEST(MackeyGlassTest, EvaluationNeverSeesTrainingValues) {
  v1::Job job = MackeyGlassJob(1000, 3, 2, 0);
  const auto source = SourceOf(job);
  const std::vector<double> series = MackeyGlassSeries(31000);
  const TargetScale scale = source->target_scales()[0];
  const auto last_of_training = series.begin() + 20000 + 5;
  Batch batch;

  source->EvaluationBatch(0, &batch);

  for (const double input : batch.inputs) {
    const double value = scale.mean + scale.deviation * input;
    const auto close = [value](double x) { return std::abs(x - value) < 1e-12; };
    EXPECT_TRUE(std::any_of(last_of_training, series.end(), close));
  }
}

TEST(MackeyGlassTest, MemoryCoversTheSeries) {
  const v1::Job job = MackeyGlassJob(4, 30, 6, 20);

  const int64_t bytes = SourceMemoryBytes(job, *ShapeOf(job, nullptr));

  EXPECT_GE(bytes, 8 * 30000);
  EXPECT_LT(bytes, 4 << 20);
}

}  // namespace
}  // namespace gradwatch::data
