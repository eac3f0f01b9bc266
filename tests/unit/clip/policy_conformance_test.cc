// What every policy must do, whatever it is.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "server/clip/policy.h"
#include "tests/testing/allocation_counter.h"
#include "tests/unit/clip/gradients.h"
#include "tests/unit/clip/specs.h"

namespace gradwatch::clip {
namespace {

struct NamedSpec {
  std::string name;
  v1::ClipPolicy spec;
};

// Every policy with a threshold of about 1.
std::vector<NamedSpec> AllSpecs() {
  std::vector<NamedSpec> specs = {{"ValueBoth", ValueSpec(-1.0, 1.0)},
                                  {"ValueMinimum", ValueSpec(-1.0, std::nullopt)},
                                  {"ValueMaximum", ValueSpec(std::nullopt, 1.0)},
                                  {"ValueZeroToOne", ValueSpec(0.0, 1.0)}};
  const std::pair<std::string, v1::NormOrder> orders[] = {
      {"L1", v1::NORM_ORDER_L1}, {"L2", v1::NORM_ORDER_L2}, {"Inf", v1::NORM_ORDER_INF}};
  const std::pair<std::string, v1::NormConvention> conventions[] = {
      {"Torch", v1::NORM_CONVENTION_TORCH}, {"Exact", v1::NORM_CONVENTION_EXACT}};
  for (const auto& [order_name, order] : orders) {
    for (const auto& [convention_name, convention] : conventions) {
      specs.push_back(
          {"Global" + order_name + convention_name, GlobalNormSpec(1.0, order, convention)});
      specs.push_back(
          {"Parameter" + order_name + convention_name, ParameterNormSpec(1.0, order, convention)});
    }
  }
  return specs;
}

// Those that look at a norm.
std::vector<NamedSpec> NormSpecs() {
  std::vector<NamedSpec> specs = AllSpecs();
  std::erase_if(specs, [](const NamedSpec& spec) { return spec.spec.has_value(); });
  return specs;
}

void PrintTo(const NamedSpec& spec, std::ostream* out) { *out << spec.spec.ShortDebugString(); }

template <typename S>
bool SameBits(const std::vector<std::vector<S>>& a, const std::vector<std::vector<S>>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return false;
    if (a[i].empty()) continue;
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(S)) != 0) return false;
  }
  return a.size() == b.size();
}

class PolicyConformanceTest : public ::testing::TestWithParam<NamedSpec> {
 protected:
  std::unique_ptr<ClipPolicy> policy() const { return Policy(GetParam().spec); }

  // Runs `check` in both precisions.
  template <typename F>
  static void InBothPrecisions(F check) {
    check(float{});
    check(double{});
  }
};

class NormPolicyConformanceTest : public PolicyConformanceTest {};

TEST_P(PolicyConformanceTest, NothingIsNotTouched) {
  InBothPrecisions([this]<typename S>(S) {
    for (const std::vector<std::vector<S>>& values :
         {std::vector<std::vector<S>>{}, {{}}, {{}, {}}, {{0, 0, 0}, {}}}) {
      Gradients<S> gradients(values);

      const PolicyReport report = policy()->Clip(gradients.context());

      EXPECT_FALSE(report.changed);
      EXPECT_EQ(report.clamped, 0);
      EXPECT_EQ(report.norm.value_or(0.0), 0.0);
      EXPECT_EQ(report.coefficient.value_or(1.0), 1.0);
      EXPECT_FALSE(report.cosine.has_value()) << "zero has no direction";
      EXPECT_TRUE(SameBits(gradients.values(), values));
    }
  });
}

TEST_P(PolicyConformanceTest, WhatIsBelowTheThresholdKeepsItsBits) {
  InBothPrecisions([this]<typename S>(S) {
    auto values = RandomGradients<S>(7, -6);
    // One policy clamps whatever is negative.
    for (auto& tensor : values) {
      for (S& value : tensor) value = std::abs(value);
    }
    Gradients<S> gradients(values);

    const PolicyReport report = policy()->Clip(gradients.context());

    EXPECT_FALSE(report.changed);
    EXPECT_EQ(report.clamped, 0);
    EXPECT_EQ(report.coefficient.value_or(1.0), 1.0);
    EXPECT_EQ(report.cosine.value_or(1.0), 1.0);
    EXPECT_TRUE(SameBits(gradients.values(), values));
  });
}

TEST_P(PolicyConformanceTest, ReportsAChangeExactlyWhenThereIsOne) {
  InBothPrecisions([this]<typename S>(S) {
    for (int seed = 0; seed < 20; ++seed) {
      const auto values = RandomGradients<S>(static_cast<uint64_t>(seed), seed / 4.0 - 4.0);
      Gradients<S> gradients(values);

      const PolicyReport report = policy()->Clip(gradients.context());

      EXPECT_EQ(report.changed, !SameBits(gradients.values(), values)) << "seed " << seed;
    }
  });
}

TEST_P(PolicyConformanceTest, NoEntryGrowsOrChangesSign) {
  InBothPrecisions([this]<typename S>(S) {
    for (const double exponent : {-3.0, 0.0, 3.0, 30.0}) {
      const auto values = RandomGradients<S>(11, exponent);
      Gradients<S> gradients(values);

      policy()->Clip(gradients.context());

      for (size_t i = 0; i < values.size(); ++i) {
        for (size_t j = 0; j < values[i].size(); ++j) {
          const S before = values[i][j], after = gradients.values()[i][j];
          ASSERT_LE(std::abs(after), std::abs(before));
          ASSERT_GE(after * before, S(0));
        }
      }
    }
  });
}

TEST_P(PolicyConformanceTest, SameGradientsGiveSameBits) {
  InBothPrecisions([this]<typename S>(S) {
    Gradients<S> first(RandomGradients<S>(3, 1.0)), second(RandomGradients<S>(3, 1.0));

    const PolicyReport first_report = policy()->Clip(first.context(0));
    const PolicyReport second_report = policy()->Clip(second.context(1000));

    EXPECT_TRUE(SameBits(first.values(), second.values()));
    EXPECT_EQ(first_report.norm, second_report.norm);
    EXPECT_EQ(first_report.coefficient, second_report.coefficient);
    EXPECT_EQ(first_report.cosine, second_report.cosine);
  });
}

TEST_P(PolicyConformanceTest, CosineIsTheOneBetweenBeforeAndAfter) {
  InBothPrecisions([this]<typename S>(S) {
    const auto values = RandomGradients<S>(5, 0.0);
    Gradients<S> gradients(values);

    const PolicyReport report = policy()->Clip(gradients.context());

    if (!report.cosine.has_value()) return;
    long double dot = 0.0L, before = 0.0L, after = 0.0L;
    for (size_t i = 0; i < values.size(); ++i) {
      for (size_t j = 0; j < values[i].size(); ++j) {
        const long double x = values[i][j], y = gradients.values()[i][j];
        dot += x * y;
        before += x * x;
        after += y * y;
      }
    }
    // The rounding of the clipped entries moves the cosine by less than their precision.
    EXPECT_NEAR(*report.cosine, static_cast<double>(dot / std::sqrt(before * after)),
                std::numeric_limits<S>::epsilon());
    EXPECT_LT(*report.cosine, 1.0);
  });
}

TEST_P(NormPolicyConformanceTest, ANormThatIsNotFiniteChangesNothing) {
  InBothPrecisions([this]<typename S>(S) {
    for (const S bad : {std::numeric_limits<S>::infinity(), -std::numeric_limits<S>::infinity(),
                        std::numeric_limits<S>::quiet_NaN()}) {
      const std::vector<std::vector<S>> values = {{30, bad, 40}};
      Gradients<S> gradients(values);

      const PolicyReport report = policy()->Clip(gradients.context());

      EXPECT_FALSE(report.changed);
      EXPECT_EQ(report.coefficient, 1.0);
      ASSERT_TRUE(report.norm.has_value());
      EXPECT_EQ(std::isnan(*report.norm), std::isnan(bad));
      EXPECT_FALSE(std::isfinite(*report.norm));
      EXPECT_FALSE(report.cosine.has_value());
      EXPECT_TRUE(SameBits(gradients.values(), values));
    }
  });
}

TEST_P(PolicyConformanceTest, MeasuringTellsWhatClippingDoesAndChangesNothing) {
  InBothPrecisions([this]<typename S>(S) {
    for (const double exponent : {-6.0, -1.0, 0.0, 2.0, 30.0}) {
      const auto values = RandomGradients<S>(13, exponent);
      Gradients<S> measured(values), clipped(values);

      const PolicyReport before = policy()->Measure(measured.context());
      const PolicyReport after = policy()->Clip(clipped.context());

      EXPECT_TRUE(SameBits(measured.values(), values));
      EXPECT_EQ(before.norm, after.norm);
      EXPECT_EQ(before.coefficient, after.coefficient);
      EXPECT_EQ(before.clamped, after.clamped);
      EXPECT_EQ(before.cosine, after.cosine);
      EXPECT_EQ(before.changed, after.changed);
    }
  });
}

TEST_P(PolicyConformanceTest, ClippingAllocatesNothing) {
  InBothPrecisions([this]<typename S>(S) {
    Gradients<S> gradients(RandomGradients<S>(9, 2.0));
    const std::unique_ptr<ClipPolicy> subject = policy();
    const ClipContext<S> context = gradients.context();

    const int64_t before = testing::Allocations();
    subject->Clip(context);
    const int64_t after = testing::Allocations();

    EXPECT_EQ(after, before);
  });
}

TEST_P(PolicyConformanceTest, StateGoesRoundAndForeignBytesAreRefused) {
  const std::unique_ptr<ClipPolicy> first = policy(), second = policy();

  const std::string state = first->SaveState();

  EXPECT_TRUE(second->LoadState(state).ok());
  EXPECT_EQ(second->SaveState(), state);
  EXPECT_EQ(second->LoadState("not a state").code(), absl::StatusCode::kInvalidArgument);
}

std::string NameOf(const ::testing::TestParamInfo<NamedSpec>& spec) { return spec.param.name; }

INSTANTIATE_TEST_SUITE_P(All, PolicyConformanceTest, ::testing::ValuesIn(AllSpecs()), NameOf);
INSTANTIATE_TEST_SUITE_P(All, NormPolicyConformanceTest, ::testing::ValuesIn(NormSpecs()), NameOf);

}  // namespace
}  // namespace gradwatch::clip
