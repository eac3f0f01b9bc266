#include "client/cli/advise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

// Norms in `bins` quarters of an octave from 1/4 on, bin i with i steps.
v1::ClipAdvice Advice(int bins) {
  v1::ClipAdvice advice;
  advice.set_job("jobs/x");
  advice.set_basis(v1::ClipAdvice::BASIS_STEP_SIZE);
  advice.set_reason("With SGD the threshold sets the size of most steps.");
  advice.mutable_recommended()->set_max_norm(0.5);
  advice.mutable_recommended()->set_clip_rate(0.9);
  advice.mutable_recommended()->set_mean_coefficient(0.4);
  advice.mutable_alternative()->set_max_norm(1);
  advice.mutable_current()->set_max_norm(1e4);
  v1::NormDistribution* norms = advice.mutable_window();
  norms->set_last_step(499);
  norms->set_steps(500);
  norms->set_p50(1.25);
  for (int i = 0; i < bins; ++i) {
    v1::NormBin* bin = norms->add_bins();
    bin->set_lower(0.25 * std::exp2(i / 4.0));
    bin->set_upper(0.25 * std::exp2((i + 1) / 4.0));
    bin->set_steps(i);
  }
  advice.set_allowed_min(0.6);
  advice.set_allowed_max(12);
  advice.set_value_threshold(0.03125);
  advice.add_assumptions("the loss is a mean");
  advice.add_warnings("only 120 steps");
  return advice;
}

TEST(NormPictureTest, DrawsABarForEachStretchAndMarksTheThresholds) {
  const std::vector<std::string> lines = Lines(NormPicture(Advice(12), {80, true}));

  ASSERT_EQ(lines.size(), 12u);
  EXPECT_THAT(lines[0], Not(HasSubstr("█"))) << "no step";
  EXPECT_THAT(lines[1], HasSubstr("█ 1"));
  EXPECT_THAT(lines[4], HasSubstr("◄ advised 0.5"));
  EXPECT_THAT(lines[8], HasSubstr("◄ or 1"));
  EXPECT_THAT(lines[11], HasSubstr("now above, 1e+04"));
}

TEST(NormPictureTest, BarsAreAsLongAsTheirSteps) {
  const std::vector<std::string> lines = Lines(NormPicture(Advice(9), {80, false}));

  const auto length = [](const std::string& line) {
    return std::count(line.begin(), line.end(), '#');
  };
  // Each is rounded to whole columns.
  EXPECT_NEAR(static_cast<double>(length(lines[8])), 2.0 * static_cast<double>(length(lines[4])),
              1.0);
  EXPECT_GT(length(lines[8]), 20);
}

TEST(NormPictureTest, FitsTheTerminalHoweverFarTheNormsReach) {
  for (const int bins : {1, 16, 17, 100, 2000}) {
    for (const size_t columns : {60u, 80u, 120u}) {
      for (const bool unicode : {true, false}) {
        v1::ClipAdvice advice = Advice(bins);
        advice.mutable_window()->mutable_bins(bins - 1)->set_steps(1'000'000);

        const std::vector<std::string> lines = Lines(NormPicture(advice, {columns, unicode}));

        EXPECT_LE(lines.size(), 16u);
        for (const std::string& line : lines) EXPECT_LT(DisplayWidth(line), columns) << line;
      }
    }
  }
}

TEST(NormPictureTest, IsPlainWithoutUnicode) {
  const std::string picture = NormPicture(Advice(12), {80, false});

  for (const char c : picture) EXPECT_GE(c, 0) << picture;
  EXPECT_THAT(picture, HasSubstr("< advised 0.5"));
}

TEST(DescribeAdviceTest, SaysThresholdReasonRangeAssumptionsAndWarnings) {
  v1::Job job;
  job.set_name("jobs/x");
  job.set_state(v1::Job::STATE_RUNNING);

  const std::string text = DescribeAdvice(Advice(12), job, {80, true});

  EXPECT_THAT(text, HasSubstr("jobs/x: clip the global L2 norm at 0.5 (or 1)"));
  EXPECT_THAT(text, HasSubstr("With SGD"));
  EXPECT_THAT(text, HasSubstr("p50 1.25"));
  EXPECT_THAT(text, HasSubstr("90 %"));
  EXPECT_THAT(text, HasSubstr("0.6 to 12"));
  EXPECT_THAT(text, HasSubstr("- assumed: the loss is a mean"));
  EXPECT_THAT(text, HasSubstr("! only 120 steps"));
  EXPECT_THAT(text, HasSubstr("gradwatch update x --clip 0.5"));
  for (const std::string& line : Lines(text)) EXPECT_LT(DisplayWidth(line), 80u) << line;
}

TEST(DescribeAdviceTest, AJobThatHasEndedIsSubmittedAgain) {
  v1::Job job;
  job.set_state(v1::Job::STATE_SUCCEEDED);

  EXPECT_THAT(DescribeAdvice(Advice(12), job, {80, true}),
              HasSubstr("submit it again with --clip 0.5"));
}

TEST(DescribeAdviceTest, PutsShadowClipsBesideTheThresholds) {
  v1::Job job;
  job.add_shadow_clips()->mutable_global_norm()->set_max_norm(0.25);
  job.add_shadow_clips()->mutable_value()->set_maximum(0.1);
  v1::ClipAdvice advice = Advice(12);
  advice.add_shadows()->set_clip_rate(0.975);
  advice.mutable_shadows(0)->set_mean_coefficient(0.2);
  advice.add_shadows()->set_clip_rate(1);

  const std::string text = DescribeAdvice(advice, job, {80, true});

  EXPECT_THAT(text, HasSubstr("norm 0.25"));
  EXPECT_THAT(text, HasSubstr("97.5 %"));
  EXPECT_THAT(text, HasSubstr("value ..0.1"));
}

TEST(DescribeAdviceTest, ShowsPublishedValuesWithoutData) {
  v1::ClipAdvice advice;
  advice.mutable_recommended()->set_max_norm(1);
  v1::PublishedThreshold* published = advice.add_published();
  published->set_setting("LSTM, copy memory");
  published->set_threshold("0.25 / 1 / 1");
  published->set_source("Bai et al. 2018");

  const std::string text = DescribeAdvice(advice, {}, {80, true});

  EXPECT_THAT(text, HasSubstr("LSTM, copy memory"));
  EXPECT_THAT(text, HasSubstr("Bai et al. 2018"));
}

}  // namespace
}  // namespace gradwatch::cli
