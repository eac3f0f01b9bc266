#include "server/base/range.h"

#include "gtest/gtest.h"

namespace gradwatch {
namespace {

TEST(PartOfTest, CoversEverythingOnceInOrder) {
  for (const int64_t n : {0, 1, 5, 63, 64, 65, 1000}) {
    for (const int64_t step : {1, 16, 64}) {
      for (const int parts : {1, 2, 3, 7}) {
        int64_t next = 0;
        for (int part = 0; part < parts; ++part) {
          const Range range = PartOf(n, part, parts, step);
          EXPECT_EQ(range.begin, next);
          EXPECT_GE(range.size(), 0);
          EXPECT_TRUE(range.begin % step == 0 || range.empty());
          next = range.end;
        }
        EXPECT_EQ(next, n);
      }
    }
  }
}

TEST(PartOfTest, DealsOutEqually) {
  for (int part = 0; part < 3; ++part) {
    EXPECT_GE(PartOf(100, part, 3).size(), 33);
    EXPECT_LE(PartOf(100, part, 3).size(), 34);
  }
}

}  // namespace
}  // namespace gradwatch
