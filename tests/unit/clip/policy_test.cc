#include "server/clip/policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/testing/allocation_counter.h"
#include "tests/unit/clip/gradients.h"
#include "tests/unit/clip/specs.h"

namespace gradwatch::clip {
namespace {

v1::Clipping Clipping(const std::vector<v1::ClipPolicy>& policies) {
  v1::Clipping clipping;
  for (const v1::ClipPolicy& policy : policies) *clipping.add_policies() = policy;
  return clipping;
}

TEST(NewClipPolicyTest, NamesArePartOfTheApi) {
  EXPECT_EQ(Policy(ValueSpec(-1.0, 1.0))->name(), "value");
  EXPECT_EQ(Policy(ParameterNormSpec(1.0))->name(), "parameter_norm");
  EXPECT_EQ(Policy(GlobalNormSpec(1.0))->name(), "global_norm");
}

TEST(NewClipPolicyTest, RefusesAPolicyWithoutKind) {
  const auto policy = NewClipPolicy(v1::ClipPolicy());

  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(policy.status().message(),
            "kind: is missing, must be one of value, parameter_norm, global_norm");
}

TEST(ClipChainTest, WithoutPoliciesNothingIsClipped) {
  const auto chain = ClipChain::New(v1::Clipping());
  ASSERT_TRUE(chain.ok());
  Gradients<float> gradients({{1e10f, 0}});

  EXPECT_TRUE((*chain)->Clip(gradients.context()).empty());

  EXPECT_FALSE((*chain)->clipped());
  EXPECT_EQ(gradients.values()[0][0], 1e10f);
}

TEST(ClipChainTest, AppliesPoliciesInOrder) {
  const auto chain = ClipChain::New(Clipping(
      {ValueSpec(-4.0, 4.0), GlobalNormSpec(1.0, v1::NORM_ORDER_INF, v1::NORM_CONVENTION_EXACT)}));
  ASSERT_TRUE(chain.ok());
  Gradients<double> gradients({{100, 2}});

  const absl::Span<const PolicyReport> reports = (*chain)->Clip(gradients.context());

  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].clamped, 1);
  EXPECT_EQ(reports[1].norm, 4.0) << "of what the first policy left";
  EXPECT_EQ(reports[1].coefficient, 0.25);
  EXPECT_TRUE((*chain)->clipped());
  EXPECT_EQ(gradients.values()[0], (std::vector<double>{1.0, 0.5}));
}

TEST(ClipChainTest, ClippedSaysWhatTheLastCallDid) {
  const auto chain = ClipChain::New(Clipping({GlobalNormSpec(1.0)}));
  Gradients<double> large({{2, 0}}), small({{0.5, 0}});

  (*chain)->Clip(large.context());
  EXPECT_TRUE((*chain)->clipped());
  (*chain)->Clip(small.context());
  EXPECT_FALSE((*chain)->clipped());
}

TEST(ClipChainTest, ReportsLeaveAbsentWhatDoesNotExist) {
  const auto chain = ClipChain::New(Clipping({ValueSpec(-1.0, 1.0), GlobalNormSpec(0.5)}));
  Gradients<double> gradients({{5, 1}});
  (*chain)->Clip(gradients.context());
  v1::ClipReport value, global;
  value.set_norm(99.0);  // Left over from another step.

  (*chain)->FillReport(0, &value);
  (*chain)->FillReport(1, &global);

  EXPECT_EQ(value.policy(), "value");
  EXPECT_FALSE(value.has_norm());
  EXPECT_FALSE(value.has_coefficient());
  EXPECT_EQ(value.clamped(), 1);
  EXPECT_TRUE(value.has_cosine());
  EXPECT_EQ(global.policy(), "global_norm");
  EXPECT_DOUBLE_EQ(global.norm(), std::sqrt(2.0));
  EXPECT_TRUE(global.has_coefficient());
  EXPECT_FALSE(global.has_cosine());
}

TEST(ClipChainTest, ErrorsSayWhichPolicy) {
  const auto chain = ClipChain::New(Clipping({GlobalNormSpec(1.0), ParameterNormSpec(-1.0)}));

  EXPECT_EQ(chain.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(chain.status().message(),
            "clipping.policies[1].parameter_norm.max_norm: got -1, must be finite and above 0");
}

TEST(ClipChainTest, RefusesMoreThanEightPolicies) {
  const auto eight = ClipChain::New(Clipping(std::vector(8, GlobalNormSpec(1.0))));
  const auto nine = ClipChain::New(Clipping(std::vector(9, GlobalNormSpec(1.0))));

  EXPECT_TRUE(eight.ok());
  EXPECT_EQ(nine.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(nine.status().message(), "clipping.policies: got 9 policies, at most 8 are allowed");
}

TEST(ClipChainTest, StatesGoRoundAndOthersAreRefused) {
  const auto chain = ClipChain::New(Clipping({GlobalNormSpec(1.0), ValueSpec(-1.0, 1.0)}));

  const std::vector<std::string> states = (*chain)->SaveStates();

  EXPECT_EQ(states.size(), 2u);
  EXPECT_TRUE((*chain)->LoadStates(states).ok());
  EXPECT_EQ((*chain)->LoadStates({""}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*chain)->LoadStates({"", "x"}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ClipChainTest, ClippingAllocatesNothing) {
  const auto chain = ClipChain::New(Clipping({ValueSpec(-1.0, 1.0), GlobalNormSpec(1.0)}));
  Gradients<float> gradients(RandomGradients<float>(1, 1.0));
  const ClipContext<float> context = gradients.context();

  const int64_t before = testing::Allocations();
  (*chain)->Clip(context);
  const int64_t after = testing::Allocations();

  EXPECT_EQ(after, before);
}

// --- against PyTorch -------------------------------------------------------------------------

using Json = nlohmann::json;

double NumberOf(const Json& json) {
  if (json.is_number()) return json.get<double>();
  const std::string& text = json.get_ref<const std::string&>();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  return text == "inf" ? std::numeric_limits<double>::infinity()
                       : -std::numeric_limits<double>::infinity();
}

template <typename S>
std::vector<std::vector<S>> TensorsOf(const Json& json) {
  std::vector<std::vector<S>> tensors;
  for (const Json& tensor : json) {
    tensors.emplace_back();
    for (const Json& value : tensor) tensors.back().push_back(static_cast<S>(NumberOf(value)));
  }
  return tensors;
}

v1::ClipPolicy SpecOf(const Json& fixture) {
  if (fixture["kind"] == "value") {
    return ValueSpec(-fixture["bound"].get<double>(), fixture["bound"].get<double>());
  }
  const std::string order = fixture["order"];
  return GlobalNormSpec(fixture["max_norm"], order == "1.0"   ? v1::NORM_ORDER_L1
                                             : order == "2.0" ? v1::NORM_ORDER_L2
                                                              : v1::NORM_ORDER_INF);
}

template <typename S>
void ExpectAgrees(const Json& fixture) {
  SCOPED_TRACE(fixture["name"].get<std::string>());
  // PyTorch sums 43 entries in the gradient's precision: that many roundings of half an epsilon
  // at most, and one each for the root, the coefficient and the product.
  constexpr double kTolerance = 24 * static_cast<double>(std::numeric_limits<S>::epsilon());
  Gradients<S> gradients(TensorsOf<S>(fixture["before"]));

  const PolicyReport report = Policy(SpecOf(fixture))->Clip(gradients.context());

  if (fixture.contains("norm")) {
    EXPECT_NEAR(*report.norm, fixture["norm"], kTolerance * *report.norm);
  }
  const auto expected = TensorsOf<S>(fixture["after"]);
  for (size_t i = 0; i < expected.size(); ++i) {
    for (size_t j = 0; j < expected[i].size(); ++j) {
      const double got = gradients.values()[i][j], want = expected[i][j];
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(got));
      } else {
        EXPECT_NEAR(got, want, kTolerance * std::abs(want)) << "tensor " << i << ", entry " << j;
      }
    }
  }
}

TEST(ClipGoldenTest, AgreesWithPyTorch) {
  std::ifstream file(GRADWATCH_SOURCE_DIR "/tests/golden/clip.json");
  const Json fixtures = Json::parse(file);

  ASSERT_EQ(fixtures.size(), 34u);
  for (const Json& fixture : fixtures) {
    if (fixture["precision"] == "float32") {
      ExpectAgrees<float>(fixture);
    } else {
      ExpectAgrees<double>(fixture);
    }
  }
}

}  // namespace
}  // namespace gradwatch::clip
