#include "server/base/batch.h"

#include "gtest/gtest.h"

namespace gradwatch {
namespace {

TEST(BatchTest, CountsTheRowsThatAreValidAtATimeStep) {
  Batch batch;
  batch.time_steps = 4;
  batch.rows = 3;
  batch.lengths = {4, 2, 1};

  EXPECT_EQ(batch.valid_rows(0), 3);
  EXPECT_EQ(batch.valid_rows(1), 2);
  EXPECT_EQ(batch.valid_rows(2), 1);
  EXPECT_EQ(batch.valid_rows(3), 1);
  EXPECT_EQ(batch.valid_rows(4), 0);
}

}  // namespace
}  // namespace gradwatch
