#ifndef GRADWATCH_TESTS_UNIT_JOBS_RECORD_TESTING_H_
#define GRADWATCH_TESTS_UNIT_JOBS_RECORD_TESTING_H_

#include <cmath>
#include <memory>

#include "gtest/gtest.h"
#include "server/jobs/step_record.h"

namespace gradwatch::jobs {

inline std::shared_ptr<const StepRecord> RecordOf(v1::StepStats stats) {
  return RecordMaker().Make(&stats);
}

// Of equal bytes and equal numbers; NaN, which says that a number is absent, equals itself.
inline void ExpectSameRecord(const StepRecord& a, const StepRecord& b) {
  const auto same = [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); };
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.wire, b.wire);
  EXPECT_EQ(a.scalars, b.scalars);
  EXPECT_EQ(a.details, b.details);
  EXPECT_PRED2(same, a.loss, b.loss);
  EXPECT_PRED2(same, a.norm_before, b.norm_before);
  EXPECT_PRED2(same, a.norm_after, b.norm_after);
  EXPECT_PRED2(same, a.growth_factor, b.growth_factor);
  EXPECT_PRED2(same, a.update_ratio, b.update_ratio);
  EXPECT_PRED2(same, a.gradient_cosine, b.gradient_cosine);
  EXPECT_PRED2(same, a.distance_ratio, b.distance_ratio);
  EXPECT_EQ(a.clipped, b.clipped);
  EXPECT_EQ(a.skipped, b.skipped);
  EXPECT_EQ(a.nonfinite, b.nonfinite);
  EXPECT_EQ(a.evaluated, b.evaluated);
  EXPECT_EQ(a.intervened, b.intervened);
  EXPECT_EQ(a.shadows, b.shadows);
  EXPECT_EQ(a.shadows_clipped, b.shadows_clipped);
}

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_TESTS_UNIT_JOBS_RECORD_TESTING_H_
