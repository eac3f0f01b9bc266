#include "server/jobs/settings.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/jobs/names.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {
namespace {

using testing::ElementsAre;

TEST(UpdatePathsTest, WithoutAMaskTheyAreWhatIsSet) {
  v1::UpdateJobRequest request;
  request.mutable_job()->mutable_clipping();
  request.mutable_job()->mutable_training()->set_step_limit(5);
  request.mutable_job()->mutable_training()->set_batch_size(5);

  EXPECT_THAT(*UpdatePaths(request), ElementsAre("clipping", "training.step_limit"));
}

TEST(UpdatePathsTest, APathTwiceIsOnePath) {
  v1::UpdateJobRequest request;
  request.mutable_update_mask()->add_paths("rules");
  request.mutable_update_mask()->add_paths("rules");

  EXPECT_THAT(*UpdatePaths(request), ElementsAre("rules"));
}

TEST(ApplyPathsTest, WhatIsUnsetGetsItsDefault) {
  v1::Job job;
  job.mutable_optimizer()->set_learning_rate(0.5);
  job.mutable_training()->set_step_limit(7);
  job.mutable_clipping();
  job.set_display_name("x");
  train::FillDefaults(&job);

  ApplyPaths(v1::Job(), {"optimizer.learning_rate", "clipping", "display_name"}, &job);

  EXPECT_EQ(job.optimizer().learning_rate(), 0.002);
  EXPECT_EQ(job.clipping().policies(0).global_norm().max_norm(), 1.0);
  EXPECT_EQ(job.display_name(), "");
  EXPECT_EQ(job.training().step_limit(), 7);
}

TEST(ChangesBetweenTest, ValuesHaveAllTheirDigitsAndUnsetOnesAreEmpty) {
  v1::Job before;
  train::FillDefaults(&before);
  v1::Job after = before;
  after.mutable_optimizer()->set_learning_rate(0.1 + 0.2);
  after.mutable_training()->set_truncation(5);
  v1::RuleSettings* const rule = after.add_rules();
  rule->set_id(v1::RULE_ID_EXPLODING_ABS);
  rule->set_threshold(500);

  const auto changes = ChangesBetween(
      before, after,
      {"display_name", "rules", "clipping", "optimizer.learning_rate", "training.truncation"});

  ASSERT_EQ(changes.size(), 3u);
  EXPECT_EQ(changes[0].path(), "rules");
  EXPECT_EQ(changes[0].old_value(), "");
  EXPECT_EQ(changes[0].new_value(), R"([{"id":"RULE_ID_EXPLODING_ABS","threshold":500}])");
  EXPECT_EQ(changes[1].new_value(), "0.30000000000000004");
  EXPECT_EQ(changes[2].old_value(), "");
  EXPECT_EQ(changes[2].new_value(), "5");
}

TEST(RequestedPartTest, LeavesOutEveryOutputOnlyField) {
  v1::Job job;
  job.set_name("jobs/a");
  job.set_state(v1::Job::STATE_FAILED);
  job.set_step(4);
  job.set_etag("e");
  job.set_display_name("kept");
  job.set_seed(0);

  v1::Job expected;
  expected.set_display_name("kept");
  expected.set_seed(0);
  EXPECT_EQ(RequestedPart(job).SerializeAsString(), expected.SerializeAsString());
}

// A setting that is added to Job has to be added to RequestedPart.
TEST(RequestedPartTest, KnowsEverySetting) {
  std::vector<std::string> unknown;
  const auto* type = v1::Job::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* field = type->field(i);
    // Settings have numbers 3 to 19, and 80 and 81.
    const int number = field->number();
    if (!(number >= 3 && number < 20) && number != 80 && number != 81) continue;
    v1::Job job;
    const auto* reflection = job.GetReflection();
    if (field->is_map()) {
      ASSERT_EQ(field->name(), "labels");
      (*job.mutable_labels())["x"] = "x";
    } else if (field->is_repeated()) {
      reflection->AddMessage(&job, field);
    } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      reflection->MutableMessage(&job, field);
    } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_ENUM) {
      reflection->SetEnumValue(&job, field, 1);
    } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
      reflection->SetString(&job, field, "x");
    } else {
      reflection->SetUInt64(&job, field, 1);
    }
    if (RequestedPart(job).ByteSizeLong() == 0) unknown.push_back(field->name());
  }
  EXPECT_THAT(unknown, ElementsAre());
}

TEST(NamesTest, PageTokensBelongToTheirQuery) {
  const std::string token = PageToken("jobs?filter=a", {42, -7});

  EXPECT_THAT(*PagePosition(token, "jobs?filter=a", 2), ElementsAre(42, -7));
  EXPECT_THAT(*PagePosition("", "jobs?filter=a", 2), ElementsAre());
  EXPECT_FALSE(PagePosition(token, "jobs?filter=b", 2).ok());
  EXPECT_FALSE(PagePosition(token, "jobs?filter=a", 1).ok());
  EXPECT_FALSE(PagePosition("%%%", "jobs?filter=a", 2).ok());
  EXPECT_FALSE(PagePosition("YQ", "jobs?filter=a", 2).ok());
}

TEST(NamesTest, IdsAreShortAndDiffer) {
  const std::string a = NewId("job"), b = NewId("job");

  EXPECT_TRUE(IsId(a)) << a;
  EXPECT_EQ(a.size(), 14u);
  EXPECT_NE(a, b);
  EXPECT_EQ(NewUid().size(), 32u);
}

}  // namespace
}  // namespace gradwatch::jobs
