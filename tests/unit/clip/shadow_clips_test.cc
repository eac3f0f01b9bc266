#include "server/clip/shadow_clips.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/unit/clip/gradients.h"
#include "tests/unit/clip/specs.h"

namespace gradwatch::clip {
namespace {

using ::testing::HasSubstr;
using Specs = google::protobuf::RepeatedPtrField<v1::ClipPolicy>;
using Values = std::vector<std::vector<float>>;
using Reports = google::protobuf::RepeatedPtrField<v1::ShadowReport>;

Specs SpecsOf(const std::vector<v1::ClipPolicy>& policies) {
  return Specs(policies.begin(), policies.end());
}

TEST(ShadowClipsTest, TellsWhatEachWouldHaveDoneToTheSameGradient) {
  const auto shadows = *ShadowClips::New(SpecsOf(
      {GlobalNormSpec(2.5, v1::NORM_ORDER_L2, v1::NORM_CONVENTION_EXACT),
       GlobalNormSpec(10.0, v1::NORM_ORDER_L2, v1::NORM_CONVENTION_EXACT),
       GlobalNormSpec(3.5, v1::NORM_ORDER_L1, v1::NORM_CONVENTION_EXACT), ValueSpec(-1.0, 1.0)}));
  const Gradients<float> gradients(Values{{3.0f}, {4.0f, 0.0f}});
  Reports reports;

  shadows->Measure(gradients.context(), &reports);

  ASSERT_EQ(reports.size(), 4);
  EXPECT_TRUE(reports[0].clipped());
  EXPECT_DOUBLE_EQ(reports[0].coefficient(), 0.5);
  EXPECT_FALSE(reports[0].has_norm()) << "every step has it already";
  EXPECT_FALSE(reports[1].clipped());
  EXPECT_EQ(reports[1].coefficient(), 1.0);
  EXPECT_DOUBLE_EQ(reports[2].coefficient(), 0.5) << "not of what the first would have left";
  EXPECT_DOUBLE_EQ(reports[2].norm(), 7.0);
  EXPECT_TRUE(reports[3].clipped());
  EXPECT_EQ(reports[3].clamped(), 2);
  EXPECT_NEAR(reports[3].cosine(), 7.0 / (5.0 * std::sqrt(2.0)), 1e-12);
  EXPECT_FALSE(reports[3].has_coefficient());
  EXPECT_EQ(gradients.values(), (Values{{3.0f}, {4.0f, 0.0f}}));
}

// The caller's norms are taken as they are: with others than the true ones the answer follows them,
// so the entries are not read.
TEST(ShadowClipsTest, NormsThatTheCallerKnowsCostNoPass) {
  const auto shadows = *ShadowClips::New(SpecsOf({GlobalNormSpec(1.0), ParameterNormSpec(1.0)}));
  const Gradients<float> gradients(Values{{3.0f}, {4.0f}});
  const double norms[] = {0.3, 0.4};
  ClipContext<float> context = gradients.context();
  context.norms = norms;
  Reports reports;

  shadows->Measure(context, &reports);

  EXPECT_FALSE(reports[0].clipped());
  EXPECT_FALSE(reports[1].clipped());
  EXPECT_EQ(reports[1].norm(), 0.4);
}

TEST(ShadowClipsTest, LeavesTheCallersFactorAlone) {
  const auto shadows = *ShadowClips::New(SpecsOf({GlobalNormSpec(0.1)}));
  const Gradients<float> gradients(Values{{3.0f}, {4.0f}});
  double factor = 1.0;
  ClipContext<float> context = gradients.context();
  context.factor = &factor;
  Reports reports;

  shadows->Measure(context, &reports);

  EXPECT_TRUE(reports[0].clipped());
  EXPECT_EQ(factor, 1.0);
}

TEST(ShadowClipsTest, NamesTheFieldThatIsWrong) {
  const absl::Status bad =
      ShadowClips::New(SpecsOf({GlobalNormSpec(1.0), GlobalNormSpec(-1.0)})).status();
  const absl::Status many =
      ShadowClips::New(SpecsOf(std::vector<v1::ClipPolicy>(9, GlobalNormSpec(1.0)))).status();

  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.message()), HasSubstr("shadow_clips[1].global_norm.max_norm"));
  EXPECT_EQ(many.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(many.message()), HasSubstr("at most 8"));
}

}  // namespace
}  // namespace gradwatch::clip
