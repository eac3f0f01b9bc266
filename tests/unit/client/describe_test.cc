#include "client/cli/describe.h"

#include <string>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Described(const v1::StepStats& stats) {
  v1::Job job;
  job.set_name("jobs/a");
  *job.mutable_latest_stats() = stats;
  return DescribeJob(job, absl::UnixEpoch());
}

TEST(DescribeTest, TellsTheNoiseOfTheNewestStepAndItsScaleWhereThereIsOne) {
  v1::StepStats stats;
  const std::string without = Described(stats);
  stats.mutable_noise()->set_signal_to_noise(0.25);
  const std::string noise_only = Described(stats);
  stats.mutable_noise()->set_noise_scale(48.5);

  EXPECT_THAT(without, Not(HasSubstr("noise")));
  EXPECT_THAT(noise_only,
              HasSubstr("noise         scale too large to tell, signal to noise 0.25\n"));
  EXPECT_THAT(Described(stats), HasSubstr("noise         scale 48.5 rows, signal to noise 0.25\n"));
}

TEST(DescribeTest, TellsTheCurvatureBesideWhatIsTooMuchForTheRate) {
  v1::StepStats stats;
  const std::string without = Described(stats);
  stats.set_step_curvature(30.0);
  stats.set_learning_rate(0.125);

  EXPECT_THAT(without, Not(HasSubstr("curvature")));
  EXPECT_THAT(Described(stats),
              HasSubstr("curvature     30 along the last step, overshoots above 16\n"));
}

}  // namespace
}  // namespace gradwatch::cli
