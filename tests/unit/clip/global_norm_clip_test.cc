#include "server/clip/global_norm_clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "server/clip/norm.h"
#include "tests/unit/clip/gradients.h"
#include "tests/unit/clip/specs.h"

namespace gradwatch::clip {
namespace {

constexpr auto kL1 = v1::NORM_ORDER_L1;
constexpr auto kL2 = v1::NORM_ORDER_L2;
constexpr auto kInf = v1::NORM_ORDER_INF;
constexpr auto kTorch = v1::NORM_CONVENTION_TORCH;
constexpr auto kExact = v1::NORM_CONVENTION_EXACT;

TEST(GlobalNormClipTest, DefaultsAreL2AndTorch) {
  v1::ClipPolicy spec;
  spec.mutable_global_norm()->set_max_norm(5.0);
  Gradients<double> gradients({{3, 4, 0}});

  const PolicyReport report = Policy(spec)->Clip(gradients.context());

  EXPECT_EQ(report.norm, 5.0);
  EXPECT_EQ(report.coefficient, 5.0 / (5.0 + 1e-6));
  EXPECT_EQ(report.clamped, 0);
  EXPECT_FALSE(report.cosine.has_value());
}

TEST(GlobalNormClipTest, TorchShrinksAtTheThresholdItself) {
  Gradients<float> gradients({{3, 4, 0}});

  const PolicyReport report = Policy(GlobalNormSpec(5.0, kL2, kTorch))->Clip(gradients.context());

  EXPECT_TRUE(report.changed);
  EXPECT_FLOAT_EQ(gradients.values()[0][0], 2.9999993f);
  EXPECT_FLOAT_EQ(gradients.values()[0][1], 3.9999992f);
}

TEST(GlobalNormClipTest, ExactLeavesTheThresholdItselfAlone) {
  Gradients<float> gradients({{3, 4, 0}});

  const PolicyReport report = Policy(GlobalNormSpec(5.0, kL2, kExact))->Clip(gradients.context());

  EXPECT_FALSE(report.changed);
  EXPECT_EQ(report.coefficient, 1.0);
  EXPECT_EQ(gradients.values()[0], (std::vector<float>{3, 4, 0}));
}

TEST(GlobalNormClipTest, ExactLandsOnTheThreshold) {
  Gradients<double> gradients({{30}, {40, 0}});

  const PolicyReport report = Policy(GlobalNormSpec(5.0, kL2, kExact))->Clip(gradients.context());

  EXPECT_EQ(report.norm, 50.0);
  EXPECT_EQ(report.coefficient, 0.1);
  EXPECT_DOUBLE_EQ(gradients.values()[0][0], 3.0);
  EXPECT_DOUBLE_EQ(gradients.values()[1][0], 4.0);
}

TEST(GlobalNormClipTest, OtherOrdersAsTorch) {
  Gradients<float> l1({{3, 4, 0}});
  Gradients<float> inf({{3, -4, 0}});

  EXPECT_EQ(Policy(GlobalNormSpec(1.0, kL1, kTorch))->Clip(l1.context()).norm, 7.0);
  EXPECT_EQ(Policy(GlobalNormSpec(1.0, kInf, kTorch))->Clip(inf.context()).norm, 4.0);

  EXPECT_FLOAT_EQ(l1.values()[0][0], 0.42857134f);
  EXPECT_FLOAT_EQ(l1.values()[0][1], 0.57142848f);
  EXPECT_FLOAT_EQ(inf.values()[0][0], 0.74999982f);
  EXPECT_FLOAT_EQ(inf.values()[0][1], -0.99999976f);
}

TEST(GlobalNormClipTest, HugeFloatsAreScaledWhereFloatSquaresOverflow) {
  Gradients<float> gradients({{3e30f, 4e30f}});

  const PolicyReport report = Policy(GlobalNormSpec(1.0))->Clip(gradients.context());

  EXPECT_NEAR(*report.norm, 5e30, 5e30 * 1e-7);
  EXPECT_FLOAT_EQ(gradients.values()[0][0], 0.6f);
  EXPECT_FLOAT_EQ(gradients.values()[0][1], 0.8f);
}

TEST(GlobalNormClipTest, LargestFloatsKeepTheirPrecision) {
  // The coefficient, about 2e-39, is no normal float: the product must be formed in double.
  const float most = std::numeric_limits<float>::max();
  Gradients<float> gradients({{most, most, most, most}});

  Policy(GlobalNormSpec(1.0))->Clip(gradients.context());

  EXPECT_FLOAT_EQ(gradients.values()[0][0], 0.5f);
}

TEST(GlobalNormClipTest, TinyGradientsHaveANorm) {
  Gradients<float> gradients({{3e-30f, 4e-30f}});

  const PolicyReport report = Policy(GlobalNormSpec(1e-30, kL2, kExact))->Clip(gradients.context());

  EXPECT_NEAR(*report.norm, 5e-30, 5e-30 * 1e-7);
  EXPECT_NEAR(gradients.values()[0][0], 0.6e-30, 0.6e-30 * 1e-6);
}

TEST(GlobalNormClipTest, ClippedNormAgreesWithTheThresholdOverRandomGradients) {
  for (int seed = 0; seed < 50; ++seed) {
    const double exponent = seed % 10 - 3;
    Gradients<double> gradients(RandomGradients<double>(static_cast<uint64_t>(seed), exponent));
    const double before = NormOf(Norm::kL2, gradients.blocks());

    Policy(GlobalNormSpec(2.0, kL2, kExact))->Clip(gradients.context());

    // Rounding: half an ulp for each product and a few for the norm.
    EXPECT_NEAR(NormOf(Norm::kL2, gradients.blocks()), std::min(before, 2.0), 1e-14);
  }
}

TEST(GlobalNormClipTest, RefusesBadSettings) {
  const auto message = [](double max_norm) {
    const auto policy = NewClipPolicy(GlobalNormSpec(max_norm));
    EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(policy.status().message());
  };
  EXPECT_EQ(message(0.0), "global_norm.max_norm: got 0, must be finite and above 0");
  EXPECT_EQ(message(-1.5), "global_norm.max_norm: got -1.5, must be finite and above 0");
  EXPECT_EQ(message(std::nan("")), "global_norm.max_norm: got nan, must be finite and above 0");
  EXPECT_EQ(message(INFINITY), "global_norm.max_norm: got inf, must be finite and above 0");

  v1::ClipPolicy spec;
  spec.mutable_global_norm();
  EXPECT_EQ(NewClipPolicy(spec).status().message(),
            "global_norm.max_norm: is missing, must be finite and above 0");

  spec = GlobalNormSpec(1.0);
  spec.mutable_global_norm()->set_order(static_cast<v1::NormOrder>(9));
  EXPECT_EQ(NewClipPolicy(spec).status().message(),
            "global_norm.order: got unknown value 9, must be NORM_ORDER_L1, NORM_ORDER_L2 or "
            "NORM_ORDER_INF");

  spec = GlobalNormSpec(1.0);
  spec.mutable_global_norm()->set_convention(static_cast<v1::NormConvention>(7));
  EXPECT_EQ(NewClipPolicy(spec).status().message(),
            "global_norm.convention: got unknown value 7, must be NORM_CONVENTION_TORCH or "
            "NORM_CONVENTION_EXACT");
}

}  // namespace
}  // namespace gradwatch::clip
