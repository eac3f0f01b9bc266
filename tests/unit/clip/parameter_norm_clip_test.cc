#include "server/clip/parameter_norm_clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/clip/gradients.h"
#include "tests/unit/clip/specs.h"

namespace gradwatch::clip {
namespace {

constexpr auto kExact = v1::NORM_CONVENTION_EXACT;

TEST(ParameterNormClipTest, ScalesEachTensorOnItsOwn) {
  Gradients<double> gradients({{30, 40}, {0.3, 0.4}, {}, {6, 8}});

  const PolicyReport report =
      Policy(ParameterNormSpec(5.0, v1::NORM_ORDER_L2, kExact))->Clip(gradients.context());

  EXPECT_EQ(report.norm, 50.0) << "the largest";
  EXPECT_EQ(report.coefficient, 0.1) << "the smallest";
  EXPECT_EQ(report.clamped, 2);
  EXPECT_TRUE(report.changed);
  EXPECT_DOUBLE_EQ(gradients.values()[0][0], 3.0);
  EXPECT_DOUBLE_EQ(gradients.values()[0][1], 4.0);
  EXPECT_EQ(gradients.values()[1], (std::vector<double>{0.3, 0.4}));
  EXPECT_DOUBLE_EQ(gradients.values()[3][0], 3.0);
}

TEST(ParameterNormClipTest, CosineOfTwoTensors) {
  // (3, 4) becomes (0.3, 0.4), (1) stays: dot 3.5, lengths sqrt(26) and sqrt(1.25).
  Gradients<double> gradients({{3, 4}, {1}});

  const PolicyReport report =
      Policy(ParameterNormSpec(0.5, v1::NORM_ORDER_L2, kExact))->Clip(gradients.context());

  // (1) has the norm 1 and becomes 0.5.
  EXPECT_NEAR(*report.cosine, (2.5 + 0.5) / (std::sqrt(26.0) * std::sqrt(0.5)), 1e-15);
}

TEST(ParameterNormClipTest, OneTensorKeepsItsDirection) {
  Gradients<double> gradients({{3, 4}});

  const PolicyReport report = Policy(ParameterNormSpec(0.5))->Clip(gradients.context());

  EXPECT_DOUBLE_EQ(*report.cosine, 1.0);
}

TEST(ParameterNormClipTest, OtherOrdersReportTheirNormAndTheCosine) {
  Gradients<double> gradients({{3, -4}, {1}});

  const PolicyReport report =
      Policy(ParameterNormSpec(3.5, v1::NORM_ORDER_L1, kExact))->Clip(gradients.context());

  EXPECT_EQ(report.norm, 7.0);
  EXPECT_EQ(report.coefficient, 0.5);
  EXPECT_NEAR(*report.cosine, (12.5 + 1) / (std::sqrt(26.0) * std::sqrt(6.25 + 1)), 1e-15);
}

TEST(ParameterNormClipTest, ATensorThatIsNotFiniteLeavesTheOthersToTheirs) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Gradients<float> gradients({{nan, 7}, {30, 40}});

  const PolicyReport report =
      Policy(ParameterNormSpec(5.0, v1::NORM_ORDER_L2, kExact))->Clip(gradients.context());

  EXPECT_TRUE(std::isnan(*report.norm));
  EXPECT_EQ(report.coefficient, 0.1);
  EXPECT_EQ(report.clamped, 1);
  EXPECT_FALSE(report.cosine.has_value());
  EXPECT_TRUE(std::isnan(gradients.values()[0][0]));
  EXPECT_EQ(gradients.values()[0][1], 7.0f);
  EXPECT_FLOAT_EQ(gradients.values()[1][0], 3.0f);
}

TEST(ParameterNormClipTest, RefusesBadSettings) {
  EXPECT_EQ(NewClipPolicy(ParameterNormSpec(-2.0)).status().message(),
            "parameter_norm.max_norm: got -2, must be finite and above 0");
  EXPECT_EQ(NewClipPolicy(ParameterNormSpec(-2.0)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradwatch::clip
