#include "server/base/log.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(LogTest, WritesOneTextLineForEachEvent) {
  InitLog(LogFormat::kText, LogLevel::kInfo);
  testing::internal::CaptureStderr();

  Log(LogLevel::kInfo, "job %s took %d steps", "jobs/a", 7);

  EXPECT_THAT(testing::internal::GetCapturedStderr(), EndsWith(" info job jobs/a took 7 steps\n"));
}

TEST(LogTest, LeavesOutWhatIsBelowTheLevel) {
  InitLog(LogFormat::kText, LogLevel::kWarning);
  testing::internal::CaptureStderr();

  Log(LogLevel::kInfo, "quiet");
  Log(LogLevel::kWarning, "loud");

  const std::string written = testing::internal::GetCapturedStderr();
  EXPECT_THAT(written, HasSubstr("loud"));
  EXPECT_THAT(written, testing::Not(HasSubstr("quiet")));
}

TEST(LogTest, EscapesJson) {
  InitLog(LogFormat::kJson, LogLevel::kInfo);
  testing::internal::CaptureStderr();

  Log(LogLevel::kError, "say \"no\"\n\\ \x01");

  const std::string written = testing::internal::GetCapturedStderr();
  EXPECT_THAT(written, StartsWith("{\"time\":\""));
  EXPECT_THAT(written, EndsWith("\"level\":\"error\",\"message\":\"say \\\"no\\\"\\n\\\\ \\u0001\"}\n"));
}

}  // namespace
}  // namespace gradwatch
