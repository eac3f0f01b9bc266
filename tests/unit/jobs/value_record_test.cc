#include "server/jobs/value_record.h"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace gradwatch::jobs {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

TEST(ValueRecordTest, IsEmptyAtFirst) {
  const ValueSummary summary = ValueRecord().At(kStart);

  EXPECT_EQ(summary.count, 0);
  EXPECT_EQ(summary.sum, 0.0);
  EXPECT_FALSE(summary.last_60s.has_value());
}

TEST(ValueRecordTest, ForgetsExtremesThatAreOlderThanAMinute) {
  ValueRecord record;
  record.Add(kStart, 5.0);
  record.Add(kStart, -3.0);
  record.Add(kStart + absl::Seconds(30), 4.0);

  EXPECT_EQ(record.At(kStart + absl::Seconds(59)).last_60s->maximum, 5.0);
  EXPECT_EQ(record.At(kStart + absl::Seconds(59)).last_60s->minimum, -3.0);
  EXPECT_EQ(record.At(kStart + absl::Seconds(60)).last_60s->maximum, 4.0);
  EXPECT_EQ(record.At(kStart + absl::Seconds(60)).last_60s->minimum, 4.0);
  EXPECT_FALSE(record.At(kStart + absl::Seconds(90)).last_60s.has_value());
  record.Add(kStart + absl::Seconds(60), 1.0);
  EXPECT_EQ(record.At(kStart + absl::Seconds(60)).last_60s->maximum, 4.0);
  EXPECT_EQ(record.At(kStart + absl::Seconds(60)).last_60s->minimum, 1.0);
}

TEST(ValueRecordTest, LeavesOutWhatIsNotFinite) {
  ValueRecord record;
  record.Add(kStart, std::numeric_limits<double>::quiet_NaN());
  record.Add(kStart, std::numeric_limits<double>::infinity());
  record.Add(kStart, 2.0);

  EXPECT_EQ(record.At(kStart).count, 1);
  EXPECT_EQ(record.At(kStart).sum, 2.0);
  EXPECT_EQ(record.At(kStart).last_60s->maximum, 2.0);
}

// Two readers, one every 7 and one every 15 seconds: each can tell count, sum and extremes of what
// came since its own last reading, whatever the other does.
TEST(ValueRecordTest, LosesNothingBetweenTheReadingsOfSeveralReaders) {
  struct Reader {
    int every;
    ValueSummary last;
    std::vector<double> since;
  };
  Reader readers[] = {{7, {}, {}}, {15, {}, {}}};
  std::minstd_rand random(1);
  ValueRecord record;

  for (int second = 0; second < 300; ++second) {
    const absl::Time now = kStart + absl::Seconds(second);
    for (int i = 0; i < 5; ++i) {
      const double value = static_cast<double>(random() % 1000) - 500.0;
      record.Add(now, value);
      for (Reader& reader : readers) reader.since.push_back(value);
    }
    for (Reader& reader : readers) {
      if (second % reader.every != 0) continue;
      const ValueSummary summary = record.At(now);
      double sum = 0.0;
      for (const double value : reader.since) sum += value;
      const auto [least, most] = std::minmax_element(reader.since.begin(), reader.since.end());

      // Whole numbers: sums are exact.
      EXPECT_EQ(summary.count - reader.last.count, static_cast<int64_t>(reader.since.size()));
      EXPECT_EQ(summary.sum - reader.last.sum, sum);
      EXPECT_LE(summary.last_60s->minimum, *least);
      EXPECT_GE(summary.last_60s->maximum, *most);
      reader.last = summary;
      reader.since.clear();
    }
  }
}

}  // namespace
}  // namespace gradwatch::jobs
