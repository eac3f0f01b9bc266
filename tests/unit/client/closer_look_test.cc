#include "client/cli/closer_look.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace gradwatch::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

ParameterList Parameters(const std::vector<std::string>& names) {
  ParameterList parameters;
  for (const std::string& name : names) parameters.Add()->set_name(name);
  return parameters;
}

double OnlyValue(const StepSeries& series) {
  EXPECT_THAT(series.Points(), SizeIs(1));
  return series.Points().empty() ? 0 : series.Points()[0].middle;
}

TEST(CloserLookTest, JoinsTheGatesOfAllLayersByInputAndRecurrence) {
  CloserLook closer(
      0, 0, Parameters({"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_hh_l1", "out.weight"}));
  v1::StepStats step;
  for (const double norm : {5.0, 3.0, 4.0}) {
    v1::TensorStats* const tensor = step.add_tensors();
    tensor->add_gate_norms(norm);
    tensor->add_gate_norms(10 * norm);
  }
  step.add_tensors();

  closer.Add(step);

  ASSERT_THAT(closer.gates(), SizeIs(2));
  EXPECT_DOUBLE_EQ(OnlyValue(closer.gates()[0].recurrent_norm), 5);  // Root of 9 and 16.
  EXPECT_DOUBLE_EQ(OnlyValue(closer.gates()[1].recurrent_norm), 50);
  EXPECT_DOUBLE_EQ(OnlyValue(closer.gates()[0].input_norm), 5);
}

TEST(CloserLookTest, KeepsTheLargestRecurrentMatrixOfEachGate) {
  CloserLook closer(0, 0, {});
  v1::StepStats step;
  for (const double sigma : {0.5, 2.0}) {
    v1::RecurrentStats* const layer = step.add_recurrent();
    layer->add_sigma_max(sigma);
    layer->add_spectral_radius(1 / sigma);
  }

  closer.Add(step);

  ASSERT_THAT(closer.gates(), SizeIs(1));
  EXPECT_DOUBLE_EQ(OnlyValue(closer.gates()[0].sigma_max), 2);
  EXPECT_DOUBLE_EQ(OnlyValue(closer.gates()[0].spectral_radius), 2);
}

TEST(CloserLookTest, KeepsLayersApart) {
  CloserLook closer(0, 0, {});
  v1::StepStats step;
  v1::LayerTimeStats* const layer = step.add_layers();
  layer->set_layer(1);
  layer->set_activation_slope(0.25);
  layer->set_state_similarity(0.5);
  layer->set_keep_time_constant(3);
  layer->set_keep_time_constant_max(std::numeric_limits<double>::infinity());

  closer.Add(step);

  ASSERT_THAT(closer.layers(), SizeIs(2));
  EXPECT_TRUE(closer.layers()[0].slope.empty());
  EXPECT_EQ(OnlyValue(closer.layers()[1].slope), 0.25);
  EXPECT_EQ(OnlyValue(closer.layers()[1].similarity), 0.5);
  EXPECT_EQ(OnlyValue(closer.layers()[1].keep_time), 3);
  EXPECT_TRUE(closer.layers()[1].keep_time_max.empty());
}

v1::StepStats ProbedStep(int64_t number, float factor) {
  v1::StepStats step;
  step.set_step(number);
  v1::ProbeStats* const probe = step.add_probe();
  for (const float norm : {8.f, 8.f * factor, 8.f * factor * factor}) {
    probe->add_lag_profile(norm);
  }
  probe->set_decay_factor(factor);
  probe->set_horizon(2);
  v1::LayerTimeStats* const layer = step.add_layers();
  for (const float norm : {1.f, 2.f, 4.f}) layer->add_state_gradient_norm(norm);
  return step;
}

TEST(CloserLookTest, KeepsTheFirstAndTheNewestProbeRelativeToLagZero) {
  CloserLook closer(0, 9, {});
  for (const int64_t step : {0, 4, 8}) closer.Add(ProbedStep(step, step == 8 ? 0.25f : 0.5f));
  closer.Add({});

  ASSERT_THAT(closer.probes(), SizeIs(1));
  EXPECT_EQ(closer.probes()[0].first->step, 0);
  EXPECT_THAT(closer.probes()[0].first->profile, ElementsAre(1, 0.5, 0.25));
  EXPECT_EQ(closer.probes()[0].newest->step, 8);
  EXPECT_THAT(closer.probes()[0].newest->profile, ElementsAre(1, 0.25, 0.0625));
  // The last time step comes first.
  EXPECT_THAT(closer.probes()[0].newest->state_profile, ElementsAre(1, 0.5, 0.25));
  EXPECT_EQ(closer.probes()[0].newest->decay_factor, 0.25);
}

TEST(CloserLookTest, LeavesOutAProbeThatBeginsWithNothing) {
  CloserLook closer(0, 0, {});
  for (const float norm : {0.f, std::numeric_limits<float>::quiet_NaN()}) {
    v1::StepStats step;
    step.add_probe()->add_lag_profile(norm);
    closer.Add(step);
  }

  EXPECT_THAT(closer.probes(), IsEmpty());
}

TEST(CloserLookTest, ComparesTheLossByLengthAtTheStartAndAtTheEnd) {
  CloserLook closer(0, 99, {});
  for (int64_t number = 0; number < 100; ++number) {
    v1::StepStats step;
    step.set_step(number);
    v1::LengthStats* const group = step.add_lengths();
    group->set_minimum(10);
    group->set_maximum(20);
    group->set_rows(number % 2 == 0 ? 3 : 1);
    group->set_loss(number < 10 ? (number % 2 == 0 ? 4 : 8) : number < 90 ? 1000 : 1);
    step.add_lengths()->set_loss(std::nan(""));
    closer.Add(step);
  }

  ASSERT_THAT(closer.early_lengths(), SizeIs(1));
  EXPECT_EQ(closer.early_lengths().at(15).rows, 20);
  EXPECT_EQ(closer.early_lengths().at(15).sum, 5 * 3 * 4 + 5 * 1 * 8);
  ASSERT_THAT(closer.late_lengths(), SizeIs(1));
  EXPECT_EQ(closer.late_lengths().at(15).sum, 20);
}

TEST(CloserLookTest, KeepsTheNoiseScaleWhereThereIsOne) {
  CloserLook closer(0, 99, {});
  v1::StepStats step;
  step.mutable_noise()->set_squared_norm(1);
  closer.Add(step);
  EXPECT_TRUE(closer.noise_scale().empty());
  step.mutable_noise()->set_noise_scale(500);

  closer.Add(step);

  EXPECT_EQ(OnlyValue(closer.noise_scale()), 500);
}

}  // namespace
}  // namespace gradwatch::cli
