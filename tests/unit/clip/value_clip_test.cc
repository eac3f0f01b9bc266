#include "server/clip/value_clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/clip/gradients.h"
#include "tests/unit/clip/specs.h"

namespace gradwatch::clip {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string RefusalOf(std::optional<double> minimum, std::optional<double> maximum) {
  const auto policy = NewClipPolicy(ValueSpec(minimum, maximum));
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(policy.status().message());
}

TEST(ValueClipTest, MinimumAndMaximumActOnTheirOwnSides) {
  Gradients<double> gradients({{-3, -0.25, 0, 1.5, 5}});

  const PolicyReport report = Policy(ValueSpec(-0.5, 2.0))->Clip(gradients.context());

  EXPECT_EQ(gradients.values()[0], (std::vector<double>{-0.5, -0.25, 0, 1.5, 2}));
  EXPECT_EQ(report.clamped, 2);
  EXPECT_TRUE(report.changed);
  EXPECT_FALSE(report.norm.has_value());
  EXPECT_FALSE(report.coefficient.has_value());
}

TEST(ValueClipTest, AMissingBoundHoldsNothingBack) {
  Gradients<float> above({{-7, 7, -kInf}});
  Gradients<float> below({{-7, 7, kInf}});

  EXPECT_EQ(Policy(ValueSpec(std::nullopt, 1.0))->Clip(above.context()).clamped, 1);
  EXPECT_EQ(Policy(ValueSpec(-1.0, std::nullopt))->Clip(below.context()).clamped, 1);

  EXPECT_EQ(above.values()[0], (std::vector<float>{-7, 1, -kInf}));
  EXPECT_EQ(below.values()[0], (std::vector<float>{-1, 7, kInf}));
}

TEST(ValueClipTest, EntriesOnTheBoundAreNotClamped) {
  Gradients<double> gradients({{1, -1}});

  const PolicyReport report = Policy(ValueSpec(-1.0, 1.0))->Clip(gradients.context());

  EXPECT_EQ(report.clamped, 0);
  EXPECT_FALSE(report.changed);
  EXPECT_EQ(report.cosine, 1.0);
}

TEST(ValueClipTest, CosineSaysHowFarTheDirectionTurned) {
  // (10, 1) becomes (1, 1).
  Gradients<double> gradients({{10}, {1}});

  const PolicyReport report = Policy(ValueSpec(-1.0, 1.0))->Clip(gradients.context());

  EXPECT_NEAR(*report.cosine, 11.0 / (std::sqrt(101.0) * std::sqrt(2.0)), 1e-15);
}

TEST(ValueClipTest, NothingLeftHasNoCosine) {
  Gradients<double> gradients({{-10, -1}});

  const PolicyReport report = Policy(ValueSpec(0.0, 1.0))->Clip(gradients.context());

  EXPECT_EQ(report.clamped, 2);
  EXPECT_FALSE(report.cosine.has_value());
}

TEST(ValueClipTest, NanStaysAndInfinityIsClamped) {
  Gradients<float> gradients({{kNan, kInf, -5}});

  const PolicyReport report = Policy(ValueSpec(-1.0, 1.0))->Clip(gradients.context());

  EXPECT_TRUE(std::isnan(gradients.values()[0][0]));
  EXPECT_EQ(gradients.values()[0][1], 1.0f);
  EXPECT_EQ(gradients.values()[0][2], -1.0f);
  EXPECT_EQ(report.clamped, 2);
  EXPECT_FALSE(report.cosine.has_value());
}

TEST(ValueClipTest, BoundsThatFloatCannotHoldAreTheNearestThatItCan) {
  Gradients<float> gradients({{kInf, 1, -1}});

  const PolicyReport report = Policy(ValueSpec(-1e300, 0.1))->Clip(gradients.context());

  EXPECT_EQ(gradients.values()[0], (std::vector<float>{0.1f, 0.1f, -1}));
  EXPECT_EQ(report.clamped, 2);
}

TEST(ValueClipTest, AgreesWithTheDefinitionAtEverySize) {
  RandomStream random(4, 2, 0);
  for (size_t size = 0; size < 40; ++size) {
    std::vector<double> values, expected;
    int64_t clamped = 0;
    for (size_t i = 0; i < size; ++i) {
      values.push_back(random.NextNormal());
      expected.push_back(std::min(std::max(values.back(), -0.3), 0.7));
      clamped += expected.back() != values.back() ? 1 : 0;
    }
    Gradients<double> gradients({values});

    const PolicyReport report = Policy(ValueSpec(-0.3, 0.7))->Clip(gradients.context());

    EXPECT_EQ(gradients.values()[0], expected);
    EXPECT_EQ(report.clamped, clamped);
  }
}

TEST(ValueClipTest, RefusesBadSettings) {
  EXPECT_EQ(RefusalOf(std::nullopt, std::nullopt), "value: needs a minimum, a maximum or both");
  EXPECT_EQ(RefusalOf(0.5, 1.0), "value.minimum: got 0.5, must be finite and at most 0");
  EXPECT_EQ(RefusalOf(-1.0, -0.5), "value.maximum: got -0.5, must be finite and at least 0");
  EXPECT_EQ(RefusalOf(std::nan(""), 1.0), "value.minimum: got nan, must be finite and at most 0");
  EXPECT_EQ(RefusalOf(-1.0, INFINITY), "value.maximum: got inf, must be finite and at least 0");
  EXPECT_EQ(RefusalOf(0.0, 0.0),
            "value: minimum and maximum are both 0, which leaves no gradient; one must differ "
            "from 0");
}

}  // namespace
}  // namespace gradwatch::clip
