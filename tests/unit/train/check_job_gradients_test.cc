#include "gtest/gtest.h"
#include "server/train/model_tools.h"
#include "tests/unit/train/jobs.h"

namespace gradwatch::train {
namespace {

TEST(CheckJobGradientsTest, PassesForEveryTaskWithItsOwnData) {
  for (const Kind kind : kAllKinds) {
    const TestJob made = MakeJob(kind);

    const auto checked = CheckJobGradients(made.job, made.dataset, 10, 1e-5);

    ASSERT_TRUE(checked.ok()) << checked.status();
    EXPECT_TRUE(checked->passed()) << checked->DebugString();
    const auto trainer = NewTrainer(made);
    ASSERT_EQ(static_cast<size_t>(checked->tensors_size()), trainer->parameters().size());
    int64_t entries = 0;
    for (int i = 0; i < checked->tensors_size(); ++i) {
      EXPECT_EQ(checked->tensors(i).name(), trainer->parameters()[static_cast<size_t>(i)].name());
      EXPECT_LE(checked->tensors(i).entries(), 10);
      entries += checked->tensors(i).entries();
    }
    EXPECT_EQ(checked->entries(), entries);
    EXPECT_GT(entries, 0);
    EXPECT_TRUE(checked->has_duration());
  }
}

TEST(CheckJobGradientsTest, FailsWhereTheDifferenceIsTooCoarse) {
  const TestJob made = MakeJob(Kind::kAdding);

  const auto checked = CheckJobGradients(made.job, made.dataset, 10, 1e-2);

  ASSERT_TRUE(checked.ok());
  EXPECT_FALSE(checked->passed());
}

TEST(CheckJobGradientsTest, RefusesAJobWithoutItsDataSet) {
  EXPECT_EQ(CheckJobGradients(MakeJob(Kind::kLanguage).job, nullptr, 1, 1e-5).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradwatch::train
