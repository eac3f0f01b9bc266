#include "server/jobs/alert_feed.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gradwatch::jobs {
namespace {

using Outcome = AlertFeed::Reader::Outcome;

v1::Alert AlertOf(int number, v1::Alert::State state) {
  v1::Alert alert;
  alert.set_name(absl::StrCat("jobs/a/alerts/", number));
  alert.set_state(state);
  return alert;
}

void Publish(AlertFeed* feed, int64_t job, int number, v1::Alert::State state) {
  auto alerts = std::make_shared<JobAlerts>();
  const v1::Alert alert = AlertOf(number, state);
  alerts->alerts.push_back(std::make_shared<const v1::Alert>(alert));
  feed->Publish(job, alerts, {alert});
}

TEST(AlertFeedTest, AReaderThatIsTooSlowLosesTheOldestAndIsToldHowMany) {
  AlertFeed feed;
  feed.AddJob(1);
  const auto reader = feed.Open(1, [] {});
  for (int i = 1; i <= 1003; ++i) Publish(&feed, 1, i, v1::Alert::STATE_FIRING);
  v1::Alert alert;
  int64_t dropped = 0;

  ASSERT_EQ(*reader->Read(&alert, &dropped), Outcome::kAlert);
  EXPECT_EQ(alert.name(), "jobs/a/alerts/4");
  EXPECT_EQ(dropped, 3);
  ASSERT_EQ(*reader->Read(&alert, &dropped), Outcome::kAlert);
  EXPECT_EQ(alert.name(), "jobs/a/alerts/5");
  EXPECT_EQ(dropped, 0);
}

TEST(AlertFeedTest, AReaderSeesItsOwnJobOrAll) {
  AlertFeed feed;
  feed.AddJob(1);
  feed.AddJob(2);
  int own_calls = 0, all_calls = 0;
  const auto own = feed.Open(1, [&own_calls] { ++own_calls; });
  const auto all = feed.Open(AlertFeed::kAllJobs, [&all_calls] { ++all_calls; });

  Publish(&feed, 2, 1, v1::Alert::STATE_FIRING);

  v1::Alert alert;
  int64_t dropped = 0;
  EXPECT_EQ(own_calls, 0);
  EXPECT_EQ(all_calls, 1);
  EXPECT_EQ(*own->Read(&alert, &dropped), Outcome::kNothing);
  EXPECT_EQ(*all->Read(&alert, &dropped), Outcome::kAlert);
}

TEST(AlertFeedTest, ReadersEndWithTheirJob) {
  AlertFeed feed;
  feed.AddJob(1);
  const auto reader = feed.Open(1, [] {});
  const auto all = feed.Open(AlertFeed::kAllJobs, [] {});
  Publish(&feed, 1, 1, v1::Alert::STATE_FIRING);
  feed.EndJob(1);
  v1::Alert alert;
  int64_t dropped = 0;

  EXPECT_EQ(*reader->Read(&alert, &dropped), Outcome::kAlert);
  EXPECT_EQ(*reader->Read(&alert, &dropped), Outcome::kEnd);
  feed.RemoveJob(1);
  EXPECT_EQ(reader->Read(&alert, &dropped).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(*all->Read(&alert, &dropped), Outcome::kAlert);
  EXPECT_EQ(*all->Read(&alert, &dropped), Outcome::kNothing);
  feed.Stop();
  EXPECT_EQ(all->Read(&alert, &dropped).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(feed.Of(1)->alerts.size(), 0u);
}

}  // namespace
}  // namespace gradwatch::jobs
