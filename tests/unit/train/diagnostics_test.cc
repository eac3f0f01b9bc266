// What Job.diagnostics asks for: comparison with earlier steps, the recurrent matrices, the probe,
// the noise (more in gradient_noise_test.cc).
#include <malloc.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "Eigen/Eigenvalues"
#include "Eigen/SVD"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/arithmetic_mode.h"
#include "server/data/source.h"
#include "server/nn/network.h"
#include "server/stats/gradient_stats.h"
#include "server/train/job_network.h"
#include "server/train/step_comparison.h"
#include "server/train/trainer.h"
#include "tests/testing/allocation_counter.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

using gradwatch::testing::Allocations;

std::vector<v1::StepStats> RunSteps(Trainer& trainer, int steps) {
  std::vector<v1::StepStats> records(static_cast<size_t>(steps));
  for (v1::StepStats& record : records) trainer.Step(&record);
  return records;
}

void AskForEverything(v1::Job* job) {
  job->set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  job->mutable_diagnostics()->set_compare_steps(true);
  job->mutable_diagnostics()->set_recurrent_every_steps(3);
  job->mutable_diagnostics()->set_probe_every_steps(2);
  job->mutable_diagnostics()->set_noise_every_steps(3);
}

// Plain SGD in double without clipping: the gradient of a step is what it did to the weights over
// the rate, up to rounding of the weights, 1e-16 / rate.
TestJob PlainJob(Kind kind) {
  TestJob made = MakeJob(kind);
  made.job.mutable_training()->set_precision(v1::Training::PRECISION_FLOAT64);
  made.job.mutable_optimizer()->mutable_sgd();
  made.job.mutable_optimizer()->set_learning_rate(0.25);
  made.job.mutable_clipping()->clear_policies();
  FillDefaults(&made.job);
  AskForEverything(&made.job);
  return made;
}

std::vector<double> WeightsOf(const Trainer& trainer) {
  const std::string bytes = trainer.Save().weights();
  std::vector<double> weights(bytes.size() / sizeof(double));
  std::memcpy(weights.data(), bytes.data(), bytes.size());
  return weights;
}

std::vector<double> Difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return difference;
}

double Dot(absl::Span<const double> a, absl::Span<const double> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double Cosine(absl::Span<const double> a, absl::Span<const double> b) {
  return Dot(a, b) / std::sqrt(Dot(a, a) * Dot(b, b));
}

// Calls body(index, part) with the entries of `flat` that belong to each parameter.
template <typename Body>
void ForParameters(const Trainer& trainer, absl::Span<const double> flat, Body&& body) {
  int index = 0;
  for (const v1::ParameterInfo& info : trainer.parameters()) {
    size_t size = 1;
    for (const int64_t side : info.shape()) size *= static_cast<size_t>(side);
    body(index++, flat.first(size));
    flat.remove_prefix(size);
  }
}

// --- comparison ---------------------------------------------------------------------------------

TEST(StepComparisonTest, CosinesAreThoseOfSuccessiveGradients) {
  for (const Kind kind : {Kind::kAdding, Kind::kRaggedAdding, Kind::kForecast}) {
    const auto trainer = NewTrainer(PlainJob(kind));
    std::vector<double> weights = WeightsOf(*trainer);
    std::vector<double> previous;
    for (int step = 0; step < 4; ++step) {
      const v1::StepStats record = RunSteps(*trainer, 1)[0];
      const std::vector<double> after = WeightsOf(*trainer);
      const std::vector<double> change = Difference(weights, after);
      weights = after;

      EXPECT_EQ(record.has_gradient_cosine(), step > 0);
      if (step > 0) {
        EXPECT_NEAR(record.gradient_cosine(), Cosine(change, previous), 1e-10);
        std::vector<double> expected;
        ForParameters(*trainer, change, [&](int, absl::Span<const double> part) {
          const auto offset = static_cast<size_t>(part.data() - change.data());
          expected.push_back(
              Cosine(part, absl::MakeConstSpan(previous).subspan(offset, part.size())));
        });
        for (int p = 0; p < record.tensors_size(); ++p) {
          EXPECT_NEAR(record.tensors(p).gradient_cosine(), expected[static_cast<size_t>(p)], 1e-8)
              << trainer->parameters()[static_cast<size_t>(p)].name();
        }
      }
      previous = change;
    }
  }
}

TEST(StepComparisonTest, DistancesAreThoseFromTheFirstWeights) {
  const auto trainer = NewTrainer(PlainJob(Kind::kRaggedAdding));
  const std::vector<double> first = WeightsOf(*trainer);
  for (int step = 0; step < 4; ++step) {
    const v1::StepStats record = RunSteps(*trainer, 1)[0];
    const std::vector<double> moved = Difference(WeightsOf(*trainer), first);

    const double distance = std::sqrt(Dot(moved, moved));
    EXPECT_NEAR(record.distance_from_start(), distance, 1e-12 * distance);
    EXPECT_NEAR(record.distance_ratio(), distance / std::sqrt(Dot(first, first)), 1e-12);
    ForParameters(*trainer, moved, [&](int p, absl::Span<const double> part) {
      EXPECT_NEAR(record.tensors(p).distance_from_start(), std::sqrt(Dot(part, part)), 1e-12);
    });
  }
}

TEST(StepComparisonTest, ASkippedStepStaysWhereItIs) {
  TestJob made = MakeJob(Kind::kAdding);
  AskForEverything(&made.job);
  const auto trainer = NewTrainer(made);
  const v1::StepStats before = RunSteps(*trainer, 1)[0];
  v1::Job absurd = made.job;
  absurd.mutable_optimizer()->set_learning_rate(1e300);  // Every would-be weight is infinite.
  ASSERT_TRUE(trainer->ApplySettings(absurd).ok());

  const v1::StepStats skipped = RunSteps(*trainer, 1)[0];

  ASSERT_TRUE(skipped.skipped());
  EXPECT_TRUE(skipped.has_gradient_cosine());  // The gradient itself is finite.
  EXPECT_NEAR(skipped.distance_from_start(), before.distance_from_start(), 1e-13);
}

TEST(StepComparisonTest, HasNoCosineWithAGradientThatIsNotFinite) {
  v1::Job job = ExplodingJob(0);
  job.mutable_diagnostics()->set_compare_steps(true);
  const auto trainer = *Trainer::Create(job, nullptr);
  v1::StepStats record;
  do {
    trainer->Step(&record);
  } while (std::isfinite(record.norm_before()) && record.step() < 60);

  ASSERT_FALSE(std::isfinite(record.norm_before()));
  EXPECT_FALSE(record.has_gradient_cosine());
  trainer->Step(&record);
  EXPECT_FALSE(record.has_gradient_cosine());
}

TEST(StepComparisonTest, HasNoCosineWithAGradientOfZero) {
  const std::vector<nn::Parameter> parameters = {{"w", {3}, 0, 3, -1, nn::Role::kReadoutBias}};
  const std::vector<double> weights = {1, 2, 2};
  StepComparison<double> comparison(weights, parameters, 1);
  const auto cosine = [&](const std::vector<double>& gradient) {
    v1::StepStats record;
    comparison.Take(0, 0, gradient);
    comparison.FinishGradients({1}, {stats::Norm<double>(gradient)}, &record);
    return record.has_gradient_cosine() ? record.gradient_cosine() : 7.0;
  };

  EXPECT_EQ(cosine({1, 0, 0}), 7.0);
  EXPECT_NEAR(cosine({1, 1, 0}), std::sqrt(0.5), 1e-15);
  EXPECT_NEAR(cosine({-2, -2, 0}), -1.0, 1e-15);
  EXPECT_EQ(cosine({0, 0, 0}), 7.0);
  EXPECT_EQ(cosine({1, 0, 0}), 7.0);
  EXPECT_EQ(cosine({0, 0, 3}), 0.0);
  comparison.Forget();
  EXPECT_EQ(cosine({0, 0, 3}), 7.0);
}

TEST(StepComparisonTest, IsLeftOutWhereNobodyAskedOrAtLevelOff) {
  TestJob made = MakeJob(Kind::kAdding);
  const v1::StepStats basic = RunSteps(*NewTrainer(made), 2)[1];
  made.job.mutable_diagnostics()->set_compare_steps(true);
  made.job.set_statistics_level(v1::STATISTICS_LEVEL_OFF);
  const v1::StepStats off = RunSteps(*NewTrainer(made), 2)[1];
  made.job.set_statistics_level(v1::STATISTICS_LEVEL_BASIC);
  const v1::StepStats asked = RunSteps(*NewTrainer(made), 2)[1];

  EXPECT_FALSE(basic.has_gradient_cosine() || basic.has_distance_from_start());
  EXPECT_FALSE(off.has_gradient_cosine() || off.has_distance_from_start());
  EXPECT_TRUE(asked.has_gradient_cosine() && asked.has_distance_from_start());
}

// --- curvature along the step --------------------------------------------------------------------

TEST(StepCurvatureTest, IsTheChangeOfTheGradientAlongTheStep) {
  for (const double max_norm : {0.0, 0.05}) {
    TestJob made = PlainJob(Kind::kRaggedAdding);
    if (max_norm > 0.0) ClipGlobalNorm(max_norm, &made.job);
    const auto trainer = NewTrainer(made);
    std::vector<double> weights = WeightsOf(*trainer);
    std::vector<double> step_before;
    std::vector<double> gradient_before;
    bool clipped = false;
    for (int step = 0; step < 6; ++step) {
      const v1::StepStats record = RunSteps(*trainer, 1)[0];
      const std::vector<double> after = WeightsOf(*trainer);
      const std::vector<double> moved = Difference(after, weights);
      std::vector<double> gradient = moved;
      for (double& entry : gradient) entry /= -0.25 * record.clip_coefficient();

      EXPECT_EQ(record.has_step_curvature(), step > 0);
      if (step > 0) {
        const double expected =
            Dot(Difference(gradient, gradient_before), step_before) / Dot(step_before, step_before);
        EXPECT_NEAR(record.step_curvature(), expected, 1e-8 * std::abs(expected) + 1e-8);
      }
      clipped = clipped || record.clipped();
      weights = after;
      step_before = moved;
      gradient_before = gradient;
    }
    EXPECT_EQ(clipped, max_norm > 0.0);
  }
}

// The same batch for ever, with input and all weights 0: the loss is (b - 3)^2, of curvature 2.
class ConstantSource final : public data::Source {
 public:
  ConstantSource() {
    shape_.time_steps = shape_.rows_max = shape_.features = shape_.outputs = 1;
    shape_.loss_at_last = true;
  }
  const data::TaskShape& shape() const override { return shape_; }
  void NextBatch(Batch* batch) override {
    batch->time_steps = batch->rows = batch->features = batch->outputs = 1;
    batch->inputs = {0.0};
    batch->target_values = {3.0};
    batch->weights = {1.0};
    batch->lengths = {1};
    batch->restart = {1};
    batch->origins = {0};
  }
  void Seek(int64_t) override {}
  int64_t evaluation_batches() const override { return 0; }
  void EvaluationBatch(int64_t, Batch*) override {}
  absl::Span<const data::TargetScale> target_scales() const override { return {}; }
  std::string SaveState() const override { return ""; }
  absl::Status LoadState(absl::string_view) override { return absl::OkStatus(); }

 private:
  data::TaskShape shape_;
};

TEST(StepCurvatureTest, IsThatOfAParabola) {
  TestJob made = PlainJob(Kind::kAdding);
  made.job.mutable_diagnostics()->clear_recurrent_every_steps();
  made.job.mutable_diagnostics()->clear_noise_every_steps();
  v1::Initialization* initialization = made.job.mutable_model()->mutable_initialization();
  initialization->mutable_input_weights()->set_constant(0.0);
  initialization->mutable_recurrent_weights()->set_constant(0.0);
  initialization->mutable_biases()->set_constant(0.0);
  initialization->mutable_readout_weights()->set_constant(0.0);
  initialization->mutable_readout_bias()->set_constant(0.0);
  const auto trainer = *Trainer::CreateOn(made.job, std::make_unique<ConstantSource>());

  const std::vector<v1::StepStats> records = RunSteps(*trainer, 6);

  for (size_t step = 1; step < 6; ++step) {
    EXPECT_NEAR(records[step].step_curvature(), 2.0, 1e-12) << step;
  }
}

TEST(StepCurvatureTest, IsAbsentWhereAStepDoesNotFollowItsGradient) {
  const auto second_step = [](const TestJob& made) { return RunSteps(*NewTrainer(made), 2)[1]; };
  TestJob momentum = PlainJob(Kind::kAdding);
  UseMomentum(&momentum.job);
  TestJob adam = PlainJob(Kind::kAdding);
  adam.job.mutable_optimizer()->mutable_adam();
  FillDefaults(&adam.job);
  TestJob by_value = PlainJob(Kind::kAdding);
  by_value.job.mutable_clipping()->add_policies()->mutable_value()->set_maximum(1e-4);
  FillDefaults(&by_value.job);
  TestJob by_tensor = PlainJob(Kind::kAdding);
  by_tensor.job.mutable_clipping()->add_policies()->mutable_parameter_norm()->set_max_norm(1e-4);
  FillDefaults(&by_tensor.job);
  TestJob idle = PlainJob(Kind::kAdding);  // A policy that never acts turns nothing.
  idle.job.mutable_clipping()->add_policies()->mutable_value()->set_maximum(1e6);
  FillDefaults(&idle.job);

  for (const TestJob* made : {&momentum, &adam, &by_value, &by_tensor}) {
    const v1::StepStats record = second_step(*made);
    EXPECT_TRUE(record.has_gradient_cosine());
    EXPECT_FALSE(record.has_step_curvature());
  }
  EXPECT_TRUE(second_step(idle).has_step_curvature());
}

TEST(StepCurvatureTest, IsAbsentAfterAnEditAndAtLevelOff) {
  const TestJob made = PlainJob(Kind::kAdding);
  const auto trainer = NewTrainer(made);
  v1::Job off = made.job;
  off.set_statistics_level(v1::STATISTICS_LEVEL_OFF);
  const v1::Job* const none = nullptr;
  const v1::Job* const same = &made.job;
  const v1::Job* const level_off = &off;
  std::vector<bool> present;

  for (const v1::Job* edit : std::vector{none, none, same, none, level_off, same, none}) {
    if (edit != nullptr) {
      ASSERT_TRUE(trainer->ApplySettings(*edit).ok());
    }
    present.push_back(RunSteps(*trainer, 1)[0].has_step_curvature());
  }

  EXPECT_THAT(present, ::testing::ElementsAre(false, true, false, true, false, false, true));
}

TEST(StepCurvatureTest, IsAbsentAfterASkippedStep) {
  TestJob made = MakeJob(Kind::kAdding);
  made.job.mutable_optimizer()->mutable_sgd();
  made.job.mutable_optimizer()->set_learning_rate(1e300);  // Every would-be weight is infinite.
  AskForEverything(&made.job);
  FillDefaults(&made.job);

  const v1::StepStats record = RunSteps(*NewTrainer(made), 2)[1];

  EXPECT_TRUE(record.has_gradient_cosine());
  EXPECT_FALSE(record.has_step_curvature());
}

// --- gates --------------------------------------------------------------------------------------

TEST(GateNormsTest, AreThoseOfTheRowsOfEachGate) {
  for (const auto& [kind, gates] : {std::pair{Kind::kRaggedAdding, 4}, {Kind::kForecast, 3}}) {
    const auto trainer = NewTrainer(PlainJob(kind));
    const std::vector<double> before = WeightsOf(*trainer);

    const v1::StepStats record = RunSteps(*trainer, 1)[0];

    const std::vector<double> change = Difference(before, WeightsOf(*trainer));
    ForParameters(*trainer, change, [&, gates = gates](int p, absl::Span<const double> part) {
      const v1::ParameterInfo& info = trainer->parameters()[static_cast<size_t>(p)];
      const bool gated = info.layer() >= 0;
      ASSERT_EQ(record.tensors(p).gate_norms_size(), gated ? gates : 0) << info.name();
      const size_t size = part.size() / static_cast<size_t>(gates);
      for (size_t gate = 0; gated && gate < static_cast<size_t>(gates); ++gate) {
        const absl::Span<const double> rows = part.subspan(gate * size, size);
        const double expected = std::sqrt(Dot(rows, rows)) / 0.25;
        EXPECT_NEAR(record.tensors(p).gate_norms(static_cast<int>(gate)), expected,
                    1e-10 * expected + 1e-14)
            << info.name() << " " << gate;
      }
    });
  }
}

TEST(GateNormsTest, MakeTheTensorsNormAlsoWhereAGateSpansSeveralChunks) {
  TestJob made = MakeJob(Kind::kRaggedAdding);
  made.job.mutable_model()->set_hidden_units(131);  // 68,644 recurrent weights: 5 chunks, 4 gates.
  AskForEverything(&made.job);

  const v1::StepStats record = RunSteps(*NewTrainer(made), 1)[0];

  for (int p = 0; p < 8; ++p) {
    ASSERT_EQ(record.tensors(p).gate_norms_size(), 4);
    double sum = 0.0;
    for (const double norm : record.tensors(p).gate_norms()) sum += norm * norm;
    EXPECT_NEAR(std::sqrt(sum), record.tensors(p).norm(), 4e-7 * record.tensors(p).norm());
  }
}

// --- recurrent matrices -------------------------------------------------------------------------

TEST(RecurrentStatsTest, AreThoseOfTheWeightsBeforeTheUpdate) {
  for (const auto& [kind, layers, gates] :
       {std::tuple{Kind::kAdding, 1, 1}, {Kind::kRaggedAdding, 2, 4}, {Kind::kForecast, 1, 3}}) {
    const auto trainer = NewTrainer(PlainJob(kind));
    for (int step = 0; step < 7; ++step) {
      const std::vector<double> weights = WeightsOf(*trainer);

      const v1::StepStats record = RunSteps(*trainer, 1)[0];

      ASSERT_EQ(record.recurrent_size(), step % 3 == 0 ? layers : 0);
      if (record.recurrent().empty()) continue;
      ForParameters(*trainer, weights, [&, gates = gates](int p, absl::Span<const double> part) {
        const v1::ParameterInfo& info = trainer->parameters()[static_cast<size_t>(p)];
        if (!info.recurrent()) return;
        const v1::RecurrentStats& layer = record.recurrent(info.layer());
        EXPECT_EQ(layer.layer(), info.layer());
        ASSERT_EQ(layer.sigma_max_size(), gates);
        ASSERT_EQ(layer.spectral_radius_size(), gates);
        for (int gate = 0; gate < gates; ++gate) {
          using Rows = Eigen::Matrix<double, 6, 6, Eigen::RowMajor>;
          const Rows block = Eigen::Map<const Rows>(part.data() + gate * 36);
          const double sigma = Eigen::JacobiSVD<Rows>(block).singularValues().maxCoeff();
          const double radius = Eigen::EigenSolver<Rows>(block).eigenvalues().cwiseAbs().maxCoeff();
          EXPECT_NEAR(layer.sigma_max(gate), sigma, 0.02 * sigma);
          EXPECT_NEAR(layer.spectral_radius(gate), radius, 1e-6 * radius);
        }
      });
    }
  }
}

// --- the probe ----------------------------------------------------------------------------------

// The same network and data with a loss at the last time step only, made by hand.
std::vector<double> LagProfileByHand(const TestJob& made) {
  const ArithmeticMode mode;
  const auto source = *data::NewSource(made.job, made.dataset);
  const data::TaskShape shape = source->shape();
  nn::NetworkConfig config = NetworkConfigOf(made.job, shape);
  Batch batch;
  source->NextBatch(&batch);
  config.loss_at = nn::LossAt::kLastStep;
  const auto rows = static_cast<size_t>(batch.rows);
  const auto last = static_cast<size_t>(batch.time_steps - 1);
  if (batch.target_classes.empty()) {
    const size_t width = rows * static_cast<size_t>(batch.outputs);
    batch.target_values.erase(batch.target_values.begin(),
                              batch.target_values.begin() + static_cast<ptrdiff_t>(last * width));
  } else {
    batch.target_classes.erase(batch.target_classes.begin(),
                               batch.target_classes.begin() + static_cast<ptrdiff_t>(last * rows));
  }
  batch.weights.assign(rows, 1.0);
  nn::Network<double> network(config, shape.rows_max, shape.time_steps);
  network.Initialize(made.job.seed());
  network.ForwardBackward(batch, nn::Detail::kFull);
  const absl::Span<const double> norms = network.traces()[0].hidden_gradient_norm;
  return {norms.rbegin(), norms.rend()};
}

TEST(ProbeTest, IsTheGradientOfALossAtTheLastStepAlone) {
  for (const Kind kind : {Kind::kLanguage, Kind::kForecast, Kind::kMackeyGlass}) {
    TestJob made = PlainJob(kind);
    const std::vector<double> expected = LagProfileByHand(made);

    const v1::StepStats record = RunSteps(*NewTrainer(made), 1)[0];

    ASSERT_EQ(record.probe_size(), 1);
    ASSERT_EQ(record.probe(0).lag_profile_size(), static_cast<int>(expected.size()));
    for (size_t lag = 0; lag < expected.size(); ++lag) {
      EXPECT_NEAR(record.probe(0).lag_profile(static_cast<int>(lag)), expected[lag],
                  1e-6 * expected[lag]);
    }
    EXPECT_TRUE(record.probe(0).has_decay_factor());
    EXPECT_TRUE(record.probe(0).has_horizon());
    EXPECT_EQ(record.layers(0).lag_profile_size(), 0);
  }
}

TEST(ProbeTest, CostsNothingForALossAtTheLastStep) {
  TestJob made = MakeJob(Kind::kAdding);
  made.job.mutable_diagnostics()->set_probe_every_steps(2);
  const std::vector<v1::StepStats> basic = RunSteps(*NewTrainer(made), 3);
  made.job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
  const std::vector<v1::StepStats> full = RunSteps(*NewTrainer(made), 3);

  for (size_t step = 0; step < 3; ++step) {
    ASSERT_EQ(basic[step].probe_size(), step % 2 == 0 ? 1 : 0);
    EXPECT_EQ(basic[step].layers_size(), 0);
    if (step % 2 != 0) continue;
    EXPECT_THAT(basic[step].probe(0).lag_profile(),
                ::testing::ElementsAreArray(full[step].layers(0).lag_profile()));
  }
}

// Signal that vanishes with the lag: fresh gradient at every time step hides from the ordinary
// profile what the probe shows.
TEST(ProbeTest, ShowsDecayThatALossAtEachStepHides) {
  TestJob made = MakeJob(Kind::kMackeyGlass);
  made.job.mutable_task()->mutable_mackey_glass()->set_warmup_time_steps(2);
  made.job.mutable_model()->set_cell(v1::Model::CELL_RNN_TANH);
  made.job.mutable_model()
      ->mutable_initialization()
      ->mutable_recurrent_weights()
      ->set_orthogonal_gain(0.4);
  AskForEverything(&made.job);

  const v1::StepStats record = RunSteps(*NewTrainer(made), 1)[0];

  const auto& ordinary = record.layers(0).state_gradient_norm();
  EXPECT_GT(ordinary[ordinary.size() - 2], 0.1f * ordinary[ordinary.size() - 1]);
  const v1::ProbeStats& probe = record.probe(0);
  EXPECT_LT(probe.lag_profile(10), 1e-3f * probe.lag_profile(0));
  EXPECT_LE(probe.decay_factor(), 0.4 + 1e-6);  // The derivative of tanh is 1 at most.
  EXPECT_LT(probe.horizon(), 9);
}

// --- all of it ----------------------------------------------------------------------------------

std::string WithoutDiagnostics(v1::StepStats record) {
  record.clear_gradient_cosine();
  record.clear_distance_from_start();
  record.clear_distance_ratio();
  record.clear_recurrent();
  record.clear_probe();
  record.clear_noise();
  record.clear_step_curvature();
  for (v1::TensorStats& tensor : *record.mutable_tensors()) {
    tensor.clear_gradient_cosine();
    tensor.clear_distance_from_start();
  }
  return record.SerializeAsString();
}

TEST(DiagnosticsTest, ChangeNoBitOfTraining) {
  for (const Kind kind : kAllKinds) {
    TestJob plain = MakeJob(kind);
    plain.job.set_statistics_level(v1::STATISTICS_LEVEL_FULL);
    TestJob asked = plain;
    AskForEverything(&asked.job);
    const auto expected = NewTrainer(plain);
    const auto trainer = NewTrainer(asked);

    for (int step = 0; step < 9; ++step) {
      EXPECT_EQ(WithoutDiagnostics(RunSteps(*trainer, 1)[0]),
                WithoutDiagnostics(RunSteps(*expected, 1)[0]))
          << static_cast<int>(kind) << " " << step;
    }
    EXPECT_EQ(trainer->Save().weights(), expected->Save().weights());
    EXPECT_EQ(trainer->Save().carried_state(), expected->Save().carried_state());
  }
}

TEST(DiagnosticsTest, HaveTheSameBitsForAnyNumberOfThreads) {
  TestJob made = MakeJob(Kind::kMackeyGlass);
  made.job.mutable_model()->set_hidden_units(192);
  AskForEverything(&made.job);
  const auto alone = NewTrainer(made);
  const auto together = NewTrainer(made);
  if (together->threads_useful() < 2) GTEST_SKIP() << "this machine has one core";
  together->SetThreads(together->threads_useful());

  for (int step = 0; step < 5; ++step) {
    EXPECT_EQ(RunSteps(*together, 1)[0].SerializeAsString(),
              RunSteps(*alone, 1)[0].SerializeAsString());
  }
}

TEST(DiagnosticsTest, GoOnBitForBitFromACheckpoint) {
  for (const Kind kind : kAllKinds) {
    TestJob made = MakeJob(kind);
    AskForEverything(&made.job);
    // One with a curvature along the step.
    if (kind == Kind::kRaggedAdding) made.job.mutable_optimizer()->mutable_sgd();
    const std::vector<v1::StepStats> expected = RunSteps(*NewTrainer(made), 9);
    auto trainer = NewTrainer(made);

    for (size_t step = 0; step < 9; ++step) {
      if (step % 2 == 1) {
        const v1::Checkpoint checkpoint = trainer->Save();
        trainer = *Trainer::Restore(made.job, made.dataset, checkpoint);
        EXPECT_EQ(trainer->Save().SerializeAsString(), checkpoint.SerializeAsString());
      }
      EXPECT_EQ(RunSteps(*trainer, 1)[0].SerializeAsString(), expected[step].SerializeAsString());
    }
  }
}

TEST(DiagnosticsTest, RefuseACheckpointThatDoesNotFit) {
  TestJob made = MakeJob(Kind::kAdding);
  AskForEverything(&made.job);
  const auto trainer = NewTrainer(made);
  RunSteps(*trainer, 2);
  v1::Checkpoint short_gradient = trainer->Save();
  short_gradient.mutable_previous_gradient()->pop_back();
  v1::Checkpoint short_state = trainer->Save();
  short_state.mutable_statistics_state()->pop_back();
  TestJob plain = MakeJob(Kind::kAdding);

  EXPECT_EQ(Trainer::Restore(made.job, made.dataset, short_gradient).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(Trainer::Restore(made.job, made.dataset, short_state).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(Trainer::Restore(plain.job, plain.dataset, trainer->Save()).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(DiagnosticsTest, AllocateNothingOnceWarm) {
  for (const Kind kind : kAllKinds) {
    TestJob made = MakeJob(kind);
    made.job.mutable_evaluation()->set_every_steps(0);
    AskForEverything(&made.job);
    const auto trainer = NewTrainer(made);
    v1::StepStats record;
    for (int step = 0; step < 7; ++step) trainer->Step(&record);

    for (int step = 7; step < 19; ++step) {
      const int64_t before = Allocations();
      trainer->Step(&record);
      // The record's message of the noise, which most steps do not have, and its array.
      const int64_t allowed = record.has_noise() ? 2 : 0;
      EXPECT_LE(Allocations() - before, allowed) << static_cast<int>(kind) << " " << step;
    }
  }
}

TEST(DiagnosticsTest, AreCountedInTheMemoryOfTheJob) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers take memory of their own";
#endif
  for (const Kind kind : {Kind::kAdding, Kind::kRaggedAdding, Kind::kLanguage, Kind::kForecast}) {
    TestJob made = MakeJob(kind);
    made.job.mutable_model()->set_hidden_units(96);
    made.job.mutable_training()->set_batch_size(20);
    AskForEverything(&made.job);
    const auto held = [] {
      const struct mallinfo2 info = mallinfo2();
      return static_cast<double>(info.uordblks + info.hblkhd);
    };
    const double before = held();
    const auto trainer = NewTrainer(made);
    RunSteps(*trainer, 1);
    const double taken = held() - before;

    const double estimate = static_cast<double>(EstimateMemoryBytes(made.job, made.dataset.get()));

    EXPECT_GE(estimate, 0.9 * taken) << static_cast<int>(kind);
    EXPECT_LE(estimate, 1.1 * taken) << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace gradwatch::train
