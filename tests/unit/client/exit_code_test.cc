#include "client/cli/exit_code.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/support/errors.h"

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;

const ErrorContext kContext{"127.0.0.1:7070",
                            absl::Seconds(10),
                            {{"model.hidden_units", "--hidden"},
                             {"clipping.policies.global_norm.max_norm", "--clip"},
                             {"clipping", "--clip"}}};

TEST(ExitCodeTest, FollowsTheStatus) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::AlreadyExistsError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::AbortedError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 7);
}

TEST(ExitCodeTest, FollowsTheJob) {
  EXPECT_EQ(ExitCodeOf(v1::Job::STATE_SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(v1::Job::STATE_FAILED), 1);
  EXPECT_EQ(ExitCodeOf(v1::Job::STATE_CANCELLED), 5);
}

TEST(ExplainTest, ListsEveryFieldWithItsFlag) {
  const absl::Status status =
      InvalidFields({{"model.hidden_units", "must be 1 to 4096, is 0"},
                     {"job.clipping.policies[0].global_norm.max_norm", "must be above 0, is -1"},
                     {"labels['A']", "must match"}});

  EXPECT_EQ(Explain(status, kContext),
            "3 settings are not right:\n"
            "  model.hidden_units (--hidden): must be 1 to 4096, is 0\n"
            "  job.clipping.policies[0].global_norm.max_norm (--clip): must be above 0, is -1\n"
            "  labels['A']: must match");
}

TEST(ExplainTest, FallsBackOnTheFlagOfTheWholeMessage) {
  const absl::Status status = InvalidFields({{"clipping.policies", "at most 8, are 9"}});

  EXPECT_THAT(Explain(status, kContext), HasSubstr("clipping.policies (--clip): at most 8"));
}

TEST(ExplainTest, SaysHowToFindAServer) {
  const absl::Status status = absl::UnavailableError(
      "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7070: Failed to "
      "connect to remote host: Connection refused");

  EXPECT_EQ(Explain(status, kContext),
            "no server answers at 127.0.0.1:7070 (Connection refused): start gradwatchd, or name "
            "another server with --server");
}

TEST(ExplainTest, ThinksOfTlsWhenTheServerHangsUp) {
  const absl::Status status = absl::UnavailableError(
      "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7070: Socket "
      "closed");

  EXPECT_THAT(Explain(status, kContext), HasSubstr("(Socket closed): if it speaks TLS, see --tls"));
}

TEST(ExplainTest, SaysHowToWaitLonger) {
  EXPECT_EQ(Explain(absl::DeadlineExceededError("Deadline Exceeded"), kContext),
            "no answer from 127.0.0.1:7070 within 10 s: try again, or wait longer with --timeout");
}

TEST(ExplainTest, KeepsTheServersSentence) {
  EXPECT_EQ(Explain(absl::FailedPreconditionError("it runs"), kContext), "it runs");
  EXPECT_EQ(Explain(absl::NotFoundError("no 'datasets/x'"), kContext), "no 'datasets/x'");
}

TEST(ExplainTest, SaysWhyAJobMayBeUnknown) {
  EXPECT_THAT(Explain(absl::NotFoundError("there is no 'jobs/x'"), kContext),
              HasSubstr("there is no 'jobs/x'; gradwatch list shows"));
}

}  // namespace
}  // namespace gradwatch::cli
