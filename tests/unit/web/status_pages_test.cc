#include "server/web/status_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradwatch::web {
namespace {

using ::testing::HasSubstr;

class StatusPagesTest : public ::testing::Test {
 protected:
  RealClock clock_;
  metrics::Metrics metrics_{{}, {}, [] { return metrics::JobsView{}; }, &clock_};
  bool ready_ = true;
  HttpHandler pages_ = NewStatusPages(&metrics_, [this] { return ready_; });
};

TEST_F(StatusPagesTest, IndexNamesThePages) {
  const HttpResponse page = pages_("/");

  EXPECT_EQ(page.status, 200);
  for (const char* path : {"/metrics", "/healthz", "/readyz"}) {
    EXPECT_THAT(page.body, HasSubstr(path));
  }
}

TEST_F(StatusPagesTest, MetricsHaveTheirContentType) {
  const HttpResponse page = pages_("/metrics");

  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(page.body, HasSubstr("# TYPE gradwatch_jobs gauge\n"));
}

TEST_F(StatusPagesTest, LivenessAndReadinessAreApart) {
  ready_ = false;

  EXPECT_EQ(pages_("/healthz").status, 200);
  EXPECT_EQ(pages_("/readyz").status, 503);
  ready_ = true;
  EXPECT_EQ(pages_("/readyz").status, 200);
}

TEST_F(StatusPagesTest, UnknownPathsAreNotFound) {
  EXPECT_EQ(pages_("/metrics/").status, 404);
  EXPECT_EQ(pages_("/../etc/passwd").status, 404);
}

}  // namespace
}  // namespace gradwatch::web
