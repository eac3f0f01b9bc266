#include "server/version_text.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch {
namespace {

using Features = absl::flat_hash_set<absl::string_view>;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const Features& V2() {
  static const auto& features = *new Features({"SSE3", "SSSE3", "SSE4.1", "SSE4.2", "POPCNT"});
  return features;
}

Features V3() {
  Features features = V2();
  features.insert({"AVX2", "FMA", "BMI1", "BMI2"});
  return features;
}

TEST(VersionTextTest, NamesTheLevelOfTheEngineThatWasLoaded) {
  EXPECT_THAT(VersionText(), ::testing::ContainsRegex("\nengine [a-z0-9_-]+\n"));
}

TEST(CheckCpuTest, AcceptsTheCpuThatRunsThis) { EXPECT_TRUE(CheckCpu().ok()); }

TEST(CheckLevelTest, AcceptsACpuThatHasTheLevelOrMore) {
  EXPECT_TRUE(CheckLevel("x86-64-v2", V2()).ok());
  EXPECT_TRUE(CheckLevel("x86-64-v2", V3()).ok());
  EXPECT_TRUE(CheckLevel("x86-64-v3", V3()).ok());
  EXPECT_TRUE(CheckLevel("aarch64", {}).ok());
}

TEST(CheckLevelTest, NamesWhatAnOldCpuLacks) {
  const absl::Status status = CheckLevel("x86-64-v2", {"SSE3", "SSSE3", "SSE4.1"});

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("at least x86-64-v2; missing: SSE4.2, POPCNT; use a newer machine"),
                    Not(HasSubstr("GRADWATCH_ENGINE_LEVELS"))));
}

TEST(CheckLevelTest, SaysHowToBuildForACpuWithoutAvx2) {
  const absl::Status status = CheckLevel("x86-64-v3", V2());

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("missing: AVX2, FMA, BMI1, BMI2"),
                    HasSubstr("-DGRADWATCH_ENGINE_LEVELS=\"x86-64-v2;x86-64-v3\"")));
}

TEST(CheckLevelTest, TellsAvx512FromAvx2) {
  EXPECT_THAT(std::string(CheckLevel("x86-64-v4", V3()).message()), HasSubstr("AVX512F"));
}

}  // namespace
}  // namespace gradwatch
