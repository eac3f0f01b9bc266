#include "client/cli/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// One example of the adding problem.
v1::TrainingBatch Adding(int time_steps) {
  v1::TrainingBatch batch;
  batch.set_step(57);
  batch.set_rows(32);
  batch.add_feature_names("value");
  batch.add_feature_names("mark");
  batch.add_target_names("sum");
  v1::TrainingExample* const example = batch.add_examples();
  example->set_origin(1824);
  example->set_time_steps(time_steps);
  for (int t = 0; t < time_steps; ++t) {
    example->add_inputs(0.5f + static_cast<float>(t));
    example->add_inputs(t == 1 ? 1.0f : 0.0f);
  }
  example->add_target_values(1.25f);
  return batch;
}

v1::Job JobOf(void (*set)(v1::Task*)) {
  v1::Job job;
  job.set_name("jobs/x");
  set(job.mutable_task());
  return job;
}

TEST(DescribeBatchTest, ShowsAShortExampleWhole) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_adding(); });

  EXPECT_EQ(DescribeBatch(Adding(3), job, {}),
            "jobs/x step 57: 1 of the 32 rows of its batch\n"
            "\n"
            "row 0: example 1824, 3 time steps\n"
            "t  value  mark\n"
            "0    0.5     0\n"
            "1    1.5     1\n"
            "2    2.5     0\n"
            "target sum 1.25\n");
}

TEST(DescribeBatchTest, LeavesTheMiddleOfALongOneOutAndSaysSo) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_adding(); });

  const std::string cut = DescribeBatch(Adding(50), job, {.full = false, .unicode = false});
  const std::string whole = DescribeBatch(Adding(50), job, {.full = true});

  EXPECT_THAT(cut, HasSubstr("\n  5    5.5     0\n...    ...   ...\n 46   46.5     0\n"));
  EXPECT_THAT(cut, HasSubstr("40 time steps left out; --full shows all\n"));
  EXPECT_THAT(whole, HasSubstr("\n20   20.5     0\n"));
  EXPECT_THAT(whole, Not(HasSubstr("left out")));
}

TEST(DescribeBatchTest, ShowsTargetsWeightsAndRowsOfATable) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_forecast(); });
  v1::TrainingBatch batch = Adding(2);
  batch.set_spoilt(true);
  v1::TrainingExample* const example = batch.mutable_examples(0);
  example->add_target_values(2.5f);
  example->add_weights(0);
  example->add_weights(1);

  const std::string text = DescribeBatch(batch, job, {});

  EXPECT_THAT(text, HasSubstr("its batch, spoilt on purpose (fault_injection)\n"));
  EXPECT_THAT(text, HasSubstr("numbers are standardised"));
  EXPECT_THAT(text, HasSubstr("row 0: rows 1825 to 1826 of the table, from 1, 2 time steps\n"));
  EXPECT_THAT(text, HasSubstr("t  value  mark  -> sum  counts\n"));
  EXPECT_THAT(text, HasSubstr("1    1.5     1     2.5       1\n"));
  EXPECT_THAT(text, Not(HasSubstr("target sum")));
}

// One example of symbols, each with a class beside it or one class for all.
v1::TrainingBatch Symbols(const std::vector<int>& symbols, const std::vector<int>& classes) {
  v1::TrainingBatch batch;
  batch.add_feature_names("token");
  v1::TrainingExample* const example = batch.add_examples();
  example->set_time_steps(static_cast<int>(symbols.size()));
  for (const int symbol : symbols) example->add_inputs(static_cast<float>(symbol));
  for (const int number : classes) example->add_target_classes(number);
  return batch;
}

TEST(DescribeBatchTest, NamesTheSymbolsOfCopyMemory) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_copy_memory(); });

  const std::string text = DescribeBatch(Symbols({8, 0, 9, 0}, {0, 0, 0, 8}), job, {});

  EXPECT_THAT(text, HasSubstr("symbols: a to h are to be remembered and said after 'now'"));
  EXPECT_THAT(text, HasSubstr("t  token  -> class\n"
                              "0      h         _\n"
                              "1      _         _\n"
                              "2    now         _\n"
                              "3      _         h\n"));
}

TEST(DescribeBatchTest, NamesTheSymbolsOfTemporalOrder) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_temporal_order(); });

  const std::string text = DescribeBatch(Symbols({5, 1, 2, 0}, {2}), job, {});

  EXPECT_THAT(text, HasSubstr("symbols: A and B matter"));
  EXPECT_THAT(text, HasSubstr("0      f\n"
                              "1      B\n"
                              "2      c\n"
                              "3      A\n"
                              "target class BA\n"));
}

TEST(DescribeBatchTest, ShowsNumbersWhereThereAreNoNames) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_copy_memory(); });

  // Spoilt on purpose, for instance.
  const std::string text = DescribeBatch(Symbols({10, 3}, {12}), job, {});

  EXPECT_THAT(text, HasSubstr("0     10\n1      c\ntarget class 12\n"));
}

TEST(DescribeBatchTest, ShowsClasses) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_adding(); });
  v1::TrainingBatch last = Adding(2), each = Adding(2);
  for (v1::TrainingBatch* batch : {&last, &each}) {
    batch->clear_target_names();
    batch->mutable_examples(0)->clear_target_values();
    batch->mutable_examples(0)->add_target_classes(3);
  }
  each.mutable_examples(0)->add_target_classes(7);

  EXPECT_THAT(DescribeBatch(last, job, {}), HasSubstr("\ntarget class 3\n"));
  EXPECT_THAT(DescribeBatch(each, job, {}), HasSubstr("t  value  mark  -> class\n"));
  EXPECT_THAT(DescribeBatch(each, job, {}), HasSubstr("1    1.5     1         7\n"));
}

TEST(DescribeBatchTest, LeavesOutColumnsOfAWideTable) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_forecast(); });
  v1::TrainingBatch batch = Adding(1);
  batch.mutable_examples(0)->clear_inputs();
  batch.clear_feature_names();
  for (int i = 0; i < 20; ++i) {
    batch.add_feature_names("c" + std::to_string(i));
    batch.mutable_examples(0)->add_inputs(1);
  }

  EXPECT_THAT(DescribeBatch(batch, job, {}), HasSubstr("12 columns left out; --full shows all\n"));
  EXPECT_THAT(DescribeBatch(batch, job, {.full = true}), HasSubstr("c19"));
}

TEST(DescribeBatchTest, ShowsText) {
  const v1::Job job = JobOf([](v1::Task* task) { task->mutable_language(); });
  v1::TrainingBatch batch;
  v1::TrainingExample* const example = batch.add_examples();
  example->set_origin(120);
  example->set_time_steps(7);
  example->set_text("a\tü\"\\\n\x01");
  example->set_target_text("b");
  v1::TrainingBatch longer = batch;
  std::string text(100, 'a');
  for (int i = 0; i < 100; ++i) text += "ü";
  longer.mutable_examples(0)->set_text(text + std::string(100, 'z'));

  EXPECT_THAT(DescribeBatch(batch, job, {}),
              HasSubstr("characters 120 to 126 of the text, from 0, 7 time steps\n"
                        "reads  \"a\\tü\\\"\\\\\\n\\x01\"\n"
                        "to say \"b\"\n"));
  EXPECT_THAT(DescribeBatch(longer, job, {}),
              HasSubstr("aaüüüüüüüüüüüüüüüüüüüü\" … 120 characters left out … \"zzz"));
  EXPECT_THAT(DescribeBatch(longer, job, {.full = true}), Not(HasSubstr("left out")));
}

}  // namespace
}  // namespace gradwatch::cli
