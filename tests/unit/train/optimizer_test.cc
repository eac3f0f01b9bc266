#include "server/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/philox.h"

namespace gradwatch::train {
namespace {

using testing::Each;
using testing::ElementsAre;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

v1::Optimizer Sgd(double momentum, bool nesterov) {
  v1::Optimizer spec;
  spec.mutable_sgd()->set_momentum(momentum);
  spec.mutable_sgd()->set_nesterov(nesterov);
  return spec;
}

v1::Optimizer Adam(double beta1, double beta2, double epsilon) {
  v1::Optimizer spec;
  spec.mutable_adam()->set_beta1(beta1);
  spec.mutable_adam()->set_beta2(beta2);
  spec.mutable_adam()->set_epsilon(epsilon);
  return spec;
}

std::vector<v1::Optimizer> AllOptimizers() {
  return {Sgd(0.0, false), Sgd(0.9, false), Sgd(0.9, true), Adam(0.9, 0.999, 1e-8)};
}

// Tensors of these sizes, one after the other.
std::vector<nn::Parameter> Parameters(const std::vector<int64_t>& sizes) {
  std::vector<nn::Parameter> parameters;
  int64_t offset = 0;
  for (const int64_t size : sizes) {
    nn::Parameter parameter;
    parameter.name = absl::StrCat("p", parameters.size());
    parameter.shape = {size};
    parameter.offset = offset;
    parameter.size = size;
    parameters.push_back(parameter);
    offset += size;
  }
  return parameters;
}

// Weights under one optimizer.
template <typename S>
struct Bench {
  Bench(const v1::Optimizer& spec, const std::vector<int64_t>& sizes, ThreadTeam* team = nullptr)
      : optimizer(spec, Parameters(sizes), team), norms(sizes.size()) {
    size_t total = 0;
    for (const int64_t size : sizes) total += static_cast<size_t>(size);
    weights.resize(total);
    gradients.resize(total);
  }

  typename Optimizer<S>::Update Update(double rate, int64_t number) {
    double largest = 0.0;
    for (const S g : gradients) {
      largest = std::isfinite(g) ? std::max(largest, std::abs(static_cast<double>(g))) : kNan;
      if (std::isnan(largest)) break;
    }
    typename Optimizer<S>::Update update;
    update.weights = absl::MakeSpan(weights);
    update.gradients = gradients;
    update.gradient_bound = largest;
    update.rate = rate;
    update.number = number;
    return update;
  }

  // Returns what FirstNonFinite said.
  int Step(double rate, int64_t number) {
    const auto update = Update(rate, number);
    const int found = optimizer.FirstNonFinite(update);
    optimizer.Apply(update, absl::MakeSpan(norms));
    return found;
  }

  std::vector<double> ChangeNorms() const {
    std::vector<double> changes;
    for (const auto& of_parameter : norms) changes.push_back(of_parameter.change);
    return changes;
  }

  Optimizer<S> optimizer;
  std::vector<S> weights;
  std::vector<S> gradients;
  std::vector<typename Optimizer<S>::Norms> norms;
};

// The textbook form, one entry at a time, in double.
struct Reference {
  double w = 0.0, m = 0.0, v = 0.0;

  void Step(const v1::Optimizer& spec, double g, double rate, int t) {
    if (spec.has_adam()) {
      const v1::Adam& adam = spec.adam();
      m = adam.beta1() * m + (1 - adam.beta1()) * g;
      v = adam.beta2() * v + (1 - adam.beta2()) * g * g;
      const double denominator =
          std::sqrt(v) / std::sqrt(1 - std::pow(adam.beta2(), t)) + adam.epsilon();
      w -= rate / (1 - std::pow(adam.beta1(), t)) * m / denominator;
      return;
    }
    m = t == 1 ? g : spec.sgd().momentum() * m + g;
    w -= rate * (spec.sgd().nesterov() ? g + spec.sgd().momentum() * m : m);
  }
};

TEST(OptimizerTest, FollowsTheTextbookFormsAtEverySize) {
  // Sizes around the block size and the vector width; each operation rounds once.
  const std::vector<int64_t> sizes = {1, 0, 7, 256, 255, 513};
  for (const v1::Optimizer& spec : AllOptimizers()) {
    Bench<double> bench(spec, sizes);
    std::vector<Reference> reference(bench.weights.size());
    RandomStream random(3, 1, 0);
    for (size_t i = 0; i < reference.size(); ++i) {
      bench.weights[i] = reference[i].w = random.NextNormal();
    }

    for (int t = 1; t <= 5; ++t) {
      for (size_t i = 0; i < reference.size(); ++i) {
        bench.gradients[i] = random.NextNormal();
        reference[i].Step(spec, bench.gradients[i], 0.1, t);
      }
      ASSERT_EQ(bench.Step(0.1, t), -1);
    }

    for (size_t i = 0; i < reference.size(); ++i) {
      ASSERT_NEAR(bench.weights[i], reference[i].w, 1e-14) << spec.ShortDebugString() << i;
    }
  }
}

TEST(OptimizerTest, MeasuresTheChangeOfEachTensor) {
  Bench<float> bench(Sgd(0.0, false), {2, 0, 300});
  bench.gradients.assign(302, 0.0f);
  bench.gradients[0] = 3.0f;
  bench.gradients[1] = -4.0f;
  bench.gradients[301] = 2.0f;

  bench.Step(0.5, 1);

  EXPECT_THAT(bench.ChangeNorms(), ElementsAre(2.5, 0.0, 1.0));
}

TEST(OptimizerTest, MeasuresTheChangeAsRounded) {
  Bench<float> bench(Sgd(0.0, false), {1});
  bench.weights[0] = 1.0f;
  bench.gradients[0] = 1e-9f;  // Less than half an ulp of the weight.

  bench.Step(1.0, 1);

  EXPECT_EQ(bench.weights[0], 1.0f);
  EXPECT_THAT(bench.ChangeNorms(), ElementsAre(0.0));
}

TEST(OptimizerTest, MeasuresChangesWhoseSquaresLeaveTheRangeOfDouble) {
  Bench<double> bench(Sgd(0.0, false), {2});
  bench.gradients = {3e200, -4e200};

  EXPECT_EQ(bench.Step(1.0, 1), -1);

  EXPECT_THAT(bench.ChangeNorms(), ElementsAre(testing::DoubleNear(5e200, 1e186)));
}

TEST(OptimizerTest, KeepsTheVectorsThatItsFormNeeds) {
  EXPECT_EQ(Bench<float>(Sgd(0.0, false), {5, 4}).optimizer.state().size(), 0u);
  EXPECT_EQ(Bench<float>(Sgd(0.9, false), {5, 4}).optimizer.state().size(), 9u);
  EXPECT_EQ(Bench<float>(Adam(0.9, 0.999, 1e-8), {5, 4}).optimizer.state().size(), 18u);
}

TEST(OptimizerTest, FindsTheFirstTensorThatWouldOverflowAndChangesNothing) {
  for (const v1::Optimizer& spec : {Sgd(0.0, false), Sgd(0.9, false), Sgd(0.9, true)}) {
    Bench<float> bench(spec, {3, 2, 2});
    bench.weights.assign(7, 1.0f);
    bench.gradients.assign(7, 0.5f);
    bench.Step(0.1, 1);
    const std::vector<float> weights = bench.weights;
    const std::vector<float> state(bench.optimizer.state().begin(), bench.optimizer.state().end());
    bench.gradients[4] = 1e38f;
    bench.gradients[6] = 1e38f;

    EXPECT_EQ(bench.optimizer.FirstNonFinite(bench.Update(1000.0, 2)), 1);

    EXPECT_EQ(bench.weights, weights);
    EXPECT_TRUE(std::equal(state.begin(), state.end(), bench.optimizer.state().begin()));
  }
}

TEST(OptimizerTest, FindsAStateThatWouldOverflow) {
  // The square of 1e20 is no float: Adam's v would be infinite and freeze the weight for ever.
  Bench<float> bench(Adam(0.9, 0.999, 1e-8), {1, 1});
  bench.gradients = {1.0f, 1e23f};

  EXPECT_EQ(bench.optimizer.FirstNonFinite(bench.Update(0.1, 1)), 1);

  EXPECT_THAT(bench.optimizer.state(), Each(0.0f));
}

TEST(OptimizerTest, FindsNanAndInfinityOfTheGradient) {
  for (const v1::Optimizer& spec : AllOptimizers()) {
    for (const double bad : {kNan, kInf, -kInf}) {
      Bench<double> bench(spec, {300, 1});
      bench.Step(0.1, 1);
      bench.gradients[299] = bad;

      EXPECT_EQ(bench.optimizer.FirstNonFinite(bench.Update(0.1, 2)), 0) << bad;
    }
  }
}

// What bounds prove is what a search finds, on gradients over the whole range, at both levels of
// measurement.
TEST(OptimizerTest, OverlooksNoOverflowWhateverItKnows) {
  for (const v1::Optimizer& spec : AllOptimizers()) {
    for (const bool measure : {false, true}) {
      Bench<float> bench(spec, {20, 300});
      Bench<float> searching(spec, {20, 300});
      RandomStream random(5, 1, 0);
      int overflows = 0;
      for (int step = 1; step <= 300; ++step) {
        const double scale = std::pow(10.0, step % 20 == 0 ? 30.0 + 8.5 * random.NextUniform()
                                                           : 30.0 * random.NextUniform() - 20.0);
        for (float& g : bench.gradients) g = static_cast<float>(scale * random.NextNormal());
        searching.gradients = bench.gradients;
        auto update = bench.Update(0.1, step);
        update.measure_weights = measure;
        searching.optimizer.ForgetBounds();

        const int found = bench.optimizer.FirstNonFinite(update);

        const auto searched = searching.Update(0.1, step);
        ASSERT_EQ(found, searching.optimizer.FirstNonFinite(searched)) << step;
        overflows += found >= 0 ? 1 : 0;
        if (found >= 0) continue;
        bench.optimizer.Apply(update, absl::MakeSpan(bench.norms));
        searching.optimizer.Apply(searched, absl::MakeSpan(searching.norms));
        ASSERT_EQ(bench.weights, searching.weights) << step;
      }
      EXPECT_GT(overflows, 0);
      EXPECT_LT(overflows, 100);
    }
  }
}

TEST(OptimizerTest, LetsLargeButFiniteUpdatesPass) {
  Bench<float> bench(Sgd(0.0, false), {1});
  bench.gradients[0] = 3e38f;

  EXPECT_EQ(bench.Step(1.0, 1), -1);

  EXPECT_EQ(bench.weights[0], -3e38f);
}

TEST(OptimizerTest, AppliesNonFiniteUpdatesWhenToldTo) {
  Bench<float> bench(Sgd(0.9, false), {1, 1});
  bench.gradients = {1.0f, std::numeric_limits<float>::infinity()};

  EXPECT_EQ(bench.Step(0.5, 1), 1);
  EXPECT_EQ(bench.weights[0], -0.5f);
  EXPECT_EQ(bench.weights[1], -std::numeric_limits<float>::infinity());

  bench.gradients = {1.0f, 1.0f};
  EXPECT_EQ(bench.optimizer.FirstNonFinite(bench.Update(0.5, 2)), 1);  // What is broken stays so.
}

TEST(OptimizerTest, GoesOnExactlyFromItsState) {
  for (const v1::Optimizer& spec : AllOptimizers()) {
    RandomStream random(5, 1, 0);
    Bench<float> whole(spec, {300});
    for (int t = 1; t <= 3; ++t) {
      for (float& g : whole.gradients) g = static_cast<float>(random.NextNormal());
      whole.Step(0.1, t);
    }
    Bench<float> resumed(spec, {300});
    resumed.weights = whole.weights;
    resumed.gradients = whole.gradients;
    std::copy(whole.optimizer.state().begin(), whole.optimizer.state().end(),
              resumed.optimizer.state().begin());
    resumed.optimizer.ForgetBounds();

    whole.Step(0.1, 4);
    resumed.Step(0.1, 4);

    EXPECT_EQ(whole.weights, resumed.weights);
    EXPECT_EQ(whole.ChangeNorms(), resumed.ChangeNorms());
  }
}

// As if the gradients had been multiplied beforehand.
TEST(OptimizerTest, MultipliesTheGradientsByAFactorInDoubleRoundedOnce) {
  constexpr double kFactor = 0.1234567890123;
  const std::vector<int64_t> sizes = {300, 7};
  for (const v1::Optimizer& spec : AllOptimizers()) {
    Bench<float> beforehand(spec, sizes);
    Bench<float> within(spec, sizes);
    RandomStream random(7, 1, 0);
    for (size_t i = 0; i < within.weights.size(); ++i) {
      within.weights[i] = beforehand.weights[i] = static_cast<float>(random.NextNormal());
      within.gradients[i] = static_cast<float>(random.NextNormal());
      beforehand.gradients[i] = static_cast<float>(within.gradients[i] * kFactor);
    }

    auto update = within.Update(0.1, 1);
    update.factor = kFactor;
    within.optimizer.FirstNonFinite(update);
    within.optimizer.Apply(update, absl::MakeSpan(within.norms));
    beforehand.Step(0.1, 1);

    EXPECT_EQ(within.weights, beforehand.weights);
  }
}

TEST(OptimizerTest, MeasuresGradientsAndWeightsOnItsWay) {
  Bench<float> bench(Sgd(0.0, false), {2, 3});
  bench.weights = {3, 4, 0, 0, 7};
  bench.gradients = {2, 0, 6, 0, 8};

  auto update = bench.Update(1.0, 1);
  update.factor = 0.5;
  update.measure_gradients = true;
  bench.optimizer.FirstNonFinite(update);
  bench.optimizer.Apply(update, absl::MakeSpan(bench.norms));

  EXPECT_EQ(bench.norms[0].gradient, 1.0);
  EXPECT_EQ(bench.norms[1].gradient, 5.0);
  EXPECT_EQ(bench.norms[0].weight, 5.0);
  EXPECT_EQ(bench.norms[1].weight, 7.0);
}

// Sizes around vectors and blocks; weights and changes over the whole range of floats, each with
// the other one elsewhere in it.
TEST(OptimizerTest, MeasuresWeightsAndChangesOfFloatsToAMillionth) {
  const std::vector<int64_t> sizes = {1, 15, 16, 17, 240, 255, 256, 257, 600, 16'641};
  constexpr double kScales[] = {0.0,   1e-37, 1e-30, 1e-19, 1e-17, 1e-15,
                                1e-13, 1.0,   1e12,  1e15,  1e19,  1e36};
  for (const double scale : kScales) {
    for (const double change : kScales) {
      SCOPED_TRACE(testing::Message() << scale << " changed by " << change);
      Bench<float> bench(Sgd(0.0, false), sizes);
      RandomStream random(9, 1, 0);
      for (float& weight : bench.weights) weight = static_cast<float>(scale * random.NextNormal());
      for (float& g : bench.gradients) g = static_cast<float>(change * random.NextNormal());
      const std::vector<float> before = bench.weights;

      bench.Step(1.0, 1);

      size_t i = 0;
      for (size_t p = 0; p < sizes.size(); ++p) {
        double weights = 0.0;
        double changes = 0.0;
        for (const size_t end = i + static_cast<size_t>(sizes[p]); i < end; ++i) {
          const double weight = before[i];
          weights += weight * weight;
          changes += (bench.weights[i] - weight) * (bench.weights[i] - weight);
        }
        EXPECT_NEAR(bench.norms[p].weight, std::sqrt(weights), 1e-6 * std::sqrt(weights));
        EXPECT_NEAR(bench.norms[p].change, std::sqrt(changes), 1e-6 * std::sqrt(changes));
      }
    }
  }
}

// A large value beside many whose squares no float holds.
TEST(OptimizerTest, LosesNothingThatCountsBelowTheRangeOfFloats) {
  Bench<float> bench(Sgd(0.0, false), {256});
  std::fill(bench.weights.begin(), bench.weights.end(), 1e-19F);
  bench.weights[17] = 4e-15F;
  bench.gradients = bench.weights;  // What is left is zero.
  const double expected = std::sqrt(255.0 * 1e-38 + 16e-30);

  bench.Step(1.0, 1);

  EXPECT_NEAR(bench.norms[0].weight, expected, 1e-6 * expected);
  EXPECT_NEAR(bench.norms[0].change, expected, 1e-6 * expected);
}

TEST(OptimizerTest, MeasuresWhatIsNotFiniteAsSuch) {
  for (const size_t at : {0, 255, 256, 599}) {
    Bench<float> bench(Sgd(0.0, false), {600, 3});
    std::fill(bench.weights.begin(), bench.weights.end(), 1.0F);
    bench.gradients[at] = std::numeric_limits<float>::quiet_NaN();

    bench.Step(1.0, 1);

    EXPECT_NEAR(bench.norms[0].weight, std::sqrt(600.0), 1e-4) << at;
    EXPECT_TRUE(std::isnan(bench.norms[0].change)) << at;
    EXPECT_EQ(bench.norms[1].weight, std::sqrt(3.0)) << at;
  }
}

TEST(OptimizerTest, GivesTheSameBitsForAnyNumberOfThreads) {
  const std::vector<int64_t> sizes = {50'001, 3, 20'000};
  for (const v1::Optimizer& spec : AllOptimizers()) {
    const auto run = [&](int threads) {
      ThreadTeam team(threads);
      team.SetThreads(threads);
      Bench<float> bench(spec, sizes, &team);
      RandomStream random(7, 1, 0);
      for (int64_t step = 1; step <= 2; ++step) {
        for (float& gradient : bench.gradients) gradient = static_cast<float>(random.NextNormal());
        bench.Step(0.1, step);
      }
      std::vector<double> result = bench.ChangeNorms();
      for (const auto& norms : bench.norms) result.push_back(norms.weight);
      result.insert(result.end(), bench.weights.begin(), bench.weights.end());
      return result;
    };

    EXPECT_EQ(run(3), run(1));
  }
}

}  // namespace
}  // namespace gradwatch::train
