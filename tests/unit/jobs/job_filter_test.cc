#include "server/jobs/job_filter.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"

namespace gradwatch::jobs {
namespace {

v1::Job JobOf(v1::Job::State state) {
  v1::Job job;
  job.set_state(state);
  (*job.mutable_labels())["team"] = "blue";
  (*job.mutable_labels())["version"] = "1.2";
  return job;
}

struct Case {
  const char* filter;
  bool matches;
};

TEST(JobFilterTest, MatchesWhatItsTermsSay) {
  const v1::Job job = JobOf(v1::Job::STATE_RUNNING);
  for (const Case& tested : {
           Case{"", true},
           Case{"  ", true},
           Case{"state = RUNNING", true},
           Case{"state=RUNNING", true},
           Case{"state = STATE_RUNNING", true},
           Case{"state = \"RUNNING\"", true},
           Case{"state = PAUSED", false},
           Case{"state != PAUSED", true},
           Case{"state != RUNNING", false},
           Case{"labels.team = \"blue\"", true},
           Case{"labels.team = blue", true},
           Case{"labels.team = red", false},
           Case{"labels.version = 1.2", true},
           Case{"labels.other = blue", false},
           Case{"labels:team", true},
           Case{"labels:other", false},
           Case{"state = RUNNING AND labels:team", true},
           Case{"state = RUNNING AND labels:other", false},
           Case{"labels:team AND labels:version AND state != FAILED", true},
       }) {
    const auto filter = JobFilter::Parse(tested.filter);
    ASSERT_TRUE(filter.ok()) << tested.filter << filter.status();
    EXPECT_EQ(filter->Matches(job), tested.matches) << tested.filter;
  }
}

struct BadCase {
  std::string filter;
  const char* says;
};

TEST(JobFilterTest, SaysInWhichColumnItCannotRead) {
  for (const BadCase& tested : {
           BadCase{"nonsense", "column 1: expected state"},
           BadCase{"state", "column 6: expected = or !="},
           BadCase{"state =", "column 8: expected a value"},
           BadCase{"state = SLEEPING", "column 9: 'SLEEPING' is no state"},
           BadCase{"state > RUNNING", "column 7"},
           BadCase{"labels", "column 7: expected . or :"},
           BadCase{"labels.", "column 8: expected the key"},
           BadCase{"labels.a", "column 9: expected ="},
           BadCase{"labels.a = \"x", "column 12: this quote"},
           BadCase{"labels:", "column 8: expected a value"},
           BadCase{"state = RUNNING OR state = PAUSED", "column 17: expected AND"},
           BadCase{"state = RUNNING AND", "column 20: expected state"},
           BadCase{"state = RUNNING labels:a", "column 17: expected AND"},
           BadCase{std::string(1025, 'a'), "at most 1024"},
       }) {
    const auto filter = JobFilter::Parse(tested.filter);
    EXPECT_EQ(filter.status().code(), absl::StatusCode::kInvalidArgument) << tested.filter;
    EXPECT_EQ(FieldViolationsOf(filter.status()).at(0).field, "filter");
    EXPECT_THAT(std::string(filter.status().message()), testing::HasSubstr(tested.says));
  }
}

}  // namespace
}  // namespace gradwatch::jobs
