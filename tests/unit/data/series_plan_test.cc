#include "server/data/series_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace gradwatch::data {
namespace {

SeriesSettings Settings(int64_t positions, int64_t training) {
  SeriesSettings settings;
  settings.positions = positions;
  settings.training = training;
  settings.time_steps = 5;
  settings.batch_size = 4;
  settings.examples_max = 1000;
  return settings;
}

// How often each position is a target that counts in evaluation; also checks the windows' bounds.
std::vector<int> CountEvaluationTargets(const SeriesPlan& plan) {
  const SeriesSettings& s = plan.settings();
  std::vector<int> counts(static_cast<size_t>(s.positions));
  for (int64_t batch = 0; batch < plan.evaluation_batches(); ++batch) {
    EXPECT_GE(plan.evaluation_rows(batch), 1);
    EXPECT_LE(plan.evaluation_rows(batch), s.batch_size);
    for (int64_t row = 0; row < plan.evaluation_rows(batch); ++row) {
      const Window window = plan.EvaluationWindow(batch, row);
      EXPECT_GE(window.start, 0);
      EXPECT_LE(window.start + s.time_steps - 1 + s.horizon, s.positions - 1);
      for (int64_t t = s.warmup; t < s.time_steps; ++t) {
        const int64_t target = window.start + t + s.horizon;
        if (target >= window.counted_from) ++counts[static_cast<size_t>(target)];
      }
    }
  }
  return counts;
}

TEST(TrainingPartTest, IsTheShareRoundedDown) {
  EXPECT_EQ(TrainingPart(1115394, 0.1), 1003854);
  EXPECT_EQ(TrainingPart(10, 0.2), 8);
  EXPECT_EQ(TrainingPart(10, 0.9), 1);
  EXPECT_EQ(TrainingPart(100, 0.0), 100);
  EXPECT_EQ(TrainingPart(3, 0.01), 2);
  EXPECT_EQ(TrainingPart(0, 0.5), 0);
  for (int64_t n = 10; n <= 5000; n += 10) EXPECT_EQ(TrainingPart(n, 0.2), n / 10 * 8);
}

TEST(CheckRoomTest, NeedsRoomForAWindowInEachStream) {
  SeriesSettings settings = Settings(30, 21);
  EXPECT_TRUE(CheckRoom(settings, "f", "rows").ok());

  settings.training = 20;

  const absl::Status status = CheckRoom(settings, "task.x.dataset", "rows");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "task.x.dataset: the training part has 20 rows, but batch_size 4 x time_steps 5 with "
            "targets 1 ahead needs at least 21");
}

TEST(CheckRoomTest, RandomWindowsNeedRoomForOne) {
  SeriesSettings settings = Settings(30, 8);
  settings.carry_state = false;
  settings.horizon = 3;
  EXPECT_TRUE(CheckRoom(settings, "f", "rows").ok());

  settings.training = 7;

  EXPECT_EQ(CheckRoom(settings, "f", "rows").message(),
            "f: the training part has 7 rows, but time_steps 5 with targets 3 ahead needs at "
            "least 8");
}

TEST(SeriesPlanTest, TrainingStreamsAreContiguousApartAndInsideTheTrainingPart) {
  SeriesSettings settings = Settings(150, 120);
  settings.horizon = 3;
  const SeriesPlan plan(settings);

  // 117 positions have a target: streams of 29, each of 5 windows.
  ASSERT_EQ(plan.batches_per_pass(), 5);
  std::vector<int> reads(150);
  for (int64_t row = 0; row < 4; ++row) {
    for (int64_t i = 0; i < 5; ++i) {
      const int64_t start = plan.TrainingWindow(i, row).start;
      EXPECT_EQ(start, row * 29 + i * 5);
      EXPECT_LT(start + 4 + 3, 120);
      for (int64_t t = 0; t < 5; ++t) ++reads[static_cast<size_t>(start + t)];
    }
  }
  EXPECT_EQ(*std::max_element(reads.begin(), reads.end()), 1);
}

TEST(SeriesPlanTest, RandomWindowsMayStartWhereverTheirTargetsTrain) {
  SeriesSettings settings = Settings(150, 120);
  settings.carry_state = false;
  settings.horizon = 3;

  EXPECT_EQ(SeriesPlan(settings).random_starts(), 120 - 3 - 5 + 1);
}

TEST(SeriesPlanTest, WithoutHeldOutPartThereIsNoEvaluation) {
  EXPECT_EQ(SeriesPlan(Settings(100, 100)).evaluation_batches(), 0);
}

TEST(SeriesPlanTest, EvaluationStreamsCountHeldOutTargetsOnce) {
  for (int64_t held_out = 1; held_out <= 60; ++held_out) {
    const SeriesPlan plan(Settings(100 + held_out, 100));

    const std::vector<int> counts = CountEvaluationTargets(plan);

    EXPECT_EQ(std::count(counts.begin(), counts.begin() + 100, 0), 100);
    EXPECT_LE(*std::max_element(counts.begin(), counts.end()), 1);
    // What is left over at the end of each stream is less than a window.
    const int64_t rows = plan.evaluation_rows(0);
    EXPECT_GT(std::count(counts.begin() + 100, counts.end(), 1), held_out - rows * 5);
    EXPECT_EQ(rows, std::clamp<int64_t>(held_out / 5, 1, 4));
  }
}

TEST(SeriesPlanTest, EvaluationStreamsGoOnFromWindowToWindow) {
  const SeriesPlan plan(Settings(160, 100));

  // 60 held-out targets: 4 streams of 15, each of 3 windows; the first input is one back.
  ASSERT_EQ(plan.evaluation_batches(), 3);
  EXPECT_EQ(plan.evaluation_rows(1), 4);
  EXPECT_EQ(plan.EvaluationWindow(0, 0).start, 99);
  EXPECT_EQ(plan.EvaluationWindow(1, 0).start, 104);
  EXPECT_EQ(plan.EvaluationWindow(0, 1).start, 114);
  EXPECT_EQ(plan.EvaluationWindow(2, 3).start, 99 + 3 * 15 + 10);
}

TEST(SeriesPlanTest, EvaluationHasAtMostSoManyWindows) {
  SeriesSettings settings = Settings(1000, 100);
  settings.examples_max = 10;
  const SeriesPlan streams(settings);
  EXPECT_EQ(streams.evaluation_batches(), 2);
  EXPECT_EQ(streams.evaluation_rows(0), 4);

  settings.examples_max = 3;
  const SeriesPlan few(settings);
  EXPECT_EQ(few.evaluation_batches(), 1);
  EXPECT_EQ(few.evaluation_rows(0), 3);

  settings.carry_state = false;
  settings.examples_max = 10;
  const SeriesPlan windows(settings);
  EXPECT_EQ(windows.evaluation_batches(), 3);
  EXPECT_EQ(windows.evaluation_rows(2), 2);
  EXPECT_EQ(windows.EvaluationWindow(0, 0).start, 99);
  EXPECT_EQ(windows.EvaluationWindow(0, 1).start, 99 + 18 * 5) << "spread over all 180";
}

TEST(SeriesPlanTest, WindowsCoverEachHeldOutTargetExactlyOnce) {
  for (int64_t held_out = 1; held_out <= 40; ++held_out) {
    for (int64_t warmup = 0; warmup < 5; ++warmup) {
      for (const int64_t horizon : {1, 4, 30}) {
        SeriesSettings settings = Settings(100 + held_out, 100);
        settings.carry_state = false;
        settings.warmup = warmup;
        settings.horizon = horizon;

        const std::vector<int> counts = CountEvaluationTargets(SeriesPlan(settings));

        EXPECT_EQ(std::count(counts.begin(), counts.begin() + 100, 0), 100);
        EXPECT_EQ(std::count(counts.begin() + 100, counts.end(), 1), held_out)
            << held_out << " held out, warm-up " << warmup << ", horizon " << horizon;
      }
    }
  }
}

}  // namespace
}  // namespace gradwatch::data
