#include "server/data/source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/data/batch_check.h"
#include "tests/unit/data/complete_jobs.h"

namespace gradwatch::data {
namespace {

TEST(ShapeOfTest, RefusesWithFieldValueAndWhatIsAllowed) {
  v1::Job no_examples = AddingJob(4, 10, 10);
  no_examples.mutable_evaluation()->set_examples(0);
  const std::pair<v1::Job, std::string> cases[] = {
      {BaseJob(4),
       "task: is missing, must be one of adding, temporal_order, copy_memory, language, forecast, "
       "mackey_glass"},
      {AddingJob(0, 10, 10), "training.batch_size: got 0, must be 1 to 65536"},
      {AddingJob(65537, 10, 10), "training.batch_size: got 65537, must be 1 to 65536"},
      {no_examples, "evaluation.examples: got 0, must be 1 to 1000000"},
      {AddingJob(4, 1, 1), "task.adding.time_steps: got 1, must be 2 to 10000"},
      {AddingJob(4, 1000000000, 10), "task.adding.time_steps: got 1000000000, must be 2 to 10000"},
      {AddingJob(4, 10, 11), "task.adding.time_steps_min: got 11, must be 2 to 10"},
      {AddingJob(4, 10, 1), "task.adding.time_steps_min: got 1, must be 2 to 10"},
      {TemporalOrderJob(4, 9, 9), "task.temporal_order.time_steps: got 9, must be 10 to 10000"},
      {TemporalOrderJob(4, 20, 9), "task.temporal_order.time_steps_min: got 9, must be 10 to 20"},
      {CopyMemoryJob(4, 0), "task.copy_memory.delay: got 0, must be 1 to 9980"},
      {CopyMemoryJob(4, 9981), "task.copy_memory.delay: got 9981, must be 1 to 9980"},
      {MackeyGlassJob(4, 0, 1, 0), "task.mackey_glass.time_steps: got 0, must be 1 to 10000"},
      {MackeyGlassJob(4, 10, 1001, 0), "task.mackey_glass.horizon: got 1001, must be 1 to 1000"},
      {MackeyGlassJob(4, 10, 1, 10), "task.mackey_glass.warmup_time_steps: got 10, must be 0 to 9"},
  };
  for (const auto& [job, message] : cases) {
    const auto shape = ShapeOf(job, nullptr);

    EXPECT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(shape.status().message(), message);
    EXPECT_EQ(NewSource(job, nullptr).status(), shape.status());
  }
}

TEST(NewSourceTest, NeedsASeed) {
  v1::Job job = AddingJob(4, 10, 10);
  job.clear_seed();

  const auto source = NewSource(job, nullptr);

  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(source.status().message(), "seed: is missing");
}

TEST(DatasetNameOfTest, IsEmptyForGeneratedTasks) {
  EXPECT_EQ(DatasetNameOf(AddingJob(1, 2, 2).task()), "");
  EXPECT_EQ(DatasetNameOf(LanguageJob(1, 2, 0).task()), "datasets/text");
  EXPECT_EQ(DatasetNameOf(ForecastJob(1, 2, {"x"}).task()), "datasets/table");
}

TEST(SourceMemoryBytesTest, CoversTwoBatches) {
  for (const v1::Job& job :
       {AddingJob(16, 40, 40), TemporalOrderJob(16, 40, 40), CopyMemoryJob(16, 20)}) {
    const auto source = SourceOf(job);
    Batch batch;
    source->NextBatch(&batch);
    const size_t held =
        8 * (batch.inputs.capacity() + batch.target_values.capacity() + batch.weights.capacity() +
             batch.origins.capacity()) +
        4 * (batch.tokens.capacity() + batch.target_classes.capacity() + batch.lengths.capacity()) +
        batch.restart.capacity();

    const int64_t bytes = SourceMemoryBytes(job, source->shape());

    EXPECT_GE(bytes, static_cast<int64_t>(2 * held));
    EXPECT_LE(bytes, static_cast<int64_t>(2 * held + 16 * 100));
  }
}

TEST(SourceMemoryBytesTest, DoesNotOverflowForTheLargestJob) {
  TaskShape shape;
  shape.time_steps = 10000;
  shape.rows_max = 65536;
  shape.features = kColumnsMax;
  shape.outputs = kColumnsMax;

  EXPECT_GT(SourceMemoryBytes(v1::Job(), shape), int64_t{10} << 40);
}

// "abc…zabc…", and columns t and s = 2 t + 5.
Content SeekText() {
  std::string text;
  for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i % 26);
  return *ParseText(text);
}

Content SeekTable() {
  std::string table = "t,s\n";
  for (int i = 0; i < 400; ++i) absl::StrAppend(&table, i, ",", 2 * i + 5, "\n");
  return *ParseTable(table);
}

TEST(SeekTest, GivesTheBatchesThatComeInOrder) {
  v1::Job windows = ForecastJob(4, 10, {"s"});
  windows.mutable_task()->mutable_forecast()->set_carry_state(false);
  v1::Job spoilt = AddingJob(4, 12, 6);
  spoilt.mutable_fault_injection()->set_first_batch(3);
  spoilt.mutable_fault_injection()->set_batches(4);
  spoilt.mutable_fault_injection()->set_factor(100);
  v1::Job spoilt_streams = ForecastJob(4, 10, {"t", "s"});
  *spoilt_streams.mutable_fault_injection() = spoilt.fault_injection();
  const std::pair<v1::Job, Content> cases[] = {
      {AddingJob(4, 12, 6), nullptr},
      {TemporalOrderJob(4, 20, 12), nullptr},
      {CopyMemoryJob(4, 5), nullptr},
      {MackeyGlassJob(4, 10, 2, 3), nullptr},
      {LanguageJob(4, 10, 0.1), SeekText()},
      {ForecastJob(4, 10, {"s"}), SeekTable()},
      {windows, SeekTable()},
      {spoilt, nullptr},
      {spoilt_streams, SeekTable()},
  };
  constexpr int64_t kBatches = 20;  // More than the streams have until they begin again.
  for (const auto& [job, content] : cases) {
    SCOPED_TRACE(job.DebugString());
    const auto ordered = SourceOf(job, content), sought = SourceOf(job, content);
    std::vector<Batch> batches(kBatches);
    for (Batch& batch : batches) ordered->NextBatch(&batch);

    Batch batch;
    for (int64_t i = 0; i < kBatches; ++i) {
      const int64_t number = i * 7 % kBatches;
      sought->Seek(number);
      for (int64_t next = number; next < std::min(number + 2, kBatches); ++next) {
        sought->NextBatch(&batch);
        ExpectSame(batch, batches[static_cast<size_t>(next)]);
      }
    }
  }
}

TEST(ShapeOfTest, NamesTheColumnsOfNumericInput) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(ShapeOf(AddingJob(4, 10, 10), nullptr)->feature_names, (Names{"value", "mark"}));
  EXPECT_EQ(ShapeOf(MackeyGlassJob(4, 10, 2, 3), nullptr)->feature_names, Names{"x"});
  EXPECT_EQ(ShapeOf(ForecastJob(4, 10, {"s", "t"}), SeekTable().get())->feature_names,
            (Names{"s", "t"}));
  EXPECT_TRUE(ShapeOf(CopyMemoryJob(4, 5), nullptr)->feature_names.empty());
}

}  // namespace
}  // namespace gradwatch::data
